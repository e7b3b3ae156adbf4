"""Gaussians and mixtures that come near a posterior: exact where it is Gaussian, of largest ELBO elsewhere."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.ladder import adaptation
from pyrovae.evidence.ladder.adaptation import Gaussian, Mixture
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
    return adaptation.started(points.u, points.log_joint)


@pytest.mark.parametrize("rung", [adaptation.laplace, lambda latents, start: adaptation.newton(latents, start, 80)])
def test_a_gaussian_posterior_is_found(latents, rung):
    found, exact = rung(latents, begun(latents)), ORACLE.posterior(X)
    torch.testing.assert_close(found.loc, exact.mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.scale_tril @ found.scale_tril.mT, exact.covariance_matrix.expand(5, 4, 4))


def test_log_weights_of_laplace_are_constant(latents):
    q = Mixture.alone(adaptation.laplace(latents, begun(latents))).students(math.inf, 1.0)
    u = q.sample(100)
    weight = adaptation.log_joint(latents, u) - q.log_prob(u)
    assert (weight - ORACLE.log_evidence(X)).abs().max() < 1e-8


def skewed(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Poisson(z.exp()), obs=x)


def poor(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0 * x, 0.3))


def test_newton_maximises_the_elbo():
    """On a grid: for q = N(m, s^2), d ELBO / d m and d ELBO / d log s are zero."""
    x = torch.tensor([0.0, 3.0, 20.0], dtype=torch.float64)
    with isolated(skewed, poor) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (x,))
        found = adaptation.newton(latents, adaptation.laplace(latents, begun(latents)), 200)
    mean, scale = found.loc[:, 0], found.scale_tril[:, 0, 0]
    rate = (mean + scale**2 / 2).exp()  # E exp(z)
    assert (x - rate - mean).abs().max() < 0.15 * x.max().sqrt()
    torch.testing.assert_close(1 / scale**2, 1 + rate, rtol=0.1, atol=0)


def test_moments_find_those_of_the_posterior():
    x = torch.tensor([0.0, 2.0], dtype=torch.float64)
    with isolated(skewed, poor) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (x,))
        start = Mixture.alone(adaptation.laplace(latents, begun(latents)))
        found = adaptation.moments(latents, start, lambda mixture: mixture.students(20.0, 1.1)).components[0]
    z = torch.linspace(-8, 5, 20_001, dtype=torch.float64)[:, None]
    weight = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Poisson(z.exp()).log_prob(x)).softmax(0)
    mean = (weight * z).sum(0)
    sd = (weight * (z - mean).square()).sum(0).sqrt()
    assert ((found.loc[:, 0] - mean).abs() < 0.15 * sd).all()
    torch.testing.assert_close(found.scale_tril[:, 0, 0], sd, rtol=0.1, atol=0)


def test_modes_far_apart_are_components():
    oracle = pv.oracles.mixture_prior(1, 2)
    x, _ = oracle.draw(4, seed=0)
    with isolated(oracle.model, oracle.guide) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (x,))
        points = scored(latents, 400)
        near = Mixture.alone(adaptation.started(points.u, points.log_joint))
        log_weight = points.log_joint - points.log_guide
        found = adaptation.apart(latents, near, points.u, log_weight).students(math.inf, 1.1)
        u = found.sample(2000)
        weight = adaptation.log_joint(latents, u) - found.log_prob(u)
    error = (weight.logsumexp(0) - math.log(2000)) - oracle.log_evidence(x)
    assert error.abs().max() < 0.1


def test_a_mode_is_found_though_farther_draws_lead_back_to_the_first_one():
    """0.6 N(0, 1) + 0.4 N(3.5, 0.4): draws on the other side are farther away than the second mode."""

    def model(x):
        with pyro.plate("data", len(x)):
            both = dist.Normal(torch.tensor([0.0, 3.5]), torch.tensor([1.0, 0.4]))
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.6, 0.4])), both))
            pyro.sample("x", dist.Normal(0 * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * x, 2.0))

    u = torch.tensor([-4.2, -4.0, -3.9, 0.0, 0.5, 3.4, 3.5]).reshape(7, 1, 1).repeat(20, 2, 1)
    first = Gaussian(torch.zeros(2, 1).double(), torch.ones(2, 1, 1).double(), torch.float32)
    with isolated(model, guide) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (torch.zeros(2),))
        found = adaptation.apart(latents, Mixture.alone(first), u, torch.zeros(140, 2).double())
    modes = torch.stack([one.loc.squeeze(-1) for one in found.components])
    assert ((modes - 3.5).abs().amin(0) < 0.1).all()
    weight = found.log_weight.exp()
    again = (modes == 0) & (torch.arange(len(modes))[:, None] > 0)  # wider Gaussians, of little weight
    assert again.any(0).all() and (weight[again] < 0.1).all()
    scales = torch.stack([one.scale_tril.flatten() for one in found.components])
    assert (scales[again] >= 2).all()


def test_modes_that_few_starts_lead_to_are_found_and_each_counts_once():
    """0.9 N(-3, 1) + 0.1 N(3, 1) in six coordinates, and three starts of a hundred on the side of the smaller one."""
    centre = torch.full((6,), 3.0)

    def model(x):
        with pyro.plate("data", len(x)):
            each = dist.Normal(torch.stack([-centre, centre]), 1.0).to_event(1)
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.9, 0.1])), each))
            pyro.sample("x", dist.Normal(0 * z[..., 0], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(6), 1.0).expand([len(x), 6]).to_event(1))

    torch.manual_seed(0)
    starts = torch.randn(100, 2, 6) + torch.where(torch.arange(100) < 3, 3.0, -3.0)[:, None, None]
    with isolated(model, guide) as (model, guide, _):
        latents = Latents(model, guide, (torch.zeros(2),))
        found = adaptation.sought_from(latents, starts, adaptation.log_joint(latents, starts))
    smaller = torch.stack([one.loc[:, 0] > 0 for one in found.components])
    weight = (found.log_weight.exp() * smaller).sum(0)
    # Laplace's masses of two Gaussians are theirs; what is left are those that nothing is left out for good.
    torch.testing.assert_close(weight, torch.full((2,), 0.1).double(), rtol=0, atol=1e-3)
    assert (found.heaviest.loc + 3).abs().max() < 0.05


def test_what_is_not_finite_is_not_taken():
    fine = Gaussian(torch.zeros(2, 1), torch.ones(2, 1, 1), torch.float64)
    lost = fine._replace(loc=torch.tensor([[math.nan], [1.0]]))
    assert lost.finite_or(fine).loc.flatten().tolist() == [0.0, 1.0]


def test_draws_outside_of_the_support_are_no_start():
    u = torch.tensor([[[1.0]], [[3.0]], [[math.inf]], [[50.0]]], dtype=torch.float64)
    found = adaptation.started(u, torch.tensor([[0.0], [0.0], [0.0], [-math.inf]]))
    assert found.loc.item() == 2.0 and found.scale_tril.item() == pytest.approx(math.sqrt(2))
