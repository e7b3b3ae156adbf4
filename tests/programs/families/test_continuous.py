"""Families of real values: densities that integrate to one, in any unit, with scales that start where they are told."""

import math

import pyro
import pytest
import torch
from examples.families import built

from pyrovae.base.errors import InputError
from pyrovae.programs.families.continuous import normal
from pyrovae.programs.families.family import SCALE_FLOOR, learned, positive, positive_inverse

NORMAL = {
    "normal": normal,
    "normal-fixed-scale": lambda: normal(scale=0.3),
    "normal-learned-scale": lambda: normal(scale=learned(0.5)),
}


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.mark.parametrize("make", NORMAL.values(), ids=NORMAL)
def test_normal_integrates_to_one(make):
    y = built(make(), (), (20,))
    x = torch.linspace(-40, 40, 200_001, dtype=torch.float64)[:, None]
    integral = torch.trapezoid(y.log_prob(x).exp(), x, dim=0)
    torch.testing.assert_close(integral, torch.ones(20).double(), rtol=0, atol=1e-6)


class TestNormal:
    @pytest.mark.parametrize("factor", [1e-3, 0.3, 255.0])
    def test_a_unit_shifts_the_density_by_its_jacobian(self, factor):
        loc, scale, x = torch.randn(3, 7, 20, dtype=torch.float64).unbind()
        scale = 1 + scale.exp()

        def score(unit):
            y = normal().build(1, unit * loc, positive_inverse(unit * scale))
            return y.log_prob(unit * x)

        torch.testing.assert_close(score(factor), score(1.0) - 20 * math.log(factor), rtol=1e-9, atol=1e-9)

    def test_a_learned_scale_stays_above_its_floor_on_constant_data(self):
        family = normal(scale=learned(0.1))
        (raw,) = (value.clone().requires_grad_() for value in family.free)
        x, loc = torch.full((8, 4), 0.5), torch.full((8, 4), 0.5)
        optimizer = torch.optim.Adam([raw], lr=0.05)
        for _ in range(2000):
            optimizer.zero_grad()
            loss = -family.build(1, loc, raw).log_prob(x).sum()
            loss.backward()
            optimizer.step()
        assert loss.isfinite() and raw.isfinite()
        assert SCALE_FLOOR <= positive(raw).item() < 2 * SCALE_FLOOR

    def test_learned_scales_start_where_they_are_told(self):
        scales = torch.tensor([0.01, 1.0, 50.0])
        family = normal(scale=learned(scales))
        torch.testing.assert_close(family.build(1, torch.zeros(3), *family.free).base_dist.scale, scales)

    def test_learned_scales_of_another_shape_are_refused(self):
        family = normal(scale=learned(torch.ones(7)))
        for shape in [(3, 8, 8), (3, 7, 1), (3,)]:
            with pytest.raises(InputError, match=r"scale of shape \(7,\) does not fit events of shape"):
                family.build(len(shape) - 1, torch.zeros(shape), *family.free)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: normal(scale=0.0), "positive scale, got 0"),
        (lambda: normal(scale=-1.0), "positive scale, got -1"),
        (lambda: normal(scale=math.inf), "positive scale, got inf"),
        (lambda: normal(scale=math.nan), "positive scale, got nan"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
