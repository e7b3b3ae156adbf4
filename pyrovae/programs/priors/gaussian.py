"""Gaussian priors p(z)."""

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.base.errors import check_at_least_one
from pyrovae.programs.families.family import positive, positive_inverse


class StandardNormal(nn.Module):
    """N(0, I) over ``num_latents`` dimensions.

    Raises:
        InputError: if there is no dimension.

    Example:
        >>> StandardNormal(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        self.loc = nn.Buffer(torch.zeros(num_latents), persistent=False)
        self.scale = nn.Buffer(torch.ones(num_latents), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.scale).to_event(1)


class LearnedNormal(nn.Module):
    """N(m, diag s^2) with m and s learned, from 0 and 1 on.

    Raises:
        InputError: if there is no dimension.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        self.loc = nn.Parameter(torch.zeros(num_latents))
        self.raw_scale = nn.Parameter(positive_inverse(torch.ones(num_latents)))

    def forward(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, positive(self.raw_scale)).to_event(1)


class FullNormal(nn.Module):
    """N(m, L L') with m and the lower triangular L learned, from 0 and I on.

    Raises:
        InputError: if there is no dimension.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        self.loc = nn.Parameter(torch.zeros(num_latents))
        self.raw_scale = nn.Parameter(positive_inverse(torch.ones(num_latents)))
        self.below = nn.Parameter(torch.zeros(num_latents, num_latents))

    def forward(self) -> dist.TorchDistribution:
        scale_tril = self.below.tril(-1) + positive(self.raw_scale).diag()
        return dist.MultivariateNormal(self.loc, scale_tril=scale_tril)
