"""Families of counts, classes and binary values: masses that sum to one, data of any type, logits of any size."""

import pyro
import pytest
import torch
from examples.families import built

from pyrovae.base.errors import InputError
from pyrovae.programs import families

COUNTED = {
    "bernoulli": families.bernoulli,
    "binomial": lambda: families.binomial(5),
    "poisson": families.poisson,
    "categorical": lambda: families.categorical(4),
}
MASSES = {
    "bernoulli": (families.bernoulli, 2),
    "binomial": (lambda: families.binomial(16), 17),
    "categorical": (lambda: families.categorical(7), 7),
    "poisson-truncated": (families.poisson, 400),
    "negative-binomial-truncated": (families.negative_binomial, 20_000),
    "zero-inflated-poisson-truncated": (families.zero_inflated_poisson, 400),
    "zero-inflated-negative-binomial-truncated": (families.zero_inflated_negative_binomial, 20_000),
    "beta-binomial": (lambda: families.beta_binomial(16), 17),
    "ordinal": (lambda: families.ordinal(7), 7),
    "discretised-logistic": (families.discretised_logistic, 256),
    "binned-normal": (lambda: families.binned_normal(16), 17),
    "binned-laplace": (lambda: families.binned(families.laplace(), 16), 17),
    "binned-logistic": (lambda: families.binned(families.logistic(), 16), 17),
    "discretised-logistic-of-three": (lambda: families.discretised_logistic(3), 256),
}


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.mark.parametrize(("make", "size"), MASSES.values(), ids=MASSES.keys())
def test_masses_sum_to_one(make, size):
    y = built(make(), (3,), (20,))
    every = torch.arange(size).double()[:, None, None].expand(size, 20, 3)
    elementwise = y.base_dist.log_prob(every).exp().sum(0)
    torch.testing.assert_close(elementwise, torch.ones_like(elementwise), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["binomial", "poisson", "categorical"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_counts_may_be_of_any_type(name, dtype):
    y = built(COUNTED[name](), (3,))
    x = torch.tensor([0, 1, 3])
    assert torch.equal(y.log_prob(x.to(dtype)), y.log_prob(x.double()))


@pytest.mark.parametrize("name", ["bernoulli", "binomial"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_bits_may_be_of_any_type(name, dtype):
    y = built(COUNTED[name](), (3,))
    x = torch.tensor([0, 1, 1])
    assert torch.equal(y.log_prob(x.to(dtype)), y.log_prob(x.double()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("logit", "x"), [(120.0, 0.0), (-120.0, 1.0)])
@pytest.mark.parametrize("make", [families.bernoulli, lambda: families.binomial(1)], ids=["bernoulli", "binomial"])
def test_a_logit_of_120_costs_120_nats(make, logit, x, dtype):
    logits = torch.tensor([logit], dtype=dtype, requires_grad=True)
    log_prob = make().build(1, logits).log_prob(torch.tensor([x], dtype=dtype))
    assert log_prob.item() == pytest.approx(-120, abs=1e-4)
    (gradient,) = torch.autograd.grad(log_prob, logits)
    assert gradient.item() == pytest.approx(x - (logit > 0), abs=1e-6)


def test_a_rate_below_the_smallest_number_costs_its_logarithm():
    poisson = families.poisson().build(1, torch.tensor([-200.0]))
    assert poisson.log_prob(torch.tensor([1.0])).item() == pytest.approx(-200, abs=1e-4)


def test_classes_stand_first_among_the_parameters():
    family = families.categorical(4)
    assert family.shapes(torch.Size((2, 3))) == ((4, 2, 3),)
    logits = torch.randn(7, 4, 2, 3)
    torch.testing.assert_close(family.build(2, logits).base_dist.probs, logits.softmax(1).permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: families.binomial(0), "total_count of at least 1, got 0"),
        (lambda: families.categorical(1), "at least 2 classes, got 1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
