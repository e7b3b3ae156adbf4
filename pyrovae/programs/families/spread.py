"""Families of real, positive and unit values that spread otherwise than a normal: heavy tails, skewness, factors."""

import math

import pyro.distributions as dist
from torch import Size, Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.events import LowRankNormal
from pyrovae.programs.families.family import Family, positive


def laplace() -> Family:
    """Real data with exponential tails, from location and scale. A density."""
    return Family("laplace", _two, lambda d, loc, raw: dist.Laplace(loc, positive(raw)).to_event(d))


def student_t(df: float = 5.0) -> Family:
    """Real data with heavy tails, from location and scale. A density.

    Args:
        df: degrees of freedom.

    Raises:
        InputError: unless these are positive and finite.
    """
    if not (df > 0 and math.isfinite(df)):
        raise InputError(f"student_t needs positive degrees of freedom, got {df}")
    return Family(f"student_t({df:g})", _two, lambda d, loc, raw: dist.StudentT(df, loc, positive(raw)).to_event(d))


def logistic() -> Family:
    """Real data with exponential tails and a round top, from location and scale. A density."""
    return Family("logistic", _two, lambda d, loc, raw: dist.Logistic(loc, positive(raw)).to_event(d))


def low_rank_normal(rank: int = 2) -> Family:
    """Real data whose errors are correlated by a few factors, which are predicted as the mean is. A density.

    Args:
        rank: number of factors.

    Raises:
        InputError: if there is no factor.
    """
    check_at_least_one(rank=rank)

    def build(event_dim: int, loc: Tensor, factor: Tensor, raw_scale: Tensor) -> LowRankNormal:
        return LowRankNormal(loc, factor, positive(raw_scale), event_dim)

    def shapes(event_shape: Size) -> tuple[Size, ...]:
        return event_shape, Size([event_shape.numel(), rank]), event_shape

    return Family(f"low_rank_normal({rank})", shapes, build)


def log_normal() -> Family:
    """Positive data whose logarithms are normal, from their mean and scale. A density."""
    return Family("log_normal", _two, lambda d, loc, raw: dist.LogNormal(loc, positive(raw)).to_event(d))


def gamma() -> Family:
    """Positive data, from a log mean and a shape. A density."""

    def build(event_dim: int, log_mean: Tensor, raw_shape: Tensor) -> dist.TorchDistribution:
        shape = positive(raw_shape)
        return dist.Gamma(shape, shape * (-log_mean).exp()).to_event(event_dim)

    return Family("gamma", _two, build)


def beta() -> Family:
    """Proportions, 0 and 1 excluded, from the log odds of their mean and a concentration. A density."""

    def build(event_dim: int, logits: Tensor, raw: Tensor) -> dist.TorchDistribution:
        whole = 2 * positive(raw)
        high, low = (whole * logits.sigmoid()).clamp_min(1e-4), (whole * (-logits).sigmoid()).clamp_min(1e-4)
        return dist.Beta(high, low).to_event(event_dim)

    return Family("beta", _two, build)


def _two(event_shape: Size) -> tuple[Size, ...]:
    return event_shape, event_shape
