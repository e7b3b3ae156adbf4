"""Rounded logistics: masses by the distribution function, in any tail, and moments by summing."""

import pytest
import scipy.stats
import torch

from pyrovae.programs.distributions.discretised import DiscretisedLogistic


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
