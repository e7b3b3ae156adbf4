r"""The Pareto tail of importance weights: its shape k-hat, which tells whether they are to be trusted, and smoothing.

.. math:: \Pr(w > u + y \mid w > u) \approx \big(1 + \hat k \, y / s\big)^{-1 / \hat k}

fitted to the largest weights of each datum by itself. Below a k-hat of 1/2 the weights have a variance, below 1 a mean.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

FINE = 0.01  # nats: weights that are equal to a coarser resolution are not told apart, and say nothing of the guide
FEWEST_WEIGHTS = 25  # of a datum, from which on there is a k-hat


class ParetoTail(NamedTuple):
    """The largest M = min(K/5, 3 sqrt K) of each datum's K weights, and the generalized Pareto fitted to them."""

    shape: Tensor  # k-hat, (N,); -inf, +inf or NaN where nothing is fitted, see pareto_k
    rows: Tensor  # where the M weights are in the table: (M, N), ascending
    log_weight: Tensor  # (M, N): the fit's expected order statistics; the weights as they are where nothing is fitted

    def smooth(self, log_weight: Tensor) -> Tensor:
        """The table that this tail is of, (K, N), with the tail smoothed."""
        return log_weight.double().scatter(0, self.rows, self.log_weight)


def pareto_tail(log_weight: Tensor, resolution: Tensor | float = 1e-12) -> ParetoTail:
    """Fits the tail of each datum's own weights; arguments and cases without a fit as in :func:`pareto_k`."""
    log_weight = log_weight.double()
    num_particles = len(log_weight)
    equal = (log_weight.amax(0) - log_weight.amin(0) <= resolution) & log_weight.isfinite().all(0)
    fine = torch.as_tensor(resolution, device=log_weight.device) <= FINE
    exact = equal & fine & (num_particles > 1)
    if num_particles < FEWEST_WEIGHTS:
        none, undefined = log_weight[:0], torch.full_like(equal, math.nan, dtype=torch.float64)
        return ParetoTail(torch.where(exact, -math.inf, undefined), none.long(), none)
    size = math.floor(min(num_particles / 5, 3 * math.sqrt(num_particles)))
    top, rows = (part.flip(0) for part in torch.topk(log_weight, size + 1, dim=0))  # ascending; row 0 is the cutoff
    cutoff = (top[0] - top[-1]).exp()
    tail = (top[1:] - top[-1]).exp() - cutoff
    spread_out = _quartile(tail) < 1e-300  # one weight in 10^300 of another: no fit, and no doubt either
    fitted, scale = _generalized_pareto(tail)
    shape = torch.where(spread_out, math.inf, fitted)
    defined = ~log_weight.isnan().any(0) & ~equal & _mostly_distinct(top) & ~shape.isnan()
    shape = torch.where(exact, -math.inf, torch.where(defined, shape, math.nan))
    smoothed = top[-1] + (cutoff + _order_statistics(fitted, scale, size)).log().clamp(max=0)
    return ParetoTail(shape, rows[1:], torch.where(shape.isfinite(), smoothed, top[1:]))


def pareto_k(log_weight: Tensor, resolution: Tensor | float = 1e-12) -> Tensor:
    """Shape of the generalized Pareto tail of each datum's own weights: (K, N) -> (N,).

    Above :func:`pareto_k_threshold` the evidence of that datum cannot be trusted. The tail is the largest
    min(K/5, 3 sqrt K) weights; the fit is that of Zhang and Stephens with the weak prior of PSIS.

    Args:
        log_weight: (K, N).
        resolution: nats, scalar or (N,): weights that differ by less are equal to rounding; NaN where equal weights say
            nothing of the guide, as they come from one and the same draw.

    Returns:
        (N,); -inf where the weights are constant to a ``resolution`` of at most 0.01 nat (the guide is exact), +inf
        where the tail spans more than doubles do, NaN where k-hat is undefined (K < 25, a NaN, weights that a coarser
        resolution does not tell apart, or a tail of mostly equal weights, as discrete latents give).

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25:72.
        Zhang and Stephens (2009), A new and efficient estimation method for the generalized Pareto
        distribution, Technometrics 51:316.
    """
    return pareto_tail(log_weight, resolution).shape


def psis(log_weight: Tensor, resolution: Tensor | float = 1e-12) -> Tensor:
    r"""Pareto-smoothed log weights, (K, N) -> (K, N), not normalised: the largest M weights tamed, the others kept.

    The j-th smallest of the M largest becomes what the fitted generalized Pareto expects there, at most the largest
    raw weight, with u the M-th largest but one, k-hat the shape and s the scale:

    .. math:: w_{(j)} = u + s \, \big((1 - p_j)^{-\hat k} - 1\big) / \hat k, \qquad p_j = (j - 1/2) / M

    Weights without a finite k-hat (see :func:`pareto_k`: exact, undefined, too few, wider than doubles) stay as they
    are. Smoothing lowers the variance and biases the mean down; it does not mend a k-hat above the threshold.

    Args:
        log_weight: (K, N).
        resolution: as in :func:`pareto_k`.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25:72.

    Example:
        >>> psis(torch.tensor([[0.0], [1.0]]))  # too few for a tail
        tensor([[0.],
                [1.]], dtype=torch.float64)
    """
    return pareto_tail(log_weight, resolution).smooth(log_weight)


def pareto_k_threshold(num_particles: int) -> float:
    """The k-hat above which K weights are not enough: min(1 - 1/log10 K, 0.7) (Vehtari et al. 2024).

    Example:
        >>> round(pareto_k_threshold(1000), 3)
        0.667
    """
    return min(1 - 1 / math.log10(num_particles), 0.7) if num_particles > 1 else math.nan


def _generalized_pareto(tail: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean of shape and scale under Zhang and Stephens' prior: excesses (M, N), ascending, -> (N,) each."""
    size, num_points = len(tail), 30 + math.isqrt(len(tail))
    points = torch.arange(1, num_points + 1, dtype=tail.dtype, device=tail.device) - 0.5
    theta = (1 - (num_points / points).sqrt())[:, None] / (3 * _quartile(tail)) + 1 / tail[-1]  # (points, N)
    shape = torch.stack([torch.log1p(-t * tail).mean(0) for t in theta])
    profile = size * ((-theta / shape).log() - shape - 1)  # log likelihood of each theta
    best = (profile.softmax(0) * theta).sum(0)
    shape = torch.log1p(-best * tail).mean(0)
    return (size * shape + 10 * 0.5) / (size + 10), -shape / best  # ten observations' worth of shape 1/2


def _order_statistics(shape: Tensor, scale: Tensor, size: int) -> Tensor:
    """Quantiles (j - 1/2) / M of the generalized Pareto, (M, N), for shape and scale (N,)."""
    j = torch.arange(1, size + 1, dtype=shape.dtype, device=shape.device)[:, None]
    survival = torch.log1p(-(j - 0.5) / size)
    return scale * torch.where(shape == 0, -survival, torch.expm1(-shape * survival) / shape)


def _quartile(ascending: Tensor) -> Tensor:
    return ascending[int(len(ascending) / 4 + 0.5) - 1]


def _mostly_distinct(ascending: Tensor) -> Tensor:
    """Whether most of a datum's largest weights differ, (M, N) -> (N,): rounding makes few ties, discreteness many."""
    return (ascending.diff(dim=0) > 0).double().mean(0) > 0.5
