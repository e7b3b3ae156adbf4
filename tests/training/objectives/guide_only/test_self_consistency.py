"""The variance of log w: zero at every exact posterior, and half its gradient is that of the KL."""

import pytest
import torch
from examples.learned_guides import PAIRS
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope


@pytest.mark.parametrize("name", pv.oracles.EXAMPLES)
def test_it_is_zero_at_the_posterior(name):
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(20, seed=0)
    assert pv.objectives.SelfConsistency(4).loss(oracle.model, oracle.guide, x) < 1e-18


@pytest.mark.parametrize("name", ["factors, full rank", "classes"])
def test_half_its_gradient_is_that_of_the_kl_within_5_se(name):
    pair = PAIRS[name]()
    x, _ = pair.oracle.draw(200, seed=0)
    weight, objective = pair.learned.linear.bias, pv.objectives.SelfConsistency(10)
    (exact,) = torch.autograd.grad(kl_divergence(pair.learned(x), pair.oracle.posterior(x)).sum(), weight)
    torch.manual_seed(0)
    with own_scope(pair.oracle.model, pair.learned.guide):
        losses = (objective.differentiable_loss(pair.oracle.model, pair.learned.guide, x) for _ in range(200))
        found = torch.stack([torch.autograd.grad(loss, weight)[0] / 2 for loss in losses])
    se = found.std(0) / 200**0.5
    assert ((found.mean(0) - exact).abs() < 5 * se).all()
    assert exact.abs().max() > 10 * se.max()  # or it would pass at half or twice the gradient


def test_one_draw_has_no_variance():
    with pytest.raises(InputError, match="give num_particles=2 or more"):
        pv.objectives.SelfConsistency(1)
