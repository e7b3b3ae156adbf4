"""Rungs: each makes a proposal from the last one, and says what it takes."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.ladder.adaptation import Mixture, started
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
