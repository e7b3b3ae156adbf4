"""Guides of known error: an exact guide with every draw widened and shifted by known amounts.

A distribution of mean m and standard deviation s becomes the one of its family with::

    mean m + shift * s,  standard deviation scale * s
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from pyrovae.base.errors import InputError

Program = Callable[[Tensor], None]


def moved_guide(guide: Program, scale: float, shift: float = 0.0) -> Program:
    """The guide with each draw from `moved(distribution, scale, shift)`; at (1, 0) it is the guide itself.

    Where the guide draws Normals and is exact, E_q[w^2] of its importance weights w is finite if and only if
    scale > 1 / sqrt(2), whatever the shift, also where one draw depends on another.
    """
    return _Moved(scale, shift)(guide)


class _Moved(Messenger):
    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def _pyro_sample(self, msg: Any) -> None:
        if not isinstance(msg["fn"], _Subsample):
            msg["fn"] = moved(msg["fn"], self.scale, self.shift)


@singledispatch
def moved(distribution: Any, scale: float, shift: float) -> TorchDistributionMixin:
    """A distribution of the same family, widened and shifted.

    A Normal, a gamma and a beta distribution by their standard deviations, along each axis; a mixture, in each
    component. A categorical distribution is tempered, p^(1 / scale), and a share `shift` of the uniform one is
    mixed in, so that no component is out of reach.

    Args:
        distribution: of any batch shape, which is kept.
        scale: > 0.
        shift: in standard deviations; for a categorical distribution a share in [0, 1].

    Raises:
        InputError: if this family is not known, or has no member of that mean and standard deviation.

    Example:
        >>> moved(dist.Normal(0.0, 2.0), 1.5, 0.5)
        Normal(loc: 1.0, scale: 3.0)
    """
    raise InputError(f"no widened and shifted {type(distribution).__name__} is known; give it a rule in moved.py")


@moved.register
def _(distribution: torch.distributions.Independent, scale: float, shift: float) -> TorchDistributionMixin:
    return moved(distribution.base_dist, scale, shift).to_event(distribution.reinterpreted_batch_ndims)


@moved.register
def _(distribution: torch.distributions.Normal, scale: float, shift: float) -> TorchDistributionMixin:
    return dist.Normal(*_moments(distribution, scale, shift))


@moved.register
def _(distribution: torch.distributions.MultivariateNormal, scale: float, shift: float) -> TorchDistributionMixin:
    mean, _ = _moments(distribution, scale, shift)
    return dist.MultivariateNormal(mean, scale_tril=scale * distribution.scale_tril)


@moved.register
def _(distribution: torch.distributions.Gamma, scale: float, shift: float) -> TorchDistributionMixin:
    mean, deviation = _moments(distribution, scale, shift)
    _demand(mean > 0, "gamma", scale, shift)
    return dist.Gamma((mean / deviation) ** 2, mean / deviation**2)


@moved.register
def _(distribution: torch.distributions.Beta, scale: float, shift: float) -> TorchDistributionMixin:
    mean, deviation = _moments(distribution, scale, shift)
    size = mean * (1 - mean) / deviation**2 - 1
    _demand((mean > 0) & (mean < 1) & (size > 0), "beta", scale, shift)
    return dist.Beta(mean * size, (1 - mean) * size)


@moved.register
def _(distribution: torch.distributions.MixtureSameFamily, scale: float, shift: float) -> TorchDistributionMixin:
    components = moved(distribution.component_distribution, scale, shift)
    return dist.MixtureSameFamily(distribution.mixture_distribution, components)


@moved.register
def _(distribution: torch.distributions.Categorical, scale: float, shift: float) -> TorchDistributionMixin:
    tempered = (distribution.logits / scale).softmax(-1)
    return dist.Categorical((1 - shift) * tempered + shift / tempered.shape[-1])


def _moments(distribution: torch.distributions.Distribution, scale: float, shift: float) -> tuple[Tensor, Tensor]:
    return distribution.mean + shift * distribution.stddev, scale * distribution.stddev


def _demand(possible: Tensor, family: str, scale: float, shift: float) -> None:
    if not bool(possible.all()):
        raise InputError(
            f"{int((~possible).sum())} of {possible.numel()} {family} distributions have none beside them that is "
            f"{scale} times as wide and shifted by {shift} standard deviations; use smaller numbers"
        )
