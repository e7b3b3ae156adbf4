r"""Two levels as one latent, z = (z1, z2): a distribution of z2, and one of z1 that a function of z2 gives.

.. math:: \log p(z) = \log p(z_2) + \log p(z_1 \mid z_2)
"""

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints


class Stacked(dist.TorchDistribution):
    """The joint distribution of two vectors, the lower first in a draw and drawn last.

    Args:
        upper: of z2, over vectors.
        lower: z2 (..., D2) -> the distribution of z1, of a batch shape that the batch shape of ``upper`` goes with.
        num_lower: dimensions of z1.

    Example:
        >>> walk = Stacked(dist.Normal(torch.zeros(2), 1.0).to_event(1), lambda z: dist.Normal(z, 0.1).to_event(1), 2)
        >>> walk.log_prob(walk.sample((7,))).shape
        torch.Size([7])
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, upper: Any, lower: Callable[[Tensor], Any], num_lower: int, validate_args: bool | None = None
    ) -> None:
        self.upper, self.lower, self.num_lower = upper, lower, num_lower
        size = num_lower + upper.event_shape[0]
        super().__init__(upper.batch_shape, Size([size]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Stacked":
        upper = self.upper.expand(Size(batch_shape))
        return Stacked(upper, self.lower, self.num_lower, validate_args=self._validate_args)

    def with_parts(self, change: Callable[[Any], Any]) -> "Stacked":
        """The same of changed levels, as a function of their distributions gives them."""
        return Stacked(change(self.upper), lambda second: change(self.lower(second)), self.num_lower)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        first, second = value[..., : self.num_lower], value[..., self.num_lower :]
        return self.upper.log_prob(second) + self.lower(second).log_prob(first)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        second = self.upper.rsample(Size(sample_shape))
        return torch.cat([self.lower(second).rsample(), second], -1)
