r"""What a predictive check compares: a statistic of each datum, and the rank of the observed among the replicated.

Where x and its S replications are exchangeable, a rank with ties broken at random is exactly uniform, for every S
and every distribution, discrete ones too:

.. math:: u = \frac{\#\{s : x_s < x\} + v \, (\#\{s : x_s = x\} + 1)}{S + 1}, \qquad v \sim U(0, 1)
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.base.errors import InputError

Statistic = Callable[[Tensor], Tensor]  # (N, *event) float64, NaN where masked -> (N,)
_COLUMNS_AT_ONCE = 2**21  # numbers sorted at once


def mean(x: Tensor) -> Tensor:
    """Mean of each datum, (N,), for x of shape (N, *event); as all statistics here, without its NaN."""
    return _flat(x).nanmean(1)


def square(x: Tensor) -> Tensor:
    """Mean square of each datum, (N,)."""
    return mean(x.square())


def sd(x: Tensor) -> Tensor:
    """Standard deviation over the coordinates of each datum (ddof 0), (N,)."""
    rows = _flat(x)
    return square(rows - rows.nanmean(1, keepdim=True)).sqrt()


def zeros(x: Tensor) -> Tensor:
    """Share of zeros in each datum, (N,)."""
    return mean(torch.where(x.isnan(), x, (x == 0).to(x.dtype)))


def smallest(x: Tensor) -> Tensor:
    """Least value of each datum, (N,)."""
    return -largest(-x)


def largest(x: Tensor) -> Tensor:
    """Greatest value of each datum, (N,)."""
    return _flat(torch.where(x.isnan(), -math.inf, x)).amax(1)


def default_statistics(support: Any, num_coordinates: int) -> dict[str, Statistic]:
    """What is compared where the caller does not say, by the support of the likelihood.

    Args:
        support: constraint on the observed values; None where it is not known.
        num_coordinates: D, numbers in one datum; where it is 1 there is no spread, least or greatest within.

    Example:
        >>> list(default_statistics(constraints.nonnegative_integer, 64))
        ['mean', 'sd', 'zeros', 'max']
    """
    if isinstance(support, type(constraints.boolean)):
        return {"mean": mean}  # of zeros and ones all else follows
    discrete = bool(getattr(support, "is_discrete", False))
    zero_fraction = {"zeros": zeros} if discrete else {}
    if num_coordinates == 1:
        return {"mean": mean, "square": square, **zero_fraction}
    return {"mean": mean, "sd": sd, **(zero_fraction or {"min": smallest}), "max": largest}


def apply_statistics(statistics: Mapping[str, Statistic], x: Tensor) -> dict[str, Tensor]:
    """Each statistic of each of N data, name -> (N,) float64; NaN where nothing of a datum is seen.

    Args:
        statistics: name -> function (N, *event) -> (N,), each row by itself; it gets no datum without a number.
        x: (N, *event) float64, NaN where masked.

    Raises:
        InputError: naming the statistic, if it gives another shape, or a number that is not finite.
    """
    seen = ~_flat(x).isnan().all(1)
    rows, nothing = x[seen], torch.full((len(x),), math.nan, dtype=torch.float64, device=x.device)
    return {
        name: nothing.masked_scatter(seen, _checked(name, statistic(rows), len(rows)))
        for name, statistic in statistics.items()
    }


def _checked(name: str, values: Any, num_data: int) -> Tensor:
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape != (num_data,):
        raise InputError(
            f"statistic '{name}': expected one number for each datum, a tensor of shape ({num_data},), got {shape}; "
            "reduce over the dimensions of one datum, as lambda x: x.flatten(1).amax(1) does"
        )
    bad = ~values.isfinite()
    if bad.any():
        raise InputError(
            f"statistic '{name}' is {values[bad][0].item()} for {int(bad.sum())} of {num_data} data; "
            "give a finite number for each, by nanmean or nansum where values are masked (they are NaN)"
        )
    return values.double()


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1) if x.dim() > 1 else x[:, None]


# ----------------------------------------------------------------------------------------------------- ranks


def p_value(replicated: Tensor, observed: Tensor) -> Tensor:
    """Mid-p value of T(x_rep) >= T(x), of the shape of ``observed``.

    Ties count half, and the observed value counts as one of the S + 1: a p-value is never 0, and its mean under
    exchangeability is 1/2. Values within rounding of each other (1e-10, relative) are ties.

    Args:
        replicated: (S, ...).
        observed: (...); where it is NaN, so is the p-value.

    References:
        Lancaster (1961), Significance tests in discrete distributions, doi:10.1080/01621459.1961.10482105.
        Phipson and Smyth (2010), Permutation p-values should never be zero, doi:10.2202/1544-6115.1585.

    Example:
        >>> p_value(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor(2.0))  # one above, two ties, itself
        tensor(0.5000, dtype=torch.float64)
    """
    tied = (replicated - observed).abs() <= 1e-10 * observed.abs()
    above = ((replicated > observed) & ~tied).sum(0)
    p = (above + (tied.sum(0) + 1) / 2).double() / (len(replicated) + 1)
    return torch.where(observed.isnan(), math.nan, p)


def randomised_pit(less: Tensor, tied: Tensor, num_draws: int) -> Tensor:
    """The rank u of the head of this module, float64, of the shape of ``less``; it draws v.

    Args:
        less: how many of the S replicated values are below the observed one.
        tied: how many are equal to it.
        num_draws: S.

    References:
        Dunn and Smyth (1996), Randomized quantile residuals, doi:10.1080/10618600.1996.10474708.
        Czado, Gneiting and Held (2009), Predictive model assessment for count data,
        doi:10.1111/j.1541-0420.2009.01191.x.
    """
    return (less + torch.rand(less.shape, dtype=torch.float64, device=less.device) * (tied + 1)) / (num_draws + 1)


def ks_distance(u: Tensor) -> Tensor:
    """Kolmogorov-Smirnov distance from uniformity of each coordinate, over its data.

    Args:
        u: (N, *event); a NaN is no datum.

    Returns:
        (*event); NaN for a coordinate without data.

    Example:
        >>> ks_distance(torch.tensor([0.25, 0.75]))
        tensor(0.2500)
    """
    columns = _flat(u).split(max(1, _COLUMNS_AT_ONCE // len(u)), dim=1)
    return torch.cat([_ks_of_columns(part) for part in columns]).reshape(u.shape[1:])


def _ks_of_columns(u: Tensor) -> Tensor:
    ordered, count = u.sort(0).values, (~u.isnan()).sum(0)  # NaN last
    rank = torch.arange(1, len(u) + 1, device=u.device)[:, None]
    distance = torch.maximum(rank / count - ordered, ordered - (rank - 1) / count)
    return torch.where(count > 0, distance.masked_fill(ordered.isnan(), -math.inf).amax(0), math.nan)


def ks_p_value(distance: Tensor, count: Tensor) -> Tensor:
    """Bound on the p-value of a Kolmogorov-Smirnov distance, for any number of data: 2 exp(-2 n d^2), at most 1.

    References:
        Massart (1990), The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality, doi:10.1214/aop/1176990746.
    """
    return (2 * torch.exp(-2 * count * distance.square())).clamp_max(1)


def ks_band(num_data: int, level: float = 0.95) -> float:
    """Half width of the band that holds the whole empirical distribution function with at least this probability.

    Example:
        >>> round(ks_band(100), 4)
        0.1358
    """
    return math.sqrt(math.log(2 / (1 - level)) / (2 * num_data))
