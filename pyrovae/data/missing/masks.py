r"""Entries hidden by a mask; and masks of entries missing completely at random, at random, or not at random.

With s = 1 where an entry is observed (Rubin 1976):

.. math:: p(s \mid x) = p(s), \qquad p(s \mid x) = p(s \mid x_o), \qquad p(s \mid x) \text{ depends on } x_m
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, nearest
from pyrovae.base.random import stream

STRENGTH = 2.0  # log odds by which a standard deviation moves the chance to be missing
HALVINGS = 60  # of the bracket of an intercept


@checked
def hide(x: Any, observed: Any) -> Any:
    """The data with NaN where they are hidden.

    Args:
        x: a tensor or an array (N, *shape); whole numbers become real ones.
        observed: booleans, True for what stays: (N, *shape), or (*shape) for all data alike.

    Returns:
        What ``x`` is, of a type that holds NaN.

    Raises:
        InputError: for a mask of another shape, or one that holds no booleans.

    Example:
        >>> hide(torch.tensor([[1, 2], [3, 4]]), torch.tensor([True, False]))
        tensor([[1., nan],
                [3., nan]])
    """
    if isinstance(x, np.ndarray):
        return hide(torch.as_tensor(x), observed).numpy()
    if not isinstance(x, Tensor):
        raise InputError(f"expected a tensor or an array (N, ...) to hide entries of, got {type(x).__name__}")
    mask = as_mask(observed, x.shape).to(x.device)
    return torch.where(mask, x if x.is_floating_point() else x.to(torch.get_default_dtype()), torch.nan)


def as_mask(observed: Any, shape: Sequence[int], name: str = "observed") -> Tensor:
    """A mask of data (N, *shape), from one of them or of one datum.

    Raises:
        InputError: for one of another shape, or one that holds no booleans.
    """
    mask = torch.as_tensor(observed) if isinstance(observed, Tensor | np.ndarray | list | tuple) else None
    if mask is None or mask.dtype != torch.bool:
        kind = type(observed).__name__ if mask is None else str(mask.dtype).removeprefix("torch.")
        raise InputError(f"{name} must hold booleans, True for an entry that is observed, got {kind}")
    whole = torch.Size(shape)
    if mask.shape not in (whole, whole[1:]):
        sizes = f"{tuple(whole)}, or {tuple(whole[1:])} for all data alike"
        raise InputError(f"{name} must have the shape of the data, {sizes}; got {tuple(mask.shape)}")
    return mask.expand(whole)


def as_entries(given: Any, shape: Sequence[int], name: str, names: Sequence[str]) -> Tensor:
    """A mask of data (N, *shape), from one or from names of entries.

    Args:
        given: booleans as :func:`as_mask` takes them, a name, or a list of names.
        shape: of the data.
        name: of the argument.
        names: of the entries of a datum, in their order.

    Raises:
        InputError: for a name that is not there, with the nearest that is; and as :func:`as_mask`.

    Example:
        >>> as_entries("age", (2, 3), "about", ["height", "age", "sex"])
        tensor([[False,  True, False],
                [False,  True, False]])
    """
    words = [given] if isinstance(given, str) else given
    if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) for word in words):
        return as_mask(given, shape, name)
    for word in words:
        if word not in names:
            there = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
            raise InputError(f'{name}: no column "{word}";{nearest(word, names) or f" there are {there}"}')
    chosen = torch.tensor([one in words for one in names])
    return chosen.reshape(*shape[1:]).expand(*shape)


def mcar(shape: Sequence[int], fraction: float, *, seed: int = 0) -> Tensor:
    """A mask of entries missing completely at random, each with the same probability.

    Args:
        shape: of the data, (N, *shape).
        fraction: of the entries, that is missing on average, in [0, 1).
        seed: of the draws.

    Returns:
        Booleans, True where an entry is observed.

    Raises:
        InputError: for a fraction outside of [0, 1).

    Example:
        >>> mcar((1000, 4), 0.3).float().mean().item() > 0.67
        True
    """
    _check_fraction(fraction)
    return torch.rand(tuple(shape), generator=stream("mcar", seed)) >= fraction


def mar(x: Any, fraction: float, *, drivers: Sequence[int] = (0,), strength: float = STRENGTH, seed: int = 0) -> Tensor:
    r"""A mask of entries missing at random: columns that are always observed decide on all others.

    .. math:: \operatorname{logit} p(s_d = 0) = b_d + a \, w_d^T x_{drivers} / |w_d|, \qquad w_d \sim N(0, I)

    Args:
        x: data (N, D), complete.
        fraction: of the entries of each other column, that is missing on average.
        drivers: the columns that decide.
        strength: a, log odds by which one standard deviation of what decides moves the chance.
        seed: of the draws.

    Returns:
        Booleans (N, D), True where an entry is observed.

    Raises:
        InputError: for a fraction outside of [0, 1), incomplete data, or drivers that are not among the columns.
    """
    scores = _scores(x, fraction)
    if not drivers or not all(0 <= d < scores.shape[1] for d in drivers) or len(set(drivers)) == scores.shape[1]:
        raise InputError(f"drivers are some of the columns 0..{scores.shape[1] - 1}, not all, got {list(drivers)}")
    noise = stream("mar", seed)
    weights = torch.randn(len(drivers), scores.shape[1], generator=noise, dtype=torch.float64)
    log_odds = strength * scores[:, list(drivers)] @ (weights / weights.norm(dim=0))
    seen = _drawn(log_odds, fraction, noise)
    seen[:, list(drivers)] = True
    return seen


def mnar(
    x: Any,
    fraction: float,
    *,
    columns: Sequence[int] | None = None,
    sign: int = 1,
    strength: float = STRENGTH,
    threshold: bool = False,
    seed: int = 0,
) -> Tensor:
    r"""A mask of entries missing not at random: each by its own value, large ones (or small ones) more often.

    .. math:: \operatorname{logit} p(s_d = 0) = b_d + \text{sign} \cdot a \, (x_d - \mathrm{mean}_d) / \mathrm{sd}_d

    Args:
        x: data (N, D), complete.
        fraction: of the entries of each column, that is missing on average; not used with a threshold.
        columns: those that may be missing; all where None.
        sign: 1 hides large values, -1 small ones.
        strength: a, log odds by which one standard deviation moves the chance.
        threshold: whether instead all that lies above the mean (below it, by the sign) is missing.
        seed: of the draws.

    Returns:
        Booleans (N, D), True where an entry is observed.

    Raises:
        InputError: for a fraction outside of [0, 1), incomplete data, or columns that are not there.

    References:
        Ipsen, Mattei and Frellsen (2021), not-MIWAE: deep generative modelling with missing not at random data, ICLR.
    """
    scores = _scores(x, fraction)
    if sign not in (-1, 1):
        raise InputError(f"sign is 1, which hides large values, or -1, got {sign}")
    chosen = list(range(scores.shape[1]) if columns is None else columns)
    if not chosen or not all(0 <= d < scores.shape[1] for d in chosen):
        raise InputError(f"columns are some of 0..{scores.shape[1] - 1}, got {chosen}")
    seen = sign * scores <= 0 if threshold else _drawn(sign * strength * scores, fraction, stream("mnar", seed))
    others = [d for d in range(scores.shape[1]) if d not in chosen]
    seen[:, others] = True
    return seen


# Name -> mechanism: data (N, D), a fraction and a seed -> a mask.
MECHANISMS: dict[str, Callable[..., Tensor]] = {
    "mcar": lambda x, fraction, seed=0: mcar(x.shape, fraction, seed=seed),
    "mar": mar,
    "mnar": mnar,
}


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise InputError(f"fraction is of the entries, from 0 to below 1; got {fraction}")


def _scores(x: Any, fraction: float) -> Tensor:
    """Standard scores of the columns of complete data, (N, D) float64."""
    _check_fraction(fraction)
    x = torch.as_tensor(x).double()
    if x.dim() != 2 or x.isnan().any():
        raise InputError(f"expected complete rows (N, D), got shape {tuple(x.shape)} with {int(x.isnan().sum())} NaN")
    sd = x.std(0, correction=0)
    return (x - x.mean(0)) / torch.where(sd > 0, sd, 1.0)


def _drawn(log_odds: Tensor, fraction: float, noise: torch.Generator) -> Tensor:
    """A mask whose columns lack this fraction on average: by an intercept each, found by halving."""
    low, high = (torch.full_like(log_odds[:1], end) for end in (-100.0, 100.0))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = (log_odds + middle).sigmoid().mean(0, keepdim=True) > fraction
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    uniform = torch.rand(log_odds.shape, generator=noise, dtype=torch.float64)
    return uniform >= (log_odds + (low + high) / 2).sigmoid()
