"""Corruptions of data for a denoising autoencoder: x (N, *shape) -> a draw of what is left of it, of the same shape."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.base.errors import InputError

Corruption = Callable[[Tensor], Tensor]


def masking(fraction: float = 0.25) -> Corruption:
    """Sets each value to 0 with a probability.

    Raises:
        InputError: for a fraction outside of [0, 1].

    References:
        Vincent, Larochelle, Bengio and Manzagol (2008), Extracting and composing robust features with denoising
        autoencoders, ICML.
    """
    _check_fraction("masking", fraction)
    return lambda x: torch.where(torch.rand_like(x) < fraction, 0.0, x)


def gaussian(scale: float) -> Corruption:
    """Adds normal noise of a standard deviation in the unit of the data.

    Raises:
        InputError: for a negative scale.

    References:
        Vincent, Larochelle, Lajoie, Bengio and Manzagol (2010), Stacked denoising autoencoders, JMLR 11.
    """
    if not scale >= 0:
        raise InputError(f"gaussian: the scale must be a standard deviation, 0 or more, got {scale}")
    return lambda x: x + scale * torch.randn_like(x)


def salt_and_pepper(fraction: float = 0.1, low: float = 0.0, high: float = 1.0) -> Corruption:
    """Sets each value to the lowest or to the highest with a probability, half by each.

    Raises:
        InputError: for a fraction outside of [0, 1], or extremes in the wrong order.

    References:
        Vincent, Larochelle, Lajoie, Bengio and Manzagol (2010), Stacked denoising autoencoders, JMLR 11.
    """
    _check_fraction("salt and pepper", fraction)
    if not low < high:
        raise InputError(f"salt and pepper: expected low < high, got {low} and {high}")

    def draw(x: Tensor) -> Tensor:
        number = torch.rand_like(x)
        return torch.where(number < fraction / 2, low, torch.where(number < fraction, high, x))

    return draw


def _check_fraction(name: str, fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise InputError(f"{name}: the fraction of values must be in [0, 1], got {fraction}")
