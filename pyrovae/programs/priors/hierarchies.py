r"""Two levels as one latent: z = (z1, z2), z2 ~ N(0, I), z1 | z2 normal with a mean and scales that a network gives.

.. math:: \log p(z) = \log N(z_2; 0, I) + \log N(z_1; m(z_2), \mathrm{diag}\, s(z_2)^2)
"""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints

from pyrovae.base.errors import InputError
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
        self.num_upper = num_latents // 2
        self.network = mlp(self.num_upper, hidden, seed=seed)(2 * (num_latents - self.num_upper))
        self.loc = nn.Buffer(torch.zeros(self.num_upper), persistent=False)
        self.raw_one = nn.Buffer(positive_inverse(torch.ones(1)), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return _Joint(dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1), self._lower)

    def _lower(self, upper: Tensor) -> dist.TorchDistribution:
        loc, raw = self.network(upper).chunk(2, -1)
        return dist.Normal(loc, positive(self.raw_one + raw)).to_event(1)


class _Joint(dist.TorchDistribution):
    """(z1, z2), the second from a distribution, the first from one that a function of the second gives."""

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, upper: Any, lower: Any, validate_args: bool | None = None) -> None:
        self.upper, self.lower = upper, lower
        probe = lower(torch.zeros_like(upper.mean))
        super().__init__(Size(), Size([probe.event_shape[0] + upper.event_shape[0]]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.upper, new.lower = self.upper, self.lower
        super(_Joint, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, (...)."""
        if self._validate_args:
            self._validate_sample(value)
        size = self.event_shape[0] - self.upper.event_shape[0]
        first, second = value.split([size, value.shape[-1] - size], -1)
        total = self.upper.log_prob(second) + self.lower(second).log_prob(first)
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        second = self.upper.rsample(Size([*sample_shape, *self.batch_shape]))
        return torch.cat([self.lower(second).rsample(), second], -1)
