"""A family says which parameters a network must produce for one datum, and builds the distribution from them.

A user's own family is a few lines::

    def build(event_dim, loc, raw_scale):
        return dist.Laplace(loc, positive(raw_scale)).to_event(event_dim)

    laplace = Family("laplace", lambda event_shape: (event_shape, event_shape), build)
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.nn.functional import softplus

from pyrovae.base.errors import InputError

SCALE_FLOOR = 1e-4


@dataclass(frozen=True)
class Family:
    """A named map from parameters to a distribution over one datum.

    Args:
        name: what reports call it, with its constants: ``"binomial(16)"``.
        shapes: event shape -> shapes of the parameters that a network produces for one datum.
        build: ``(event_dim, *parameters, *free) -> Distribution``, with the last ``event_dim`` dimensions an
            event; parameter i has shape ``(..., *shapes(event_shape)[i])``.
        free: initial values of parameters learned without a network, shared by all data; or functions of the
            event shape that give them.
    """

    name: str
    shapes: Callable[[Size], tuple[Size, ...]]
    build: Callable[..., dist.TorchDistribution]
    free: tuple[Tensor | Callable[[Size], Tensor], ...] = ()

    def initial(self, event_shape: Size) -> list[Tensor]:
        """Where the parameters that are learned without a network begin."""
        return [value(event_shape) if callable(value) else value for value in self.free]


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
        >>> from pyrovae.programs.families import normal
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


def elementwise(event_shape: Size) -> tuple[Size, ...]:
    """Shapes of the parameters of a family that has one for each value of an event."""
    return (event_shape,)
