r"""The top-down guide of two levels, as one joint distribution of z = (z1, z2).

.. math:: q(z_2 \mid x)\, q(z_1 \mid z_2, x), \qquad
    q(z_1 \mid z_2, x) \propto N(z_1; m(x), s(x)^2)\, N(z_1; t(z_2), u(z_2)^2)

What the datum says of z1 and what z2 says of it meet as two normals do, each weighed by its precision: where
likelihood and prior of z1 are normal, that is the posterior.
"""

from collections.abc import Callable
from functools import partial

import pyro.distributions as dist
from torch import Size, Tensor, nn

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.stacked import Stacked
from pyrovae.programs.families.family import positive
from pyrovae.programs.networks import NetworkBuilder, mlp


class TopDown(nn.Module):
    """q(z2 | x) q(z1 | z2, x); z1 are the first half of the coordinates, rounded up, as in the prior ``TwoLevels``.

    Args:
        shape: of both levels together, a vector of at least 2.
        network: from how many numbers it must give to a module x -> (..., numbers).
        hidden: width of the layer from z2 down to z1.
        seed: of its weights.

    Raises:
        InputError: for latents of another shape.

    References:
        Sønderby et al. (2016), Ladder variational autoencoders, arXiv:1602.02282.
    """

    def __init__(self, shape: tuple[int, ...], network: NetworkBuilder, *, hidden: int = 32, seed: int = 1) -> None:
        super().__init__()
        check_at_least_one(hidden=hidden)
        if len(shape) != 1 or shape[0] < 2:
            raise InputError(f"a top-down guide is over vectors of at least 2 latents, got the shape {tuple(shape)}")
        self.num_upper = shape[0] // 2
        self.num_lower = shape[0] - self.num_upper
        self.network = network(2 * shape[0])
        self.top_down = mlp(self.num_upper, hidden, seed=seed)(2 * self.num_lower)

    def forward(self, x: Tensor) -> Stacked:
        """(..., *x) -> the joint distribution, of batch shape (...)."""
        of_upper, of_lower = self.network(x).split([2 * self.num_upper, 2 * self.num_lower], -1)
        return Stacked(_normal(of_upper), partial(self._lower, of_lower), self.num_lower)

    def _lower(self, of_lower: Tensor, second: Tensor) -> dist.TorchDistribution:
        (loc, scale), (top, wide) = (_loc_and_scale(raw) for raw in (of_lower, self.top_down(second)))
        total = scale.square() + wide.square()
        weight = wide.square() / total  # of the datum
        return dist.Normal(weight * loc + (1 - weight) * top, scale * wide * total.rsqrt()).to_event(1)


def top_down(hidden: int = 32) -> Callable[[Size, NetworkBuilder], TopDown]:
    """The ladder's guide for latents of two levels.

    Args:
        hidden: width of the layer from the upper level to the lower.
    """
    return partial(TopDown, hidden=hidden)


def _loc_and_scale(raw: Tensor) -> tuple[Tensor, Tensor]:
    loc, raw_scale = raw.chunk(2, -1)
    return loc, positive(raw_scale)


def _normal(raw: Tensor) -> dist.TorchDistribution:
    return dist.Normal(*_loc_and_scale(raw)).to_event(1)
