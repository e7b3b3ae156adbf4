"""Documents of unlike length: proportions of topics under a Dirichlet prior (Srivastava and Sutton 2017)."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.nn.functional import softplus

TOPICS, WORDS = 4, 30

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(WORDS, 60), nn.Softplus(), nn.Linear(60, TOPICS))


def data(num_rows, seed=0):
    """Counts of words (N, WORDS) in documents of 20 to 80 words."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        topics = dist.Dirichlet(torch.full((WORDS,), 0.1)).sample((TOPICS,))
        theta = dist.Dirichlet(torch.full((TOPICS,), 0.5)).sample((num_rows,))
        rows = [
            dist.Multinomial(int(length), probs=probs).sample()
            for length, probs in zip(torch.randint(20, 80, (num_rows,)), theta @ topics, strict=True)
        ]
        return (torch.stack(rows),)


def model(x):
    words = pyro.param("words", lambda: 0.1 * torch.randn(TOPICS, WORDS)).softmax(-1)
    with pyro.plate("data", len(x)):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((TOPICS,), 0.5)))
        pyro.sample("x", dist.Multinomial(probs=theta @ words, validate_args=False), obs=x)


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        pyro.sample("theta", dist.Dirichlet(softplus(encoder(x.log1p())) + 0.3))
