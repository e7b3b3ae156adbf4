"""Points with all their densities: those of draws of the guide are those that the table gives."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence import estimators
from pyrovae.evidence.ladder.points import joined, of_prior, scored
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

GAMMA = pv.oracles.gamma_poisson(3)


@pytest.fixture
def latents():
    x, _ = GAMMA.draw(4, seed=0)
    with isolated(GAMMA.model, GAMMA.guide) as (model, guide, _):
        yield Latents(model, guide, (x,))


def test_draws_of_an_exact_guide_have_equal_weights(latents):
    points = scored(latents, 6)
    weight = points.log_joint - points.log_guide
    torch.testing.assert_close(weight, GAMMA.log_evidence(latents.args[0]).expand(6, 4), rtol=1e-9, atol=1e-9)
    assert points.u.shape == (6, 4, latents.num_dims) and (points.resolution < 1e-10).all()


def test_the_same_points_given(latents):
    drawn = scored(latents, 3)
    again = scored(latents, drawn.u)
    for name in ("log_joint", "log_prior", "log_guide"):
        torch.testing.assert_close(getattr(again, name), getattr(drawn, name))
    both = joined([drawn.first(2), again])
    assert both.u.shape[0] == 5 and torch.equal(both.of(torch.tensor([3])).u, both.u[:, 3:])


def test_draws_of_the_prior_are_weighed_by_the_likelihood(latents):
    points = of_prior(latents, 5000)
    again = scored(latents, points.u[:3])
    torch.testing.assert_close(points.log_joint[:3], again.log_joint)
    log_weight = points.log_weight(points.log_prior)
    off = estimators.log_evidence(log_weight) - GAMMA.log_evidence(latents.args[0])
    assert (off.abs() < 4 * estimators.log_evidence_se(log_weight)).all()


def test_where_the_prior_has_no_density_there_is_no_joint():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            ruled_out = torch.where(z[..., 0] > 0, -math.inf, 0.0)
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
            pyro.factor("half", ruled_out)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0).to_event(1))

    with isolated(model, guide) as (model, guide, _), pyro.validation_enabled(False):
        points = scored(Latents(model, guide, (torch.zeros(2, 2),)), 50)
    assert torch.equal(points.log_joint == -math.inf, points.u[..., 0] > 0)
