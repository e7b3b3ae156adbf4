r"""What particles leave behind, block after block of them: the log weights, and sums of everything else.

.. math:: S = \sum_b S_b + \sum_b k_b (\bar v_b - \bar v)^2

merges the squares about the means of blocks b of particles; sums of squares would cancel.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.pairs.terms import SiteTerms, sum_by_role

KEPT = 64  # summaries of blocks before they are merged into one


class Tally(NamedTuple):
    """What k particles of n data leave behind: tensors alone, as a graph may hold them; nats, float64.

    The rows of a summary are, by twos for log p(x|z) and for log q(z|x) - log p(z): their sums over particles, and
    their squares about the mean; by twos for log q(z|x) and for log p(z): the least, and the greatest; then what
    rounding can make of equal weights.
    """

    log_weight: Tensor  # (k, n)
    summary: Tensor  # (9, n)


class Moments(NamedTuple):
    """Of K draws of log p(x|z), and of log q(z|x) - log p(z)."""

    mean: Tensor  # (2, n), nats
    se: Tensor  # (2, n): sd over particles / sqrt(K); NaN for K = 1


def tally(sites: SiteTerms) -> Tally:
    """Sums up the tables of k particles, (k, n) for each site."""
    terms = sum_by_role(sites)
    reconstruction, log_prior, log_guide = (term.double() for term in terms)
    (total, squares), (total_kl, squares_kl) = moments(reconstruction), moments(log_guide - log_prior)
    low, high = (log_guide.amin(0), log_prior.amin(0)), (log_guide.amax(0), log_prior.amax(0))
    rows = total, total_kl, squares, squares_kl, *low, *high, terms.resolution
    return Tally(terms.log_weight, torch.stack(rows))


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over particles, and the sum of squares about their mean: (k, ...) -> twice (...)."""
    total = values.sum(0)
    return total, (values - total / len(values)).square().sum(0)


def merged(counts: Sequence[int], totals: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """The :func:`moments` of all particles from those of B blocks of them, (B, ...) each."""
    of_each = torch.tensor(counts, device=totals.device).double().view(-1, *[1] * (totals.dim() - 1))
    total = totals.sum(0)
    return total, squares.sum(0) + (of_each * (totals / of_each - total / sum(counts)).square()).sum(0)


def mean_and_error(num_particles: int, total: Tensor, squares: Tensor) -> Moments:
    """Mean over particles and its standard error, from their :func:`moments`."""
    variance = squares / (num_particles - 1) if num_particles > 1 else torch.full_like(squares, math.nan)
    return Moments(total / num_particles, (variance / num_particles).sqrt())


class Totals:
    """The tallies of K particles of n data, taken in one after the other.

    Attributes:
        log_weight: (K, n), filled up to :attr:`count`.
    """

    def __init__(self, num_particles: int, num_data: int) -> None:
        self.log_weight = torch.empty(num_particles, num_data, dtype=torch.float64)
        self.counts, self.summaries = list[int](), list[Tensor]()

    def add(self, part: Tally) -> None:
        """Takes in k more particles; what ``part`` holds may be overwritten afterwards."""
        start = self.count
        self.log_weight[start : start + len(part.log_weight)] = part.log_weight
        self.counts.append(len(part.log_weight))
        self.summaries.append(part.summary.clone())
        if len(self.summaries) == KEPT:
            self.merge()

    @property
    def count(self) -> int:
        """Particles so far."""
        return sum(self.counts)

    def merge(self) -> Tensor:
        """Makes the summaries one, (9, n), of all particles so far."""
        if len(self.summaries) > 1:
            rows = torch.stack(self.summaries)
            moments = merged(self.counts, rows[:, :2], rows[:, 2:4])
            whole = torch.cat([*moments, rows[:, 4:6].amin(0), rows[:, 6:8].amax(0), rows[:, 8:].amax(0)])
            self.counts, self.summaries = [self.count], [whole]
        return self.summaries[0]

    @property
    def terms(self) -> Moments:
        """Of log p(x|z) and of log q(z|x) - log p(z), (2, n)."""
        return mean_and_error(self.count, *self.merge()[:4].split(2))

    @property
    def resolution(self) -> Tensor:
        """(n,) nats, what rounding can make of equal weights."""
        return self.merge()[8]

    @property
    def resolution_of_distinct(self) -> Tensor:
        """(n,) nats; NaN where neither log q nor log p(z) differs between draws: all may be one and the same value."""
        low, high = self.merge()[4:8].split(2)
        return torch.where((high - low > self.resolution).any(0), self.resolution, math.nan)
