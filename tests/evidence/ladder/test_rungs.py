"""Rungs: each makes a proposal from the last one, and says what it takes."""

import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.ladder.adaptation import Mixture, started
from pyrovae.evidence.ladder.points import scored
from pyrovae.evidence.ladder.rungs import RUNGS, wide
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
        found = rung.adapt(latents, near, by_guide)
        points = scored(latents, wide(found).sample(400))
    weight = points.log_joint - wide(found).log_prob(points.u)
    assert weight.isfinite().all() and rung.cost(2) > 0 and rung.most >= 2
    short = (weight.logsumexp(0) - torch.log(torch.tensor(400.0))) - ORACLE.log_evidence(X)
    assert short.max() < 0.2 and short.mean() > -1.5


def test_tails_are_no_wider_than_many_coordinates_allow():
    assert wide(Mixture.alone(started(torch.randn(9, 2, 3), torch.zeros(9, 2)))).df == 20
    assert wide(Mixture.alone(started(torch.randn(9, 2, 50), torch.zeros(9, 2)))).df == 100
