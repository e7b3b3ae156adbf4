"""Gaussian priors p(z)."""

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.base.errors import check_at_least_one


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
