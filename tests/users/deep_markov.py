"""Sequences of unlike length, padded: a deep Markov model (Krishnan, Shalit and Sontag 2017), its guide step by step."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import nn
from torch.nn.functional import softplus

LATENTS, NOTES, STEPS = 2, 6, 5

torch.manual_seed(0)
transition = nn.Sequential(nn.Linear(LATENTS, 20), nn.Tanh(), nn.Linear(20, 2 * LATENTS))
emission = nn.Sequential(nn.Linear(LATENTS, 20), nn.Tanh(), nn.Linear(20, NOTES))
combiner = nn.Sequential(nn.Linear(LATENTS + STEPS * NOTES, 40), nn.Tanh(), nn.Linear(40, 2 * LATENTS))


def data(num_rows, seed=0):
    """Notes (N, STEPS, NOTES), zero behind the end of each sequence, and lengths (N,)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lengths = torch.randint(2, STEPS + 1, (num_rows,))
        drift = torch.randn(num_rows, STEPS, NOTES).cumsum(1)
        seen = (torch.arange(STEPS) < lengths[:, None]).unsqueeze(-1)
        return torch.bernoulli(drift.sigmoid()) * seen, lengths


def normal(network, read):
    loc, scale = network(read).chunk(2, -1)
    return dist.Normal(loc, softplus(scale) + 1e-2).to_event(1)


def model(x, lengths):
    pyro.module("transition", transition)
    pyro.module("emission", emission)
    with pyro.plate("data", len(x)):
        z = torch.zeros(len(x), LATENTS)
        for t in range(STEPS):
            with poutine.mask(mask=t < lengths):
                z = pyro.sample(f"z_{t}", normal(transition, z))
                pyro.sample(f"x_{t}", dist.Bernoulli(logits=emission(z)).to_event(1), obs=x[:, t])


def guide(x, lengths):
    pyro.module("combiner", combiner)
    with pyro.plate("data", len(x)):
        z = torch.zeros(len(x), LATENTS)
        for t in range(STEPS):
            later = (x * (torch.arange(STEPS) >= t).unsqueeze(-1)).flatten(1)
            with poutine.mask(mask=t < lengths):
                read = torch.cat([z, later.expand(*z.shape[:-1], -1)], -1)
                z = pyro.sample(f"z_{t}", normal(combiner, read))
