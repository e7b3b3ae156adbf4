"""Rungs: each makes a proposal from the last one, and says what it takes."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.ladder.adaptation.mixtures import Mixture
from pyrovae.evidence.ladder.adaptation.newton import started
from pyrovae.evidence.ladder.points import scored
from pyrovae.evidence.ladder.rungs import RUNGS, Beyond, wide
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

ORACLE = pv.oracles.mixture_prior(1, 2)
X, _ = ORACLE.draw(6, seed=0)


@pytest.mark.parametrize("rung", {rung.route: rung for rung in RUNGS}.values(), ids=lambda rung: rung.route)
def test_a_rung_gives_a_proposal_with_tails(rung):
    with isolated(ORACLE.model, ORACLE.guide) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (X,))
        by_guide = scored(latents, 100)
        near = Mixture.alone(started(by_guide.u, by_guide.log_joint))
        found = rung.adapt(latents, near, Beyond.drawn(latents, by_guide))
        points = scored(latents, wide(found).sample(400))
    weight = points.log_joint - wide(found).log_prob(points.u)
    assert weight.isfinite().all() and rung.cost(2) > 0 and rung.most >= 2
    short = (weight.logsumexp(0) - torch.log(torch.tensor(400.0))) - ORACLE.log_evidence(X)
    assert short.max() < 0.2 and short.mean() > -1.5


def test_tails_are_no_wider_than_many_coordinates_allow():
    assert wide(Mixture.alone(started(torch.randn(9, 2, 3), torch.zeros(9, 2)))).df == 20
    assert wide(Mixture.alone(started(torch.randn(9, 2, 50), torch.zeros(9, 2)))).df == 100


def two_modes(num_latents, spread=4.0, noise=4.0):
    """Half of the prior's mass at -s and half at s; a guide that is the posterior of the one half, without an error."""
    center = torch.full((num_latents,), spread)

    def model(x):
        with pyro.plate("data", len(x)):
            places = torch.stack([-center, center]).expand(len(x), 2, -1)
            each = dist.MixtureSameFamily(dist.Categorical(torch.ones(len(x), 2)), dist.Normal(places, 1.0).to_event(1))
            z = pyro.sample("z", each)
            pyro.sample("x", dist.Normal(z, noise).to_event(1), obs=x)

    def guide(x):
        variance = 1 / (1 + noise**-2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(variance * (center + x / noise**2), variance**0.5).to_event(1))

    torch.manual_seed(0)
    x = noise * torch.randn(15, num_latents) / 2
    each = [dist.Normal(sign * center, (1 + noise**2) ** 0.5).log_prob(x).sum(-1).double() for sign in (-1, 1)]
    return model, guide, x, torch.stack(each).logsumexp(0) - math.log(2)


@pytest.mark.parametrize("num_latents", [1, 2, 5])
def test_a_guide_that_is_the_posterior_of_one_of_two_modes_is_not_exact(num_latents):
    model, guide, x, exact = two_modes(num_latents)
    report = pv.evaluate(model, guide, x)
    assert set(report.route) <= {"mixture", "annealed"} and not report.unreliable.any()
    error = (report.log_evidence - exact) / report.mc_se_log_evidence
    assert error.abs().max() < 4 and error.mean().abs() < 4 / len(x) ** 0.5
    with pytest.warns(pv.UntrustedEvidence, match="leave method='auto'"):
        by_one = pv.evaluate(model, guide, x, method="laplace")  # no single Gaussian holds both
    assert by_one.unreliable.all() and (by_one.log_evidence < exact - 0.1).any()


@pytest.mark.parametrize("of_others", [1e-5, 1e-7])
@pytest.mark.parametrize("alone", [True, False], ids=["a class", "a class and a latent"])
def test_a_class_that_the_guide_hardly_draws_is_not_lost(of_others, alone):
    """x ~ N(m_c, 5), by way of z or not; the guide draws one of four classes but for a few draws."""
    means, odds = torch.tensor([-6.0, -2.0, 2.0, 6.0]), torch.tensor([1.0, *[of_others] * 3])

    def model(x):
        with pyro.plate("data", len(x)):
            mean = means[pyro.sample("c", dist.Categorical(torch.ones(4)))]
            if not alone:
                mean = pyro.sample("z", dist.Normal(mean, 3.0))
            pyro.sample("x", dist.Normal(mean, 5.0 if alone else 4.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            mean = means[pyro.sample("c", dist.Categorical(odds.expand(len(x), 4)))]
            if not alone:
                pyro.sample("z", dist.Normal(0.64 * mean + 0.36 * x, 2.4))

    x = torch.linspace(-8, 8, 15)
    exact = dist.Normal(means[:, None], 5.0).log_prob(x).double().logsumexp(0) - math.log(4)
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.UntrustedEvidence)
        by_guide = pv.evaluate(model, guide, x, method="importance")
    assert (by_guide.log_evidence - exact).min() < -1
    report = pv.evaluate(model, guide, x)
    assert not report.unreliable.any()
    error = (report.log_evidence - exact).abs()
    assert error.max() < 1e-5 if alone else (error / report.mc_se_log_evidence).max() < 4


@pytest.mark.parametrize(("num_latents", "num_folded"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_modes_that_the_guide_does_not_know_are_found(num_latents, num_folded):
    """x ~ N(f(z), 0.05), f being |z| for some: 2^F modes of equal mass, far apart, and a guide that draws one alone."""
    folded = torch.arange(num_latents) < num_folded

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(num_latents), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.where(folded, z.abs(), z), 0.05).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 1.0025, 0.05).to_event(1))

    torch.manual_seed(0)
    x = torch.rand(20, num_latents) + 0.5  # so that no mass is near the fold
    exact = dist.Normal(0.0, 1.0025**0.5).log_prob(x).double().sum(1) + num_folded * math.log(2)
    alone = pv.evaluate(model, guide, x, num_particles=1000, method="importance")
    assert (alone.log_evidence - exact + num_folded * math.log(2)).abs().max() < 0.02
    assert alone.fraction_unreliable == 0  # its k-hat vouches for half of the mass, or a quarter
    report = pv.evaluate(model, guide, x, num_particles=1000)
    assert report.fraction_unreliable == 0
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence + 0.002).all()
