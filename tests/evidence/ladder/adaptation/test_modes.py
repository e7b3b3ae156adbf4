"""Modes that are looked for: found, and weighed by what they hold."""

import math

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture
from pyrovae.evidence.ladder.adaptation.modes import apart, sought_from
from pyrovae.evidence.ladder.adaptation.newton import log_joint, started
from pyrovae.evidence.ladder.points import scored
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents


def test_modes_far_apart_are_components():
    oracle = pv.oracles.mixture_prior(1, 2)
    x, _ = oracle.draw(4, seed=0)
    with isolated(oracle.model, oracle.guide) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (x,))
        points = scored(latents, 400)
        near = Mixture.alone(started(points.u, points.log_joint))
        log_weight = points.log_joint - points.log_guide
        found = apart(latents, near, points.u, log_weight).students(math.inf, 1.1)
        u = found.sample(2000)
        weight = log_joint(latents, u) - found.log_prob(u)
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
        found = apart(latents, Mixture.alone(first), u, torch.zeros(140, 2).double())
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
        found = sought_from(latents, starts, log_joint(latents, starts))
    smaller = torch.stack([one.loc[:, 0] > 0 for one in found.components])
    weight = (found.log_weight.exp() * smaller).sum(0)
    # Laplace's masses of two Gaussians are theirs; what is left are those that nothing is left out for good.
    torch.testing.assert_close(weight, torch.full((2,), 0.1).double(), rtol=0, atol=1e-3)
    assert (found.heaviest.loc + 3).abs().max() < 0.05
