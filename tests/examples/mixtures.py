"""Finite mixtures of three families that tests share."""

import math

import pyro.distributions as dist
import torch

from pyrovae.programs.oracles.mixtures import FiniteMixture

FAMILIES = {
    "bernoulli": (lambda mean: dist.Bernoulli(mean).to_event(1), 1),
    "binomial": (lambda mean: dist.Binomial(16, probs=mean / 16).to_event(1), 16),
    "poisson": (lambda mean: dist.Poisson(mean).to_event(1), math.inf),
}


def mixture_of(family, maximum):
    """Four components of five values each, of unlike weights."""
    uniform = torch.rand(4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    return FiniteMixture(weights, uniform * min(maximum, 6), family)
