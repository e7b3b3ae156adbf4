r"""salt_and_pepper(): each pixel is kept, or with a small probability replaced by the lowest or the highest value.

.. math:: p(y \mid z) = (1 - r) \, p_x(y \mid z) + \tfrac r2 [y = \text{low}] + \tfrac r2 [y = \text{high}]

For counts, both terms are masses, and a pixel at an extreme may be clean. A density gives no mass to any one value: a
pixel at an extreme is a replaced one, and all others are clean; log p(y | z) then is a density of these and a mass of
which they are.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.entries import Completed
from pyrovae.pairs.operators.operator import Operator, sizes
from pyrovae.pairs.supports import base_measure, layers, support_of
from pyrovae.pairs.traces import family


class Impulses(TorchDistribution):
    """Pixels of a distribution that are replaced by ``low`` or ``high`` with probability ``rate``."""

    arg_constraints: Any = {}  # noqa: RUF012

    def __init__(self, base: Any, rate: float, low: float, high: float) -> None:
        self.base, self.rate, self.low, self.high = base, rate, low, high
        self.is_mass = base_measure(base) == "mass"
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """That of clean pixels."""
        return support_of(self.base)

    @property
    def mean(self) -> Tensor:
        """Of a pixel as it is observed."""
        return (1 - self.rate) * self.base.mean + self.rate * (self.low + self.high) / 2

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Impulses":
        return Impulses(self.base.expand(batch_shape), self.rate, self.low, self.high)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        clean = self.base.sample(sample_shape)
        return corrupted_by(clean, self.rate, self.low, self.high, None)

    def at_extreme(self, value: Tensor) -> Tensor:
        """Where pixels have one of the two values."""
        return (value == self.low) | (value == self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass, or density, of each pixel in nats."""
        extreme, replaced = self.at_extreme(value), math.log(self.rate / 2)
        if not self.is_mass:
            inside = self.base.log_prob(torch.where(extreme, self.base.mean.detach(), value))
            return torch.where(extreme, replaced, math.log1p(-self.rate) + inside)
        clean = math.log1p(-self.rate) + self.base.log_prob(value)
        return torch.where(extreme, torch.logaddexp(clean, torch.full_like(clean, replaced)), clean)

    def log_clean(self, value: Tensor) -> Tensor:
        """The log probability that a pixel was not replaced, given its value."""
        extreme = self.at_extreme(value)
        if not self.is_mass:
            return torch.where(extreme, -math.inf, 0.0).to(value)
        found = math.log1p(-self.rate) + self.base.log_prob(value) - self.log_prob(value)
        return torch.where(extreme, found, 0.0)

    def restored(self, value: Tensor) -> Completed:
        """Draws and moments of clean pixels given these."""
        kept = self.log_clean(value).exp()
        drawn, expected, spread = self.base.sample(), self.base.mean, self.base.variance
        drawn = torch.where(torch.rand_like(kept) < kept, value, drawn.to(value.dtype))
        mean = kept * value + (1 - kept) * expected
        variance = kept * (value - mean).square() + (1 - kept) * (spread + (expected - mean).square())
        return Completed(drawn, mean, variance)


def corrupted_by(x: Tensor, rate: float, low: float, high: float, generator: torch.Generator | None) -> Tensor:
    """Data with pixels replaced."""
    number = torch.rand(x.shape, generator=generator).to(x.device)
    return torch.where(number < rate / 2, low, torch.where(number < rate, high, x)).to(x.dtype)


@checked
def salt_and_pepper(shape: Sequence[int], rate: float = 0.1, low: float = 0.0, high: float = 1.0) -> Operator:
    """Observes each pixel, or with probability ``rate`` one of the two extremes in its place.

    Args:
        shape: of x.
        rate: fraction of pixels that are replaced, half by each extreme, in (0, 1).
        low: what replaces, as 0.
        high: what replaces, as 1, or 16 for counts to 16.

    Raises:
        InputError: for a rate outside of (0, 1), or two equal extremes; when it is used, for a likelihood of pixels
            that depend on each other, and for an extreme that no pixel of a mass can be.

    Example:
        >>> y = salt_and_pepper((1000,), 0.2, -1.0, 1.0).apply(torch.zeros(1, 1000))
        >>> 150 < int((y != 0).sum()) < 250
        True
    """
    of_x = sizes(tuple(shape))
    if not 0 < rate < 1 or not low < high:
        raise InputError(f"salt and pepper: expected a rate in (0, 1) and low < high, got {rate}, {low} and {high}")
    return _SaltAndPepper(of_x, rate, low, high).operator()


class _SaltAndPepper:
    def __init__(self, shape: Size, rate: float, low: float, high: float) -> None:
        self.shape, self.rate, self.low, self.high = shape, rate, low, high

    def operator(self) -> Operator:
        return Operator(
            f"salt and pepper {self.rate:g}",
            self.shape,
            self.shape,
            draw=lambda x, generator: corrupted_by(x, self.rate, self.low, self.high, generator),
            observe=lambda fn: self._pixels(fn).to_event(len(fn.event_shape)),
            restore=lambda fn, y: self._pixels(fn).restored(y),
            log_likelihood=self.log_likelihood,
            fill=lambda y: y,
            num_hidden=lambda y: self._extreme(y).flatten(1).sum(1).double(),
        )

    def _extreme(self, y: Tensor) -> Tensor:
        return (y == self.low) | (y == self.high)

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        """Of clean pixels and of replaced ones; a clean extreme counts both ways, where it may be one."""
        replaced, kept = (self.rate / 2) * self._extreme(y).to(x), (1 - self.rate) * (y == x).to(x)
        return (replaced + kept).log().flatten(1).sum(1)

    def _pixels(self, fn: Any) -> Impulses:
        nested = layers(fn)
        base = nested[-1]
        if base.event_shape or len(nested) > 2 or len(nested[0].event_shape) == 0:
            raise InputError(
                "salt and pepper: a closed form needs pixels that are independent given z, the likelihood is "
                f"{family(fn)}"
            )
        found = Impulses(base, self.rate, self.low, self.high)
        ends = base.mean.new_tensor([self.low, self.high])
        if found.is_mass and not all(bool(support_of(base).check(end.expand(base.mean.shape)).all()) for end in ends):
            raise InputError(
                f"salt and pepper: {family(fn)} pixels are never {self.low:g} or never {self.high:g}: give low= and "
                "high= among their values"
            )
        return found
