"""Families: parameters -> Distribution. A likelihood and a variational family are the same kind of thing.

A family says which parameters a network must produce for one datum, and builds the distribution from them.
A user's own family is a few lines::

    def build(event_dim, loc, raw_scale):
        return dist.Laplace(loc, positive(raw_scale)).to_event(event_dim)

    laplace = Family("laplace", lambda event_shape: (event_shape, event_shape), build)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.nn.functional import softplus

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions import Bernoulli, Binomial, ContinuousBernoulli, Poisson

SCALE_FLOOR = 1e-4


@dataclass(frozen=True)
class Family:
    """A named map from parameters to a distribution over one datum.

    Args:
        name: what reports call it, with its constants: ``"binomial(16)"``.
        shapes: event shape -> shapes of the parameters that a network produces for one datum.
        build: ``(event_dim, *parameters, *free) -> Distribution``, with the last ``event_dim`` dimensions an
            event; parameter i has shape ``(..., *shapes(event_shape)[i])``.
        free: initial values of parameters learned without a network, shared by all data.
    """

    name: str
    shapes: Callable[[Size], tuple[Size, ...]]
    build: Callable[..., dist.TorchDistribution]
    free: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Learned:
    """A positive parameter learned as one tensor for all data; made by :func:`learned`."""

    initial: Tensor


def learned(initial: float | Tensor) -> Learned:
    """A positive parameter that is learned, not predicted, and shared by all data.

    Args:
        initial: where it starts: a number (one for all elements of an event) or a tensor of a shape that
            broadcasts to the event's (an element each).

    Raises:
        InputError: if a number is not positive and finite.

    Example:
        >>> normal(scale=learned(0.5)).name  # probabilistic PCA has this noise
        'normal(scale learned)'
    """
    value = torch.as_tensor(initial, dtype=torch.get_default_dtype()).detach()
    if not bool(((value > 0) & value.isfinite()).all()):
        raise InputError(f"a learned scale must start positive and finite, got {initial}")
    return Learned(value)


def positive(raw: Tensor) -> Tensor:
    """Real -> positive, of the same shape: softplus above a floor of 1e-4, as a density runs away on constant data."""
    return softplus(raw) + SCALE_FLOOR


def positive_inverse(value: Tensor) -> Tensor:
    """The raw number whose :func:`positive` is ``value``; values below the floor are taken at it."""
    value = (value - SCALE_FLOOR).clamp_min(torch.finfo(value.dtype).tiny)
    return value + torch.log(-torch.expm1(-value))


def bernoulli() -> Family:
    """Binary data in {0, 1}, from logits. A mass; the values between 0 and 1 are outside its support."""
    return Family("bernoulli", _same, lambda d, logits: Bernoulli(logits=logits).to_event(d))


def continuous_bernoulli() -> Family:
    """Data in [0, 1], from logits, with its normalizer (Loaiza-Ganem & Cunningham 2019). A density."""
    return Family("continuous_bernoulli", _same, lambda d, logits: ContinuousBernoulli(logits).to_event(d))


def binomial(total_count: int) -> Family:
    """Counts 0..total_count, from logits: total_count independent trials for each element. A mass.

    Raises:
        InputError: if total_count is below 1.
    """
    if total_count < 1:
        raise InputError(f"binomial needs a total_count of at least 1, got {total_count}")
    return Family(f"binomial({total_count})", _same, lambda d, logits: Binomial(total_count, logits).to_event(d))


def poisson() -> Family:
    """Counts 0, 1, 2, ..., from log rates. A mass."""
    return Family("poisson", _same, lambda d, log_rate: Poisson(log_rate).to_event(d))


def categorical(num_classes: int) -> Family:
    """Classes 0..num_classes-1, from logits. A mass; as a latent it is drawn by the guide, not enumerated.

    The logits of one datum have the shape (num_classes, *event_shape): classes first, as a convolution gives them.

    Raises:
        InputError: if there are fewer than 2 classes.
    """
    if num_classes < 2:
        raise InputError(f"categorical needs at least 2 classes, got {num_classes}")
    return Family(
        f"categorical({num_classes})",
        lambda event_shape: (Size([num_classes, *event_shape]),),
        lambda d, logits: dist.Categorical(logits=logits.movedim(-d - 1, -1)).to_event(d),
    )


def normal(*, scale: float | Learned | None = None) -> Family:
    """Real data. A density: its value depends on the unit of the data (see the log Jacobian of a data protocol).

    Args:
        scale: its standard deviation: predicted beside the mean (None), fixed (a number), or :func:`learned`.

    Raises:
        InputError: if a number is not positive and finite; on building, if a learned scale has another shape
            than the event.
    """
    if scale is None:
        return Family(
            "normal",
            lambda event_shape: (event_shape, event_shape),
            lambda d, loc, raw: dist.Normal(loc, positive(raw)).to_event(d),
        )
    if isinstance(scale, Learned):
        return Family("normal(scale learned)", _same, _normal_shared_scale, free=(positive_inverse(scale.initial),))
    if not (scale > 0 and math.isfinite(scale)):
        raise InputError(f"normal needs a positive scale, got {scale}")
    return Family(f"normal(scale={scale:g})", _same, lambda d, loc: dist.Normal(loc, scale).to_event(d))


def _normal_shared_scale(event_dim: int, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
    event_shape = loc.shape[loc.dim() - event_dim :]
    if not _broadcasts(raw.shape, event_shape):
        raise InputError(
            f"a learned scale of shape {tuple(raw.shape)} does not fit events of shape {tuple(event_shape)}: "
            "give one number, or one for each element"
        )
    return dist.Normal(loc, positive(raw)).to_event(event_dim)


def _broadcasts(shape: Size, to: Size) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))


def _same(event_shape: Size) -> tuple[Size, ...]:
    return (event_shape,)
