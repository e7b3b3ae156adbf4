"""Chains from a frozen proposal: unbiased whatever moves them, and as good as they say."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.base.random import seed_everything
from pyrovae.evidence.ladder import chains
from pyrovae.evidence.ladder.adaptation import Gaussian, Mixture
from pyrovae.evidence.ladder.rungs import Proposal
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

WAYS = {"draws": (chains.by_draws, chains.BY_DRAWS), "gradients": (chains.by_gradients, chains.LEAPFROG)}


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(6, 2)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(150, seed=0)[0]


@pytest.fixture
def latents(oracle, x):
    with isolated(oracle.model, pv.widened(oracle.guide, 1.5)) as (model, guide, _):
        seed_everything("test", 0)
        yield Latents(model, guide, (x,))


def mixture(oracle, x, widths, shift=0.0):
    """Of Gaussians about the posterior, of the posterior's widths times these."""
    q = oracle.posterior(x)
    tril = q.scale_tril.expand(len(x), 2, 2).double()
    loc = q.mean.double() + shift * tril.diagonal(dim1=-2, dim2=-1)
    each = torch.full((len(widths), len(x)), -math.log(len(widths)), dtype=torch.float64)
    return Proposal(Mixture(each, [Gaussian(loc, width * tril, torch.float64) for width in widths]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("widths", "shift"), [((0.5,), 1.0), ((0.4, 1.5), 0.7)])
def test_chains_from_a_poor_proposal_reach_the_posterior(oracle, x, latents, way, widths, shift):
    walk, plan = WAYS[way]
    columns = walk(latents, mixture(oracle, x, widths, shift), (0, 0)).columns()
    z = (columns["log_evidence"] - oracle.log_evidence(x)) / columns["mc_se_log_evidence"]
    assert abs(z.mean()) < 4 / len(z) ** 0.5 + 0.1 and (columns["num_weights"] == plan.num_chains).all()
    assert 0.7 < z.std() < 1.25


def test_chains_may_be_added_to_others(oracle, x, latents):
    proposal = mixture(oracle, x, (0.7,))
    first = chains.by_draws(latents, proposal, (0, 0)).strata[0]
    both = chains.by_draws(latents, proposal, (0, 1), before=first)
    assert torch.equal(both.strata[0][: len(first)], first) and len(both.strata[0]) == 2 * len(first)
    assert not torch.equal(both.strata[0][len(first) :], first)


@pytest.mark.parametrize("way", WAYS)
def test_temperatures_are_as_many_as_passes_allow(oracle, x, latents, way):
    walk, plan = WAYS[way]
    most = plan.of_pilot + 12 * plan.of_each + 1
    assert walk(latents, mixture(oracle, x, (0.3,), 2.0), (0, 0), most).cost == plan.of_pilot + 12 * plan.of_each


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_steps_leave_the_density_as_it_is(oracle, x, latents, temperature):
    """From exact draws of f_t, a product of Gaussians: mean and variance of the log ratio stay within 4 SE."""
    proposal = mixture(oracle, x, (0.6, 1.7), 0.5)
    moves = chains._Moves(latents, proposal)
    start = moves.begin(moves.draw(4000))
    weight = (temperature * start.log_ratio).softmax(0)  # resampled: near enough to exact for so many
    chosen = torch.distributions.Categorical(weight.T).sample((1000,))
    state = moves.begin(start.u.gather(0, chosen[..., None].expand(*chosen.shape, 2)))
    before = state.log_ratio
    for _ in range(20):
        state, probability = moves.step(state, temperature)
    assert (probability.mean(0) > 0.1).all() and not torch.equal(before, state.log_ratio)
    away = state.log_ratio.mean(0) - before.mean(0)
    assert abs(away.mean()) < 4 * away.std() / len(away) ** 0.5
