"""Multiple importance sampling where the evidence is known: unbiased, and its errors are the spread of repetitions."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence import estimators
from pyrovae.evidence.proposals.local import Guide
from pyrovae.evidence.proposals.multiple import Table, account, score
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

K, REPETITIONS, LOG_EVIDENCE = 100, 4000, -2.5
PROPOSALS = [
    dist.Normal(0.0, 1.5),
    dist.Normal(0.6, 0.7),
]  # the posterior is N(0, 1): alone, the second has no variance


@pytest.fixture(scope="module")
def repeated():
    """The account of one and the same problem, many times over with new draws."""
    torch.manual_seed(0)
    u = torch.stack([q.sample((K, REPETITIONS)) for q in PROPOSALS], 1).double()  # (K, J, n)
    log_joint = LOG_EVIDENCE + dist.Normal(0.0, 1.0).log_prob(u)
    return account(Table(log_joint, torch.stack([q.log_prob(u) for q in PROPOSALS]), torch.zeros(REPETITIONS)))


def within(values, exact, num_se=4):
    return abs(float(values.mean()) - exact) < num_se * float(values.std()) / math.sqrt(len(values))


def test_the_estimate_is_unbiased(repeated):
    assert within(repeated.log_evidence.exp(), math.exp(LOG_EVIDENCE))


def test_elbos_and_gaps_are_those_of_each_proposal(repeated):
    for elbo, gap, q in zip(repeated.elbo, repeated.gap, PROPOSALS, strict=True):
        kl = float(torch.distributions.kl_divergence(q, dist.Normal(0.0, 1.0)))
        assert within(elbo, LOG_EVIDENCE - kl)
        assert within(gap, kl, 4.5)  # its bias, -var / 2 of the evidence, is 0.2 of these errors


@pytest.mark.parametrize("name", ["log_evidence", "elbo", "gap"])
def test_errors_are_the_spread_of_repetitions(repeated, name):
    # The sd of 4000 repetitions is known to 1.1 %, and that of the gap would be wrong by far more were the evidence's
    # and the ELBO's errors added.
    spread = getattr(repeated, name).std(-1)
    stated = getattr(repeated, f"mc_se_{name}").square().mean(-1).sqrt()
    assert ((stated / spread - 1).abs() < 0.05).all()


def test_together_they_are_better_than_the_one_of_infinite_variance(repeated):
    assert float(repeated.mc_se_log_evidence.max()) < 0.15
    assert float((repeated.pareto_k > 0.7).double().mean()) < 0.05
    assert (repeated.ess <= 2 * K).all() and float(repeated.ess.mean()) > K


def test_one_proposal_is_plain_importance_sampling():
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(4, seed=0)
    with isolated(oracle.model, oracle.mean_field_guide(1.3)) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        table = score(latents, {"guide": Guide(latents)}, 50, ("gaps", 1))
    found, log_weight = account(table), (table.log_joint - table.log_density[0])[:, 0]
    torch.testing.assert_close(found.log_evidence, estimators.log_evidence(log_weight))
    torch.testing.assert_close(found.mc_se_log_evidence, estimators.log_evidence_se(log_weight))
    torch.testing.assert_close(found.mc_se_gap[0], estimators.kl_posterior_se(log_weight))
    assert abs(float((found.log_evidence - oracle.log_evidence(x)).mean())) < 0.2


def test_draws_come_in_blocks_and_in_order(monkeypatch):
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(4, seed=0)
    with isolated(oracle.model, oracle.guide) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        both = {"guide": Guide(latents), "again": Guide(latents)}
        monkeypatch.setattr("pyrovae.base.memory.ELEMENTS_AT_ONCE", 4 * 64 * 3)
        table = score(latents, both, 7, ("gaps", 1))
    assert table.log_joint.shape == (7, 2, 4) and table.log_density.shape == (2, 7, 2, 4)
    assert (table.log_joint[:, 0] != table.log_joint[:, 1]).all()  # each has draws of its own
    assert (table.log_joint - table.log_density - oracle.log_evidence(x)).abs().max() < 1e-10  # the guide is exact


def test_a_density_that_is_nan_is_named():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.where(x > 1, z * torch.nan, x))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))

    with isolated(model, guide) as (model, guide, _):
        latents = Latents(model, guide, (torch.zeros(3),))
        latents.particles = latents.particles.on((torch.tensor([0.0, 2.0, 0.0]),))
        with pytest.raises(
            FloatingPointError, match="proposal 'guide': a log density at its draws is NaN for 1 of 3 data"
        ):
            score(latents, {"guide": Guide(latents)}, 5, ("gaps", 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exact_guide_is_exact_in_either_precision(dtype):
    oracle = pv.oracles.ppca(6, 2).to(dtype)
    x, _ = oracle.draw(40, seed=0)
    with isolated(oracle.model, oracle.guide) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        found = account(score(latents, {"guide": Guide(latents)}, 100, ("gaps", 1)))
    assert (found.pareto_k == -math.inf).all()
