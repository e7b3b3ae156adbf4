"""Gaussian codes of two coordinates, whose parts can be written out."""

import pyro
import pyro.distributions as dist
import torch


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A, SHIFT = torch.tensor([[0.9, 0.4], [-0.3, 0.6]]).double(), torch.tensor([0.3, -0.2]).double()
SCALE = torch.tensor([0.4, 0.7]).double()
COV = torch.tensor([[0.4, -0.2], [-0.2, 0.3]]).double()


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def diagonal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ A.to(x).T + SHIFT.to(x), SCALE.to(x)).to_event(1))


def full(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(x @ A.T + SHIFT, COV))


def two_sites_model(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0 * x[:, 0].mean(), 1.0))
        b = pyro.sample("b", dist.Normal(0.0 * x[:, 0].mean(), 1.0))
        pyro.sample("x", dist.Normal(torch.stack([a, b], -1), 0.5).to_event(1), obs=x)


def hanging(x):
    """The same code as ``full``, b drawn after a."""
    mean, slope = x @ A.T + SHIFT, COV[1, 0] / COV[0, 0]
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(mean[:, 0], COV[0, 0].sqrt()))
        left = (COV[1, 1] - slope * COV[0, 1]).sqrt()
        pyro.sample("b", dist.Normal(mean[:, 1] + slope * (a - mean[:, 0]), left))


def two_sites(x):
    mean = x @ A.T + SHIFT
    with pyro.plate("data", len(x)):
        pyro.sample("b", dist.Normal(mean[:, 1], SCALE[1]))
        pyro.sample("a", dist.Normal(mean[:, 0], SCALE[0]))


CODES = {
    "diagonal": (model, diagonal, SCALE.square().diag()),
    "full covariance": (model, full, COV),
    "two sites": (two_sites_model, two_sites, SCALE.square().diag()),
    "one site after the other": (two_sites_model, hanging, COV),
}
