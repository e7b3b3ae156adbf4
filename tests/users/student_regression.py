"""Responses with outliers, given covariates: Student-t regression with a latent common cause."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import softplus

LATENTS, RESPONSES, COVARIATES = 2, 5, 3

torch.manual_seed(0)
regression = nn.Linear(COVARIATES, RESPONSES)
loadings = nn.Linear(LATENTS, RESPONSES, bias=False)
encoder = nn.Sequential(nn.Linear(RESPONSES + COVARIATES, 40), nn.Tanh(), nn.Linear(40, 2 * LATENTS))


def data(num_rows, seed=0):
    """Responses (N, RESPONSES) and covariates (N, COVARIATES)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        covariates = torch.randn(num_rows, COVARIATES)
        common = torch.randn(num_rows, LATENTS) @ torch.randn(LATENTS, RESPONSES)
        noise = dist.StudentT(4.0).sample((num_rows, RESPONSES))
        return covariates @ torch.randn(COVARIATES, RESPONSES) + common + 0.3 * noise, covariates


def model(y, covariates):
    pyro.module("regression", regression)
    pyro.module("loadings", loadings)
    scale = pyro.param("scale", torch.ones(RESPONSES), constraint=constraints.positive)
    df = pyro.param("df", torch.tensor(4.0), constraint=constraints.greater_than(1.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
        loc = regression(covariates) + loadings(z)
        pyro.sample("y", dist.StudentT(df, loc, scale).to_event(1), obs=y)


def guide(y, covariates):
    pyro.module("encoder", encoder)
    loc, scale = encoder(torch.cat([y.asinh(), covariates], -1)).chunk(2, -1)
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(loc, softplus(scale) + 1e-3).to_event(1))
