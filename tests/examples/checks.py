"""Pairs to check against data, and a check without its bar."""

import pyro
import pyro.distributions as dist

from pyrovae.diagnostics.predictive_check import predictive_check

STANDARD_ERRORS = 4
BY_CHANCE = 1e-3  # how often a right model's PIT may fail a test, by the seed chosen here


def check(model, guide, data, **settings):
    return predictive_check(model, guide, data, progress=False, **settings)


def known(family):
    """A pair without latents: every datum is drawn from the family with these parameters."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", family.to_event(1), obs=x)

    return model, lambda x: None


def two_sites(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.sample("y", dist.Poisson(z.exp()), obs=y)


def two_guide(x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
