"""Counts with too many zeros: factors behind zero-inflated Poisson columns."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.nn.functional import softplus

FACTORS, COLUMNS = 3, 12

torch.manual_seed(0)
decoder = nn.Linear(FACTORS, COLUMNS)
encoder = nn.Sequential(nn.Linear(COLUMNS, 40), nn.ReLU(), nn.Linear(40, 2 * FACTORS))


def data(num_rows, seed=0):
    """Draws of the same model with other weights: (N, COLUMNS) counts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rate = softplus(torch.randn(num_rows, FACTORS) @ torch.randn(FACTORS, COLUMNS) + 1)
        return (torch.poisson(rate) * torch.bernoulli(torch.full_like(rate, 0.7)),)


def model(x):
    pyro.module("decoder", decoder)
    gate = pyro.param("gate_logits", torch.zeros(COLUMNS))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(FACTORS), 1.0).to_event(1))
        rate = softplus(decoder(z)) + 1e-3
        pyro.sample("x", dist.ZeroInflatedPoisson(rate, gate_logits=gate).to_event(1), obs=x)


def guide(x):
    pyro.module("encoder", encoder)
    loc, scale = encoder(x.log1p()).chunk(2, -1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, softplus(scale) + 1e-3).to_event(1))
