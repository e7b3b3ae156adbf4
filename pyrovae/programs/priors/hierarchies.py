r"""Two levels as one latent: z = (z1, z2), z2 ~ N(0, I), z1 | z2 normal with a mean and scales that a network gives.

.. math:: \log p(z) = \log N(z_2; 0, I) + \log N(z_1; m(z_2), \mathrm{diag}\, s(z_2)^2)
"""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.stacked import Stacked
from pyrovae.programs.families.family import positive, positive_inverse
from pyrovae.programs.networks import mlp


class TwoLevels(nn.Module):
    """p(z2) p(z1 | z2); z1 are the first half of the coordinates, rounded up.

    Args:
        num_latents: dimensions of both together.
        hidden: width of the layer between them.
        seed: of its weights.

    Raises:
        InputError: if there are fewer than 2 dimensions.

    References:
        Sønderby et al. (2016), Ladder variational autoencoders, arXiv:1602.02282.
    """

    def __init__(self, num_latents: int, *, hidden: int = 32, seed: int | None = 0) -> None:
        super().__init__()
        if num_latents < 2:
            raise InputError(f"two levels need at least 2 dimensions, got {num_latents}")
        num_upper = num_latents // 2
        self.num_lower = num_latents - num_upper
        self.network = mlp(num_upper, hidden, seed=seed)(2 * self.num_lower)
        self.loc = nn.Buffer(torch.zeros(num_upper), persistent=False)
        self.raw_one = nn.Buffer(positive_inverse(torch.ones(1)), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        upper = dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        return Stacked(upper, self._lower, self.num_lower)

    def _lower(self, upper: Tensor) -> dist.TorchDistribution:
        loc, raw = self.network(upper).chunk(2, -1)
        return dist.Normal(loc, positive(self.raw_one + raw)).to_event(1)
