"""Pairs whose likelihood ends where a latent says: x below z, or above it."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions.transforms import AffineTransform

X = torch.tensor([0.25, 1.0, 2.0, 3.5])


def above(base, loc):
    """A draw, and so much more."""
    return dist.TransformedDistribution(base, [AffineTransform(loc, 1.0)])


def ones(x):
    return torch.ones(len(x))


def pair(likelihood, guide, prior=lambda: dist.Gamma(torch.tensor(2.0), 1.0)):
    """One latent z for each datum."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def q(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    return model, q


def up_to(z):
    return dist.Uniform(torch.zeros_like(z), z)


def beyond(z):
    return above(dist.Exponential(torch.ones_like(z)), z)


# x ~ U(0, z), z ~ Gamma(2, 1): p(x) = exp(-x), and z - x is a standard exponential given x.
EXACT = pair(up_to, lambda x: above(dist.Exponential(ones(x)), x))
WIDE = pair(up_to, lambda x: dist.Gamma(2 + x, 1.0))  # draws z below x too
