"""Pairs of one latent site, and the exact posterior of one datum asked for."""

import math

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.posteriors.reference import reference_posterior

ZERO = torch.tensor(0.0, dtype=torch.float64)


def datum(oracle, seed=0):
    return oracle.draw(1, seed=seed)[0]


def gold(pair, x, **options):
    return reference_posterior(pair.model, pair.guide, x, progress=False, **options)


def exact_moments(oracle, x):
    """Site -> (mean, sd) of the posterior, by the oracle."""
    found = oracle.posterior(x)
    found = found if isinstance(found, dict) else {"z": found}
    return {name: (p.mean.flatten(), p.variance.sqrt().flatten()) for name, p in found.items()}


def pair_of(prior, likelihood, guide):
    """A pair with one latent site, from functions that give distributions."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def drawn(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide())

    return model, drawn


SQUARED = pair_of(
    lambda: dist.Normal(ZERO, 1.0),
    lambda z: dist.Normal(z.square(), 0.1),
    lambda: dist.Normal(ZERO + 1, 0.2),  # knows one of two modes
)

BROKEN = {
    "NaN": (
        lambda z: dist.Normal(z * math.nan, 1.0),
        r"log p\(x, z\) is nan with site 'z' at |site 'x': log density in the model is nan",
    ),
    "zero": (lambda z: dist.Poisson(0 * z), r"log p\(x, z\) is -inf at every latent tried"),
}

MIXTURES = {
    "bernoulli": lambda: pv.oracles.bernoulli_mixture(10, 3),
    "gaussian": lambda: pv.oracles.gaussian_mixture(3, 3),
}
