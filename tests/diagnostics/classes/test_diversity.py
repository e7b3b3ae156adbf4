"""Distances within and between draws and data of each class: known ones, and what is refused."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError

Y = torch.arange(1200) % 3
X = Y[:, None] * 5.0 + torch.randn(1200, 1, generator=torch.Generator().manual_seed(0))


def with_scale(scale, shift=0.0):
    def model(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(y[:, None] * 5.0 + shift, scale).to_event(1), obs=x)

    return model


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_two_draws_of_a_normal_are_2_sd_over_root_pi_apart(scale):
    found = pv.diversity(with_scale(scale), (X, Y))
    assert found.classes == [0, 1, 2] and found.num_data.tolist() == [400] * 3
    for mean, se, sd in ((found.draws, found.se_draws, scale), (found.data, found.se_data, 1.0)):
        assert ((mean - 2 * sd / math.sqrt(math.pi)).abs() < 4 * se).all()  # 4 standard errors
    assert (found.ratio < 0.7).all() == (scale == 0.5)


def test_the_energy_distance_tells_a_shift_that_diversity_does_not():
    right, moved = pv.diversity(with_scale(1.0), (X, Y)), pv.diversity(with_scale(1.0, 1.0), (X, Y))
    torch.testing.assert_close(right.draws, moved.draws)
    assert (right.energy.abs() < 0.05).all() and (moved.energy > 0.3).all()


@pytest.mark.parametrize(
    ("data", "options", "match"),
    [
        ((X,), {}, "the last tensor of the data is the classes"),
        ((X, X[:, 0]), {}, "the last tensor of the data is the classes"),
        ((X[:3], Y[:3]), {}, "class 0 has one datum"),
        ((X, Y), {"site": "z"}, "site 'z' is not drawn by the model, which draws x"),
    ],
)
def test_what_has_no_distances_is_refused(data, options, match):
    with pytest.raises(InputError, match=match):
        pv.diversity(with_scale(1.0), data, **options)
