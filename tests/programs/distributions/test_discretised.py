"""Rounded densities: masses by the distribution function, in any tail, and moments by summing."""

import pyro.distributions as dist
import pytest
import scipy.stats
import torch

from pyrovae.programs.distributions.discretised import LOG_CDF, Binned, DiscretisedLogistic


def mixture(num_levels=16, dtype=torch.float64):
    logits, loc = torch.tensor([0.3, -0.2], dtype=dtype), torch.tensor([4.0, 11.5], dtype=dtype)
    return DiscretisedLogistic(num_levels, logits, loc, torch.tensor([0.4, 3.0], dtype=dtype))


def test_masses_are_differences_of_the_distribution_function():
    q, levels = mixture(), torch.arange(16).double()
    ends = [torch.full((1,), -torch.inf).double(), levels[:-1] + 0.5, torch.full((1,), torch.inf).double()]
    edges = torch.cat(ends)[:, None].numpy()
    each = scipy.stats.logistic(q.loc.numpy(), q.scale.numpy()).cdf(edges)
    expected = (torch.as_tensor(each).diff(dim=0) * q.logits.softmax(0)).sum(-1)
    torch.testing.assert_close(q.log_prob(levels).exp(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(q.mean, (expected * levels).sum())
    torch.testing.assert_close(q.variance, (expected * levels.square()).sum() - q.mean.square())


@pytest.mark.parametrize("x", [0.0, 1.0, 200.0, 255.0])
def test_a_level_far_out_costs_what_the_tail_says_in_float32(x):
    loc = torch.tensor([-300.0 if x > 100 else 600.0], requires_grad=True)
    log_mass = DiscretisedLogistic(256, torch.zeros(1), loc, torch.ones(1)).log_prob(torch.tensor(x))
    assert log_mass.item() == pytest.approx(-abs(x - loc.item()), abs=1)  # within a level and a constant
    assert torch.autograd.grad(log_mass, loc)[0].abs().item() == pytest.approx(1, abs=1e-4)


SCIPY = {dist.Normal: scipy.stats.norm, dist.Logistic: scipy.stats.logistic, dist.Laplace: scipy.stats.laplace}


@pytest.mark.parametrize("kind", LOG_CDF, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("loc", "scale"), [(4.2, 0.3), (9.0, 5.0), (-3.0, 2.0), (20.0, 1.5), (7.5, 1e-3)])
def test_bins_are_differences_of_the_distribution_function(kind, loc, scale):
    q, levels = Binned(kind, 16, *torch.tensor([loc, scale], dtype=torch.float64)), torch.arange(16).double()
    edges = levels[:-1].numpy() + 0.5
    oracle = SCIPY[kind](loc, scale)
    below, above = [0.0, *oracle.cdf(edges), 1.0], [1.0, *oracle.sf(edges), 0.0]
    left, right = torch.tensor(below).diff(), -torch.tensor(above).diff()
    expected = torch.where(levels < loc, left, right)  # on the side where no digit is lost
    torch.testing.assert_close(q.log_prob(levels).exp(), expected, rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(q.mean, (expected * levels).sum(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.variance, (expected * levels.square()).sum() - q.mean.square(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", LOG_CDF, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("x", [0.0, 1.0, 200.0, 255.0])
def test_a_bin_far_out_has_a_finite_mass_and_a_gradient_in_float32(kind, x):
    loc = torch.tensor(-300.0 if x > 100 else 600.0, requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    log_mass = Binned(kind, 256, loc, scale).log_prob(torch.tensor(x))
    gradients = torch.autograd.grad(log_mass, (loc, scale))
    assert log_mass < -100 and all(gradient.isfinite() and gradient != 0 for gradient in gradients)


def test_draws_of_bins_have_their_masses():
    q = Binned(dist.Normal, 5, torch.tensor(1.2), torch.tensor(1.5))
    torch.manual_seed(0)
    share = torch.bincount(q.sample((20_000,)).long(), minlength=5) / 20_000
    mass = q.log_prob(torch.arange(5)).exp()
    assert ((share - mass).abs() < 4 * (mass * (1 - mass) / 20_000).sqrt()).all()  # 4 standard errors
