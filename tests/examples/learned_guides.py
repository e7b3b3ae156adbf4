"""Guides with parameters whose family holds an oracle's posterior, and the exact KL that is left of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

import pyrovae as pv


class Learned(nn.Module):
    """q(z | x) of a family whose parameters are a linear function of x, float64."""

    def __init__(self, site: str, family: Callable[..., Any], num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.site, self.family = site, family
        self.linear = nn.Linear(num_features, num_outputs).double()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.free = nn.Parameter(torch.zeros(num_outputs, num_outputs).double())

    def forward(self, x):
        return self.family(self.linear(x), self.free)

    def guide(self, x):
        pyro.module("learned", self)
        with pyro.plate("data", len(x)):
            pyro.sample(self.site, self(x))


class Pair(NamedTuple):
    """An oracle, and a guide that can become its posterior."""

    oracle: Any
    learned: Learned

    def kl(self, x):
        """KL(q(z|x) || p(z|x)) of each datum, exact: (N,) nats."""
        q, p = self.learned(x), self.oracle.posterior(x)
        if isinstance(p, dist.MultivariateNormal) and not isinstance(q, dist.MultivariateNormal):
            q = dist.MultivariateNormal(q.base_dist.loc, scale_tril=q.base_dist.scale.diag_embed())
        return kl_divergence(q, p).detach()


def full_rank(loc, free):
    return dist.MultivariateNormal(loc, scale_tril=free.tril(-1) + softplus(free.diagonal() + 0.5).diag_embed())


def mean_field(loc, free):
    return dist.Normal(loc, softplus(free.diagonal() + 0.5)).to_event(1)


def gamma(raw, free):
    return dist.Gamma((raw + 2).clamp(min=0.1), softplus(free.diagonal() + 0.5)).to_event(1)


def classes(logits, free):
    return dist.Categorical(logits=logits)


def orthogonal():
    """A factor model whose posterior is a product."""
    loadings = torch.zeros(4, 2).double()
    loadings[:2, 0], loadings[2:, 1] = 1.0, torch.tensor([0.5, -1.0]).double()
    return pv.oracles.LinearGaussian(loadings, torch.zeros(4).double(), torch.ones(4).double())


PAIRS = {
    "factors, full rank": lambda: Pair(pv.oracles.ppca(5, 2), Learned("z", full_rank, 5, 2)),
    "factors, mean field": lambda: Pair(orthogonal(), Learned("z", mean_field, 4, 2)),
    "gamma-Poisson": lambda: Pair(pv.oracles.gamma_poisson(2), Learned("z", gamma, 2, 2)),
    "classes": lambda: Pair(pv.oracles.bernoulli_mixture(6, 3), Learned("k", classes, 6, 3)),
}
