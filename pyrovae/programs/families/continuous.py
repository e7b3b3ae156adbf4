"""Families of real values."""

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.exponential import ContinuousBernoulli
from pyrovae.programs.families.family import Family, Learned, elementwise, learned, positive, positive_inverse


def continuous_bernoulli() -> Family:
    """Data in [0, 1], from logits, with its normalizer (Loaiza-Ganem & Cunningham 2019). A density."""
    return Family("continuous_bernoulli", elementwise, lambda d, logits: ContinuousBernoulli(logits).to_event(d))


def normal(*, scale: float | Learned | None = None) -> Family:
    """Real data. A density: its value depends on the unit of the data (see the log Jacobian of a data protocol).

    Args:
        scale: its standard deviation: predicted beside the mean (None), fixed (a number), or :func:`learned`.

    Raises:
        InputError: if a number is not positive and finite; on building, if a learned scale has another shape
            than the event.
    """
    if scale is None:
        return Family("normal", lambda s: (s, s), lambda d, loc, raw: dist.Normal(loc, positive(raw)).to_event(d))
    if isinstance(scale, Learned):
        return Family(
            "normal(scale learned)", elementwise, _normal_shared_scale, free=(positive_inverse(scale.initial),)
        )
    if not (scale > 0 and math.isfinite(scale)):
        raise InputError(f"normal needs a positive scale, got {scale}")
    return Family(f"normal(scale={scale:g})", elementwise, lambda d, loc: dist.Normal(loc, scale).to_event(d))


def normal_of_one_scale() -> Family:
    """Real data around a predicted mean, with one standard deviation for all that is learned from 0.5 on."""
    return normal(scale=learned(0.5))


def normal_of(scale: float = 0.5) -> Family:
    """Real data around a predicted mean, with one fixed standard deviation for all."""
    return normal(scale=scale)


def normal_of_scales() -> Family:
    """Real data around a predicted mean, with a standard deviation for each element, learned from 0.5 on."""

    def initial(event_shape: Size) -> Tensor:
        return positive_inverse(torch.full(event_shape, 0.5))

    return Family("normal(scales learned)", elementwise, _normal_shared_scale, free=(initial,))


def _normal_shared_scale(event_dim: int, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
    event_shape = loc.shape[loc.dim() - event_dim :]
    try:
        scale = positive(raw).expand(event_shape)
    except RuntimeError as error:
        raise InputError(
            f"a learned scale of shape {tuple(raw.shape)} does not fit events of shape {tuple(event_shape)}: "
            "give one number, or one for each element"
        ) from error
    return dist.Normal(loc, scale).to_event(event_dim)
