r"""What particles leave behind, block after block of them: means as they come, and of everything else the log weights.

.. math:: S = S_a + S_b + (\bar v_a - \bar v_b)^2 \frac{k_a k_b}{k_a + k_b}

merges the squares about the means of two blocks of particles; sums of squares would cancel.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.inference.terms import SiteTerms, sum_by_role


class Tally(NamedTuple):
    """What k particles of n data leave behind: tensors alone, as a graph may hold them; nats, float64.

    The two rows of moments are those of log p(x|z) and of log q(z|x) - log p(z).
    """

    log_weight: Tensor  # (k, n)
    total: Tensor  # (2, n), over particles
    squares: Tensor  # (2, n), about the mean over particles
    resolution: Tensor  # (n,): what rounding can make of equal weights
    low: Tensor  # (2, n): the least log q(z|x) and log p(z)
    high: Tensor  # (2, n): the greatest


def tally(sites: SiteTerms) -> Tally:
    """Sums up the tables of k particles, (k, n) for each site."""
    terms = sum_by_role(sites)
    reconstruction, log_prior, log_guide = (term.double() for term in terms)
    each = moments(reconstruction), moments(log_guide - log_prior)
    total, squares = (torch.stack(moment) for moment in zip(*each, strict=True))
    low, high = torch.stack([log_guide.amin(0), log_prior.amin(0)]), torch.stack([log_guide.amax(0), log_prior.amax(0)])
    return Tally(terms.log_weight, total, squares, terms.resolution, low, high)


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over particles, and the sum of squares about their mean: (k, ...) -> twice (...)."""
    total = values.sum(0)
    return total, (values - total / len(values)).square().sum(0)


class RunningMean:
    """Mean over particles and its standard error, from one block of particles after another; it keeps no table."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, count: int, total: Tensor, squares: Tensor) -> None:
        """Takes in the :func:`moments` of so many more particles."""
        if self.count:
            gap = total / count - self.mean
            squares = squares + gap.square() * (count * self.count / (count + self.count))
        self.count, self.total, self.squares = self.count + count, self.total + total, self.squares + squares

    @property
    def mean(self) -> Tensor:
        """(...), float64."""
        return self.total / self.count

    @property
    def se(self) -> Tensor:
        """sd over particles / sqrt(K), (...); NaN for K = 1."""
        return (self.squares / (self.count - 1) / self.count).sqrt()


class Totals:
    """The tallies of K particles of n data, taken in one after the other.

    Attributes:
        log_weight: (K, n), filled up to ``terms.count``.
        terms: of log p(x|z) and of log q(z|x) - log p(z), (2, n).
        resolution: (n,) nats, what rounding can make of equal weights.
    """

    def __init__(self, num_particles: int, num_data: int) -> None:
        self.log_weight = torch.empty(num_particles, num_data, dtype=torch.float64)
        self.terms, self.resolution = RunningMean(), torch.zeros(())
        self.low, self.high = torch.tensor(math.inf), torch.tensor(-math.inf)

    def add(self, part: Tally) -> None:
        """Takes in k more particles; what ``part`` holds may be overwritten afterwards."""
        start, count = self.terms.count, len(part.log_weight)
        self.log_weight[start : start + count] = part.log_weight
        self.terms.add(count, part.total, part.squares)
        self.resolution = torch.maximum(self.resolution, part.resolution)
        self.low, self.high = torch.minimum(self.low, part.low), torch.maximum(self.high, part.high)

    @property
    def resolution_of_distinct(self) -> Tensor:
        """(n,) nats; NaN where neither log q nor log p(z) differs between draws: all may be one and the same value."""
        differ = (self.high - self.low > self.resolution).any(0)
        return torch.where(differ, self.resolution, math.nan)
