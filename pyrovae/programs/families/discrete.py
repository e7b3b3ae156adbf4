"""Families of counts, classes and binary values."""

import pyro.distributions as dist
from torch import Size

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.exponential import Bernoulli, Binomial, Poisson
from pyrovae.programs.families.family import Family, elementwise


def bernoulli() -> Family:
    """Binary data in {0, 1}, from logits. A mass; the values between 0 and 1 are outside its support."""
    return Family("bernoulli", elementwise, lambda d, logits: Bernoulli(logits=logits).to_event(d))


def binomial(total_count: int) -> Family:
    """Counts 0..total_count, from logits: total_count independent trials for each element. A mass.

    Raises:
        InputError: if total_count is below 1.
    """
    if total_count < 1:
        raise InputError(f"binomial needs a total_count of at least 1, got {total_count}")
    return Family(f"binomial({total_count})", elementwise, lambda d, logits: Binomial(total_count, logits).to_event(d))


def poisson() -> Family:
    """Counts 0, 1, 2, ..., from log rates. A mass."""
    return Family("poisson", elementwise, lambda d, log_rate: Poisson(log_rate).to_event(d))


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


def categorical_256() -> Family:
    """Pixels of 8 bits, each level a class by itself. A mass."""
    return categorical(256)
