"""A class that is drawn, then a code given the class, then the datum: a VAE with a Gaussian mixture inside."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.nn.functional import one_hot, softplus

CLASSES, LATENTS, COLUMNS = 4, 2, 10

torch.manual_seed(0)
decoder = nn.Sequential(nn.Linear(LATENTS, 40), nn.Tanh(), nn.Linear(40, COLUMNS))
classifier = nn.Sequential(nn.Linear(COLUMNS, 40), nn.Tanh(), nn.Linear(40, CLASSES))
encoder = nn.Sequential(nn.Linear(COLUMNS + CLASSES, 40), nn.Tanh(), nn.Linear(40, 2 * LATENTS))


def data(num_rows, seed=0):
    """Binary rows (N, COLUMNS) of four groups."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        centres = torch.rand(CLASSES, COLUMNS)
        return (torch.bernoulli(centres[torch.randint(CLASSES, (num_rows,))]),)


def model(x):
    pyro.module("decoder", decoder)
    logits = pyro.param("logits", torch.zeros(CLASSES))
    loc = pyro.param("loc", torch.randn(CLASSES, LATENTS))
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(logits=logits))
        z = pyro.sample("z", dist.Normal(loc[c], 0.5).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)


def guide(x):
    pyro.module("classifier", classifier)
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(logits=classifier(x)))
        label = one_hot(c, CLASSES).to(x.dtype)
        read = torch.cat([x.expand(*label.shape[:-1], COLUMNS), label], -1)
        loc, scale = encoder(read).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, softplus(scale) + 1e-3).to_event(1))
