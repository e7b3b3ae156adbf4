"""A pair at every value of its discrete latents: masses that sum to one, and sums by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.pairs.context import isolated
from pyrovae.pairs.discrete.runs import AtEveryValue
from pyrovae.pairs.particles import Particles
from pyrovae.training.objectives import bounds

X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
MEANS = torch.tensor([-1.0, 0.0, 2.0]).double()


def model(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.5, 0.3]).double()))
        u = pyro.sample("u", dist.Normal(MEANS[k.long()], 1.0))
        pyro.sample("x", dist.Normal(u[..., None], 1.0).expand([*u.shape, 2]).to_event(1), obs=x)


def guide(x):
    """The class after the number: its mass depends on a draw."""
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(x.mean(1) * 2 / 3, 0.8))
        pyro.sample("k", dist.Categorical(logits=-(u[..., None] - MEANS).square() / 2))


@pytest.mark.parametrize("strategy", ["vectorized", "tiled", "looped"])
def test_the_mean_over_draws_and_values_is_the_mean_over_the_guide(strategy):
    num_particles = 400
    with isolated(model, guide) as (p, q, _), pyro.validation_enabled(False):
        particles = Particles(p, q, (X,)).by(strategy)
        at = AtEveryValue(particles, num_particles)
        pyro.set_rng_seed(1)
        runs = [run.score() for run in at.runs(particles)]
        mass = at.tables(particles, runs, at.log_mass).exp()
        log_weight = at.tables(particles, runs, lambda run, t: bounds.log_joint(run, t) - bounds.log_guide(run, t))
        assert len(runs) == (3 * num_particles if strategy == "looped" else 1)
        plain = particles.by("vectorized").traces(20_000)[0].score()
        of_draws = bounds.log_joint(plain, lambda each: each) - bounds.log_guide(plain, lambda each: each)
    assert mass.shape == log_weight.shape == (3, num_particles, 4)
    summed = (mass * log_weight).sum(0)
    error = (summed.var(0) / num_particles * 3 + of_draws.var(0) / 20_000).sqrt()  # the draws of 3 values are apart
    assert ((summed.mean(0) - of_draws.mean(0)).abs() < 4 * error).all()  # 4 standard errors
    assert math.isclose(mass.sum(0).mean().item(), 1.0, abs_tol=4 * (mass.var() * 3 / mass[0].numel()).sqrt().item())


def test_without_discrete_latents_there_is_one_value():
    def normal(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(u[..., None], 1.0).expand([*u.shape, 2]).to_event(1), obs=x)

    def of_normal(x):
        with pyro.plate("data", len(x)):
            pyro.sample("u", dist.Normal(x.mean(1), 1.0))

    with isolated(normal, of_normal) as (p, q, _):
        at = AtEveryValue(Particles(p, q, (X,)), 5)
        assert at.num_values == 1 and at.discrete == {}
