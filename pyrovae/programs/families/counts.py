"""Families of counts that spread more than Poisson's or the binomial's, and of counts that share a total."""

import torch
from torch import Size, Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.counts import BetaBinomial, NegativeBinomial, ZeroInflated
from pyrovae.programs.distributions.events import Multinomial
from pyrovae.programs.distributions.exponential import Poisson
from pyrovae.programs.families.family import Family, elementwise


def negative_binomial() -> Family:
    """Counts without a bound, from log means, with a log dispersion for each element that all data share. A mass."""
    return Family(
        "negative_binomial",
        elementwise,
        lambda d, log_mean, log_dispersion: NegativeBinomial(log_mean, log_dispersion).to_event(d),
        free=(_zeros,),
    )


def zero_inflated_poisson() -> Family:
    """Counts too many of which are zero, from log rates and log odds of a zero that is none of Poisson's. A mass."""
    return Family("zero_inflated_poisson", _two, lambda d, rate, gate: ZeroInflated(Poisson(rate), gate).to_event(d))


def zero_inflated_negative_binomial() -> Family:
    """The same about a negative binomial, whose log dispersion all data share. A mass."""

    def build(event_dim: int, log_mean: Tensor, gate: Tensor, log_dispersion: Tensor) -> ZeroInflated:
        return ZeroInflated(NegativeBinomial(log_mean, log_dispersion), gate).to_event(event_dim)

    return Family("zero_inflated_negative_binomial", _two, build, free=(_zeros,))


def beta_binomial(total_count: int) -> Family:
    """Counts 0..total_count that spread more than the binomial's, from logits and a log concentration. A mass.

    The concentration is predicted: where it is large, counts are binomial.

    Raises:
        InputError: if total_count is below 1.
    """
    if total_count < 1:
        raise InputError(f"beta_binomial needs a total_count of at least 1, got {total_count}")

    def build(event_dim: int, logits: Tensor, log_concentration: Tensor) -> BetaBinomial:
        return BetaBinomial(total_count, logits, log_concentration).to_event(event_dim)

    return Family(f"beta_binomial({total_count})", _two, build)


def multinomial(total_count: int = 100) -> Family:
    """Counts given their total, from logits: words of a document. A mass, of each row by its own total.

    Args:
        total_count: of rows that are simulated.

    Raises:
        InputError: if total_count is below 1.
    """
    check_at_least_one(total_count=total_count)
    return Family("multinomial", elementwise, lambda d, logits: Multinomial(total_count, logits, d))


def _two(event_shape: Size) -> tuple[Size, ...]:
    return event_shape, event_shape


def _zeros(event_shape: Size) -> Tensor:
    return torch.zeros(event_shape)
