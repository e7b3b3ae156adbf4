"""Every family keeps the same contracts; each line of FAMILIES is checked by all of them."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.families import built, parameters_of

from pyrovae.base.errors import InputError
from pyrovae.programs import families
from pyrovae.programs.families.continuous import normal
from pyrovae.programs.families.family import SCALE_FLOOR, Family, learned, positive, positive_inverse

FAMILIES = {
    **{name: partial(f, 5) for name, f in families.FAMILIES.items() if not f.of_columns},  # those: test_columns.py
    "normal-fixed-scale": lambda: normal(scale=0.3),
    "normal-learned-scale": lambda: normal(scale=learned(0.5)),
    "normal-learned-scales": lambda: normal(scale=learned(torch.tensor([0.5, 1.0, 2.0]))),
    "laplace-of-a-user": lambda: Family("laplace", lambda shape: (shape, shape), build_laplace),
}
CONTINUOUS = ("normal", "low-rank", "continuous", "beta", "laplace", "logistic", "student", "log-", "gamma")
OUTSIDE = {
    "bernoulli-grey": (families.bernoulli, 0.5),
    "bernoulli-count": (families.bernoulli, 2.0),
    "continuous_bernoulli": (families.continuous_bernoulli, 1.01),
    "binomial-too-many": (lambda: families.binomial(5), 6.0),
    "binomial-fraction": (lambda: families.binomial(5), 2.5),
    "poisson-negative": (families.poisson, -1.0),
    "poisson-fraction": (families.poisson, 0.5),
    "categorical": (lambda: families.categorical(4), 4.0),
    "normal": (normal, math.nan),
}


def build_laplace(event_dim, loc, raw_scale):
    return dist.Laplace(loc, positive(raw_scale)).to_event(event_dim)


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request):
    return request.param()


class TestContracts:
    def test_parameters_have_the_declared_shapes(self, family):
        shapes = family.shapes(torch.Size((2, 3)))
        assert shapes and all(isinstance(shape, torch.Size) for shape in shapes)
        assert family.name and all(value.isfinite().all() for value in family.initial(torch.Size((2, 3))))

    @pytest.mark.parametrize("lead", [(), (7,), (5, 7)], ids=str)
    def test_particles_stand_before_data(self, family, lead):
        y = built(family, lead=lead)
        assert (y.batch_shape, y.event_shape) == (lead, (2, 3))
        assert y.sample().shape == (*lead, 2, 3)
        assert y.log_prob(y.sample()).shape == lead
        assert y.log_prob(y.sample((4,))).shape == (4, *lead)
        assert y.mean.shape == (*lead, 2, 3)

    def test_one_datum_is_scored_by_all_particles(self, family):
        parameters = parameters_of(family, (2, 3), (5, 7))
        y = family.build(2, *parameters)
        x = y.sample()[0]
        size = len(family.shapes(torch.Size((2, 3))))
        rows = [family.build(2, *(p[k] for p in parameters[:size]), *parameters[size:]).log_prob(x) for k in range(5)]
        torch.testing.assert_close(y.log_prob(x), torch.stack(rows), rtol=1e-12, atol=1e-12)

    def test_events_without_dimensions(self, family):
        if any(value.dim() for value in family.free if not callable(value)):
            family = normal(scale=learned(1.0))
        y = built(family, (), (6,))
        assert (y.batch_shape, y.event_shape, y.log_prob(y.sample()).shape) == ((6,), (), (6,))

    def test_samples_lie_in_the_support_and_score_finite(self, family):
        y = built(family, lead=(7,))
        x = y.sample((100,))
        assert y.support.check(x).all()
        assert y.log_prob(x).isfinite().all()

    def test_every_parameter_gets_a_finite_gradient(self, family):
        parameters = parameters_of(family, (2, 3), (7,))
        y = family.build(2, *parameters)
        gradients = torch.autograd.grad(y.log_prob(y.sample()).sum(), parameters)
        assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)

    def test_draws_follow_the_density(self, family):
        # The score has mean zero under its own density; 5 standard errors, from 100 blocks of 500 draws.
        parameters = parameters_of(family, (3,), ())
        y = family.build(1, *parameters)
        blocks = [
            torch.autograd.grad(y.log_prob(y.sample((500,))).mean(), parameters, retain_graph=True) for _ in range(100)
        ]
        for scores in map(torch.stack, zip(*blocks, strict=True)):
            assert (scores.mean(0).abs() <= 5 * scores.std(0) / 10 + 1e-6).all()

    def test_expands_under_plates(self, family):
        y = built(family)
        with pyro.plate("particles", 5, dim=-2), pyro.plate("data", 7, dim=-1):
            x = pyro.sample("x", y)
        assert x.shape == (5, 7, 2, 3)
        expanded = y.expand((5, 7))
        assert (expanded.batch_shape, expanded.event_shape) == ((5, 7), (2, 3))
        torch.testing.assert_close(expanded.log_prob(x), y.log_prob(x), rtol=1e-12, atol=1e-12)

    @torch.no_grad()
    def test_single_precision_is_enough_for_an_image(self, family):
        if any(value.dim() for value in family.free if not callable(value)):
            pytest.skip("its learned scales are those of three elements")
        num_numbers = sum(shape.numel() for shape in family.shapes(torch.Size((784,))))
        parameters = parameters_of(family, (784,), (max(5, 500_000 // num_numbers),), torch.float32)
        single = family.build(1, *parameters)
        double = family.build(1, *(parameter.double() for parameter in parameters))
        x = single.sample()
        assert (single.log_prob(x) - double.log_prob(x)).abs().max() <= 1e-3


class TestSupport:
    @pytest.mark.parametrize(("make", "value"), OUTSIDE.values(), ids=OUTSIDE.keys())
    def test_values_outside_are_refused(self, make, value):
        with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
            y = built(make(), (3,))
            y.log_prob(torch.full((3,), value).double())

    def test_masses_and_densities_say_so(self):
        discrete = {name: built(make()).support.is_discrete for name, make in FAMILIES.items()}
        continuous = {name for name, is_discrete in discrete.items() if not is_discrete}
        assert continuous == {name for name in FAMILIES if name.startswith(CONTINUOUS)} - {"beta-binomial"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_positive_and_its_inverse(dtype):
    value = torch.tensor([2e-4, 1e-2, 0.5, 1.0, 30.0, 1e4], dtype=dtype)
    torch.testing.assert_close(positive(positive_inverse(value)), value)
    raw = torch.linspace(-5, 50, 12, dtype=dtype)
    torch.testing.assert_close(positive_inverse(positive(raw)), raw, rtol=1e-4, atol=1e-3)


def test_positive_never_reaches_below_its_floor():
    assert (positive(torch.tensor([-1e4, -100.0, 0.0])) >= SCALE_FLOOR).all()
    assert positive(positive_inverse(torch.tensor(1e-6))).item() == pytest.approx(SCALE_FLOOR)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learned(-0.5), "positive and finite, got -0.5"),
        (lambda: learned(torch.tensor([1.0, math.nan])), "positive and finite"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
