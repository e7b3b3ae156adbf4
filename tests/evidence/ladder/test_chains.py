"""Chains from a frozen proposal: unbiased whatever moves them, and as good as they say."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.random import seed_everything
from pyrovae.evidence.ladder import chains
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture
from pyrovae.evidence.ladder.rungs import Proposal
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

WAYS = {"draws": (chains.by_draws, chains.BY_DRAWS), "gradients": (chains.by_gradients, chains.LEAPFROG)}


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(6, 2)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(100, seed=0)[0]


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


@pytest.mark.parametrize("way", WAYS)
def test_draws_of_the_encoder_outside_the_support_weigh_nothing(way):
    """A normal guide, a third of it outside the uniform prior: log p(x) by quadrature, within 4 SE in the mean."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(torch.tensor(-0.5), torch.tensor(1.0), validate_args=False))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.6))

    x = torch.linspace(-1, 1.5, 40)
    z = torch.linspace(-0.5, 1.0, 20_001, dtype=torch.float64)
    exact = dist.Normal(z[:, None], 0.5).log_prob(x.double()).logsumexp(0) - math.log(len(z))
    wide = Proposal(Mixture.alone(Gaussian(torch.zeros(40, 1).double(), torch.ones(40, 1, 1).double(), x.dtype)))
    with isolated(model, guide) as (model, guide, _):
        columns = WAYS[way][0](Latents(model, guide, (x,)), wide, (0, 0)).columns()
    z = (columns["log_evidence"] - exact) / columns["mc_se_log_evidence"]
    assert abs(z.mean()) < 4 / len(z) ** 0.5 and 0.7 < z.std() < 1.3


@pytest.mark.parametrize("way", WAYS)
def test_the_encoders_part_of_chains_counts_for_what_it_is(oracle, x, way):
    """An exact encoder beside a proposal far from all: weights are those of the encoder's tenth, and the mean is p(x)."""
    with isolated(oracle.model, oracle.guide) as (model, guide, _):
        latents = Latents(model, guide, (x[:5].double(),))
        far = mixture(oracle, x[:5], (1e-3,), 1e4)
        found = WAYS[way][0](latents, far, (0, 0)).columns()["log_evidence"]
    assert (found - oracle.log_evidence(x[:5])).abs().max() < 1e-6


def test_data_whose_density_is_nan_on_the_way_are_given_back_and_the_others_walk_on(oracle, x):
    start = taken(mixture(oracle, x[:3], (0.7,)))

    def nan_at(function):
        def run(*args):
            found = function(*args)
            found.log_weight[:, 1] = math.nan
            return found

        return run

    with isolated(oracle.model, oracle.guide) as (model, guide, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "weigh", nan_at(chains.weigh))
        found = chains.annealed(start, lambda rows: Latents(model, guide, (x[rows],)), math.inf, (0,))
    assert sorted(row for one in found if one.columns for row in one.rows.tolist()) == [0, 2]
    assert [one.rows.tolist() for one in found if one.reason] == [[1]]


def taken(proposal):
    rows = torch.arange(len(proposal.mixture.components[0].loc))
    return chains.Taken(rows, proposal, "Laplace", rows >= 0, torch.zeros(len(rows), dtype=torch.float64), rows < 0)


def test_one_gaussian_becomes_a_mixture_before_chains_start_from_it(oracle, x, latents):
    start = taken(mixture(oracle, x, (0.7,)))
    broadened = chains._broadened(start, latents, math.inf, (0,))
    assert len(broadened.proposal.mixture.components) > 1 and (broadened.cost > start.cost).all()
    assert chains._broadened(start, latents, 5000, (0,)) is start  # which the budget does not hold


def test_chains_may_be_added_to_others(oracle, x, latents):
    proposal = mixture(oracle, x, (0.7,))
    before = chains.by_draws(latents, proposal, (0, 0))
    (first,), (both,) = before.strata, chains.by_draws(latents, proposal, (0, 1)).beside(before).strata
    assert torch.equal(both[: len(first)], first) and len(both) == 2 * len(first)
    assert not torch.equal(both[len(first) :], first)


@pytest.mark.parametrize("way", WAYS)
def test_temperatures_are_as_many_as_passes_allow(oracle, x, latents, way):
    walk, plan = WAYS[way]
    most = plan.of_pilot + 12 * plan.of_each + 1
    assert walk(latents, mixture(oracle, x, (0.3,), 2.0), (0, 0), most).cost == plan.of_pilot + 12 * plan.of_each


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_steps_leave_the_density_as_it_is(oracle, x, latents, temperature):
    """From exact draws of f_t, a product of Gaussians: the mean of the log ratio stays within 4 SE."""
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
