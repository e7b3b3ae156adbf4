"""Pixels replaced by black and white, against sums over all clean pixels; and what is refused."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.operators.impulses import Impulses, salt_and_pepper

MASSES = {
    "bernoulli": (dist.Bernoulli(torch.tensor([[0.2, 0.5, 0.9]]).double()).to_event(1), 1),
    "binomial": (dist.Binomial(4, torch.tensor([[0.2, 0.5, 0.9]]).double()).to_event(1), 4),
    "ours": (pv.families.binomial(4).build(1, torch.tensor([[-1.0, 0.0, 2.0]]).double()), 4),
}


@pytest.fixture(params=MASSES)
def mass(request):
    fn, high = MASSES[request.param]
    return fn, high, salt_and_pepper((3,), 0.3, 0.0, float(high))


def every(high):
    """All events of three pixels."""
    return torch.cartesian_prod(*[torch.arange(high + 1.0).double()] * 3)


def test_all_that_is_observed_has_the_mass_of_what_it_comes_from(mass):
    fn, high, operator = mass
    x = every(high)
    joint = fn.log_prob(x)[:, None] + torch.stack([operator.log_likelihood(y.expand_as(x), x) for y in x], 1)
    found = operator.observe(fn).log_prob(x)
    torch.testing.assert_close(found, joint.logsumexp(0))
    torch.testing.assert_close(found.logsumexp(0), torch.zeros(()).double())


def test_clean_pixels_have_the_posterior_that_a_sum_over_them_gives(mass):
    fn, high, operator = mass
    x, y = every(high), torch.tensor([[0.0, float(high), min(1.0, high)]]).double()
    joint = fn.log_prob(x) + operator.log_likelihood(y.expand_as(x), x)
    weight = joint.softmax(0)[:, None]
    found = operator.restore(fn, y)
    mean = (weight * x).sum(0)
    torch.testing.assert_close(found.mean[0], mean)
    torch.testing.assert_close(found.variance[0], (weight * (x - mean).square()).sum(0))
    torch.testing.assert_close(operator.log_conditional(fn, y, x), joint.log_softmax(0))
    torch.manual_seed(0)
    draws = torch.cat([operator.restore(fn, y).value for _ in range(4000)])
    # 4.5 standard errors of a mean.
    assert ((draws.mean(0) - mean).abs() <= 4.5 * found.variance[0].sqrt() / 4000**0.5 + 1e-12).all()


def test_a_density_knows_what_was_replaced():
    fn = dist.Normal(torch.tensor([[0.5, 1.0, 2.0]]).double(), 1.0).to_event(1)
    operator = salt_and_pepper((3,), 0.2, 0.0, 1.0)
    y, x = torch.tensor([[0.0, 0.75, 1.0]]).double(), torch.tensor([[0.3, 0.75, 1.9]]).double()
    each = fn.base_dist.log_prob(x)[0]
    exact = 2 * math.log(0.1) + math.log(0.8) + each[1]
    torch.testing.assert_close(operator.observe(fn).log_prob(y)[0], exact)
    torch.testing.assert_close(operator.log_conditional(fn, y, x)[0], each[0] + each[2])
    found = operator.restore(fn, y)
    assert found.mean.tolist() == [[0.5, 0.75, 2.0]] and found.variance.tolist() == [[1.0, 0.0, 1.0]]
    assert operator.num_hidden(y).tolist() == [2.0]


def test_what_is_drawn_has_its_density():
    fn = Impulses(dist.Normal(torch.zeros(2), 1.0), 0.4, -3.0, 3.0).expand((5, 2))
    torch.manual_seed(0)
    drawn = fn.sample((4000,))
    assert drawn.shape == (4000, 5, 2)
    share = ((drawn == -3.0) | (drawn == 3.0)).double().mean()
    assert abs(share - 0.4) < 4 * (0.4 * 0.6 / drawn.numel()) ** 0.5  # 4 standard errors
    assert abs(drawn.mean() - fn.mean.mean()) < 4 * drawn.std() / drawn.numel() ** 0.5


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: salt_and_pepper((2,), 1.0), r"expected a rate in \(0, 1\) and low < high, got 1.0"),
        (lambda: salt_and_pepper((2,), 0.1, 1.0, 0.0), "low < high"),
        (
            lambda: salt_and_pepper((2,), 0.1, 0.0, 16.0).observe(dist.Bernoulli(torch.ones(3, 2) / 2).to_event(1)),
            "Bernoulli pixels are never 0 or never 16: give low= and high= among",
        ),
        (
            lambda: salt_and_pepper((2,)).observe(dist.MultivariateNormal(torch.zeros(2), torch.eye(2))),
            "needs pixels that are independent given z, the likelihood is MultivariateNormal",
        ),
    ],
)
def test_what_does_not_fit_is_refused(act, message):
    with pytest.raises(InputError, match=message):
        act()
