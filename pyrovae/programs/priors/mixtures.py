"""Mixture priors p(z)."""

import math

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.mixtures import NormalMixture
from pyrovae.programs.families.family import positive, positive_inverse
from pyrovae.programs.parameters import seeded


class GaussianMixture(nn.Module):
    r"""A learned mixture of C diagonal Gaussians.

    .. math:: p(z) = \sum_{c=1}^C \pi_c\, N(z; \mu_c, \mathrm{diag}\,\sigma_c^2)

    Args:
        num_latents: dimensions of z.
        num_components: C.
        spread: standard deviation of the initial means; each component starts with unit scale.
        seed: of the initial means; None draws them from torch's global generator.

    Raises:
        InputError: if there is no dimension or no component, or the spread is negative.

    Example:
        >>> GaussianMixture(2, num_components=5, seed=0)().log_prob(torch.zeros(7, 2)).shape
        torch.Size([7])
    """

    def __init__(
        self, num_latents: int, *, num_components: int = 10, spread: float = 1.0, seed: int | None = None
    ) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents, num_components=num_components)
        if spread < 0:
            raise InputError(f"spread must not be negative, got {spread}")
        with seeded(seed):
            self.loc = nn.Parameter(spread * torch.randn(num_components, num_latents))
        self.raw_scale = nn.Parameter(positive_inverse(torch.ones(num_components, num_latents)))
        self.logits = nn.Parameter(torch.full((num_components,), -math.log(num_components)))

    def forward(self) -> dist.TorchDistribution:
        return NormalMixture(self.loc, positive(self.raw_scale), self.logits)
