"""Newton's method: exact where a posterior is Gaussian, of largest ELBO elsewhere."""

import math

import pytest
import torch
from examples.skewed import poor, skewed

import pyrovae as pv
from pyrovae.evidence.ladder.adaptation.mixtures import Mixture
from pyrovae.evidence.ladder.adaptation.newton import laplace, log_joint, newton, started
from pyrovae.evidence.ladder.points import scored
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

ORACLE = pv.oracles.ppca(12, 4, collinearity=0.8)
X, _ = ORACLE.draw(5, seed=3)


@pytest.fixture
def latents():
    guide = pv.widened(ORACLE.guide, 0.4, shift=1.0)
    with isolated(ORACLE.model, guide) as (model, guide, _):
        torch.manual_seed(0)
        yield Latents(model, guide, (X,))


def begun(latents):
    points = scored(latents, 50)
    return started(points.u, points.log_joint)


@pytest.mark.parametrize("rung", [laplace, lambda latents, start: newton(latents, start, 80)])
def test_a_gaussian_posterior_is_found(latents, rung):
    found, exact = rung(latents, begun(latents)), ORACLE.posterior(X)
    torch.testing.assert_close(found.loc, exact.mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.scale_tril @ found.scale_tril.mT, exact.covariance_matrix.expand(5, 4, 4))


def test_log_weights_of_laplace_are_constant(latents):
    q = Mixture.alone(laplace(latents, begun(latents))).students(math.inf, 1.0)
    u = q.sample(100)
    weight = log_joint(latents, u) - q.log_prob(u)
    assert (weight - ORACLE.log_evidence(X)).abs().max() < 1e-8


def test_newton_maximises_the_elbo():
    """On a grid: for q = N(m, s^2), d ELBO / d m and d ELBO / d log s are zero."""
    x = torch.tensor([0.0, 3.0, 20.0], dtype=torch.float64)
    with isolated(skewed, poor) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (x,))
        found = newton(latents, laplace(latents, begun(latents)), 200)
    mean, scale = found.loc[:, 0], found.scale_tril[:, 0, 0]
    rate = (mean + scale**2 / 2).exp()  # E exp(z)
    assert (x - rate - mean).abs().max() < 0.15 * x.max().sqrt()
    torch.testing.assert_close(1 / scale**2, 1 + rate, rtol=0.1, atol=0)


def test_draws_outside_of_the_support_are_no_start():
    u = torch.tensor([[[1.0]], [[3.0]], [[math.inf]], [[50.0]]], dtype=torch.float64)
    found = started(u, torch.tensor([[0.0], [0.0], [0.0], [-math.inf]]))
    assert found.loc.item() == 2.0 and found.scale_tril.item() == pytest.approx(math.sqrt(2))
