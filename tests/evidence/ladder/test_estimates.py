"""What frozen proposals give: unbiased whatever they are, and pilots that see what a proposal misses."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.random import seed_everything
from pyrovae.evidence import estimators
from pyrovae.evidence.ladder import estimates
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture
from pyrovae.evidence.ladder.points import scored
from pyrovae.evidence.ladder.rungs import STRICT, USUAL, Beyond, Proposal
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

ORACLE = pv.oracles.ppca(6, 2)
X, _ = ORACLE.draw(200, seed=0)
EXACT = ORACLE.log_evidence(X)


@pytest.fixture
def latents():
    with isolated(ORACLE.model, pv.widened(ORACLE.guide, 1.5)) as (model, guide, _):
        seed_everything("test", 0)
        yield Latents(model, guide, (X,))


def posterior(width=1.0, shift=0.0):
    q = ORACLE.posterior(X)
    tril = q.scale_tril.expand(len(X), 2, 2)
    loc = q.mean + shift * tril.diagonal(dim1=-2, dim2=-1)
    return Proposal(Mixture.alone(Gaussian(loc, width * tril, torch.float64)))


@pytest.mark.parametrize("num_particles", [1, 2, 20, 300])
@pytest.mark.parametrize("width", [0.6, 1.4])
def test_the_mean_weight_is_the_evidence(latents, num_particles, width):
    found = estimates.by_proposal(latents, posterior(width, 0.3), num_particles)
    assert sum(map(len, found.strata)) == num_particles
    ratio = (torch.cat(found.strata) - EXACT).exp().mean(0)  # of expectation one, for each datum
    se = ratio.std() / len(ratio) ** 0.5
    assert abs(ratio.mean() - 1) < 4 * se


def test_no_weight_is_above_ten_times_that_by_the_encoder(latents):
    proposal = posterior(0.2, 3.0)  # nowhere near
    found = estimates.by_proposal(latents, proposal, 200)
    points = scored(latents, 50)
    bounded = estimates.Estimate.columns(found)
    assert (torch.cat(found.strata).amax(0) <= (points.log_joint - points.log_guide).amax(0) + math.log(10) + 5).all()
    assert (bounded["num_weights"] == 200).all()


def test_the_error_of_strata_covers(latents):
    columns = estimates.by_proposal(latents, posterior(1.2, 0.2), 400).columns()
    z = (columns["log_evidence"] - EXACT) / columns["mc_se_log_evidence"]
    assert abs(z.mean()) < 4 / len(z) ** 0.5 and 0.8 < z.std() < 1.2


def piloted(latents, proposal):
    return estimates.pilot(latents, proposal, Beyond.drawn(latents, scored(latents, 250)))


def test_the_posterior_itself_is_exact(latents):
    found = piloted(latents, posterior())
    assert found.exact.all() and found.good(STRICT).all()
    columns = estimates.by_proposal(latents, posterior()._replace(exact=True), 100).columns()
    assert (columns["log_evidence"] - EXACT).abs().max() < 1e-10 and (columns["pareto_k"] == -math.inf).all()


def test_a_narrow_proposal_is_not_good_whether_the_guide_sees_more_or_not(latents):
    assert piloted(latents, posterior(1.1)).good(USUAL).double().mean() > 0.9
    narrow = piloted(latents, posterior(0.3)).good(USUAL).double().mean()
    with isolated(ORACLE.model, pv.widened(ORACLE.guide, 0.3)) as (model, guide, _):
        latents = Latents(model, guide, (X,))
        by_both = piloted(latents, posterior(0.3))
    assert not by_both.exact.any() and by_both.good(USUAL).double().mean() < 0.1 and narrow == 0


@pytest.mark.parametrize(("factor", "has"), [(1.0, True), (1.3, True), (0.5, False)])
def test_a_guide_whose_weights_have_no_variance_is_told_by_draws_beyond_it(factor, has):
    with isolated(ORACLE.model, pv.widened(ORACLE.guide, factor)) as (model, guide, _):
        seed_everything("test", 0)
        latents = Latents(model, guide, (X,))
        by_guide = scored(latents, 250)
        found = ~estimates.lacks_variance(latents, by_guide)
    assert (found.double().mean() > 0.97) if has else not found.any()


@pytest.mark.parametrize("scale", [5.0, 0.5], ids=["guide", "prior"])
def test_a_mode_that_guide_or_prior_meets_and_the_proposal_does_not_is_missed(scale):
    def model(x):
        with pyro.plate("data", len(x)):
            modes = dist.Normal(torch.tensor([-4.0, 4.0]), 0.5)
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), modes))
            pyro.sample("x", dist.Normal(0 * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(4 + 0 * x, scale))

    x = torch.zeros(30)
    one_mode = Gaussian(torch.full((30, 1), 4.0).double(), torch.full((30, 1, 1), 0.5).double(), torch.float32)
    with isolated(model, guide) as (model, guide, _):
        seed_everything("test", 0)
        found = piloted(Latents(model, guide, (x,)), Proposal(Mixture.alone(one_mode)))
    assert not found.exact.any() and not found.good(USUAL).any()


def test_strata_of_equal_fractions_are_one_sample():
    log_weight = torch.randn(400, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = estimators.log_evidence_se(log_weight)
    torch.testing.assert_close(estimators.log_evidence_se_of_strata([log_weight]), plain)
    torch.testing.assert_close(
        estimators.skewness_of_strata([log_weight]),
        estimators.skewness(estimators.relative_weight(log_weight)),
        rtol=0.01,
        atol=0,
    )
    apart = [torch.zeros(20, 7, dtype=torch.float64), torch.full((20, 7), -3.0, dtype=torch.float64)]
    assert (estimators.log_evidence_se_of_strata(apart) < 1e-12).all()  # all that differs is between strata
