r"""Densities rounded to whole numbers 0..L - 1, as pixels are, the tails added to both ends.

.. math:: p(x) = F(b) - F(a), \qquad a, b = (x \mp \tfrac12 - m) / s

Of logistics the difference is a product that loses no digit in any tail, where it would be zero (Kingma et al. 2016;
Salimans et al. 2017): sigma(b) sigma(-a) (1 - exp(a - b)). Of others log F is taken on the side where it is small.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import Categorical, constraints
from torch.nn.functional import logsigmoid

from pyrovae.programs.distributions.elementwise import Elementwise


class DiscretisedLogistic(Elementwise):
    """A mixture of C logistics, rounded to 0..L - 1.

    Args:
        num_levels: L.
        logits: of the components, (..., C).
        loc: m, (..., C).
        scale: s > 0, (..., C).

    References:
        Salimans, Karpathy, Chen & Kingma (2017), PixelCNN++, arXiv:1701.05517.

    Example:
        >>> one = torch.zeros(1)
        >>> DiscretisedLogistic(2, one, one + 0.5, one + 1.0).log_prob(torch.arange(2)).exp()
        tensor([0.5000, 0.5000])
    """

    names: ClassVar = ("logits", "loc", "scale")

    def __init__(
        self, num_levels: int, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        self.num_levels = num_levels
        super().__init__(logits, loc, scale, validate_args=validate_args)
        self._batch_shape = self.loc.shape[:-1]

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(Size([*batch_shape, self.loc.shape[-1]]), _instance)
        new._batch_shape = Size(batch_shape)
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.num_levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the batch."""
        x = self._checked(value)[..., None]
        below, above = (x - 0.5 - self.loc) / self.scale, (x + 0.5 - self.loc) / self.scale
        within = torch.log(-torch.expm1(-1 / self.scale))
        lowest, highest = x <= 0, x >= self.num_levels - 1
        left = torch.where(highest, 0.0, logsigmoid(above))
        right = torch.where(lowest, 0.0, logsigmoid(-below))
        each = left + right + torch.where(lowest | highest, 0.0, within)
        return (self.logits.log_softmax(-1) + each).logsumexp(-1)

    def _tail(self, level: Tensor) -> Tensor:
        """P(x >= level) of each component, (M, ..., C)."""
        return ((self.loc - level.reshape(-1, *[1] * self.loc.dim()) + 0.5) / self.scale).sigmoid()

    @property
    def mean(self) -> Tensor:
        levels = torch.arange(1, self.num_levels, dtype=self.loc.dtype, device=self.loc.device)
        each = sum(self._tail(level).sum(0) for level in levels.split(16))
        return (self.logits.softmax(-1) * each).sum(-1)

    @property
    def variance(self) -> Tensor:
        levels = torch.arange(1, self.num_levels, dtype=self.loc.dtype, device=self.loc.device)
        shape = (-1, *[1] * self.loc.dim())
        square = sum(((2 * level - 1).reshape(shape) * self._tail(level)).sum(0) for level in levels.split(16))
        return (self.logits.softmax(-1) * square).sum(-1) - self.mean.square()

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = Size([*sample_shape, *self.loc.shape])
        chosen = Categorical(logits=self.logits.expand(shape)).sample()[..., None]
        loc, scale = (each.expand(shape).gather(-1, chosen).squeeze(-1) for each in (self.loc, self.scale))
        drawn = loc + scale * torch.logit(torch.rand_like(loc), eps=torch.finfo(loc.dtype).eps)
        return drawn.round().clamp(0, self.num_levels - 1)


def _log_cdf_of_laplace(x: Tensor) -> Tensor:
    below = x.clamp_max(0.0) - math.log(2)
    return torch.where(x < 0, below, torch.log1p(-(-x.clamp_min(0.0)).exp() / 2))


# Densities symmetric about loc -> log F of the one with loc 0 and scale 1.
LOG_CDF: dict[type, Callable[[Tensor], Tensor]] = {
    dist.Normal: torch.special.log_ndtr,
    dist.Logistic: logsigmoid,
    dist.Laplace: _log_cdf_of_laplace,
}


class Binned(Elementwise):
    """The mass of the unit bin about a whole number 0..L - 1 under a symmetric density; the ends take what lies beyond.

    Args:
        kind: the class of the density, a key of ``LOG_CDF``.
        num_levels: L.
        loc: m, in the unit of the levels.
        scale: s > 0.

    Example:
        >>> Binned(dist.Normal, 3, torch.tensor(1.0), torch.tensor(0.5)).log_prob(torch.arange(3)).exp()
        tensor([0.1587, 0.6827, 0.1587])
    """

    names: ClassVar = ("loc", "scale")

    def __init__(
        self, kind: type, num_levels: int, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        self.kind, self.num_levels = kind, num_levels
        super().__init__(loc, scale, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.num_levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the batch."""
        x, log_cdf = self._checked(value), LOG_CDF[self.kind]
        below, above = (x - 0.5 - self.loc) / self.scale, (x + 0.5 - self.loc) / self.scale
        right = below + above > 0  # the mirrored bin has the same mass, and F is small there
        low, high = torch.where(right, -above, below), torch.where(right, -below, above)
        log_low, log_high = log_cdf(low), log_cdf(high)
        within = log_high + torch.log(-torch.expm1(log_low - log_high))
        ends = torch.where(x <= 0, log_cdf(above), log_cdf(-below))
        return torch.where((x <= 0) | (x >= self.num_levels - 1), ends, within)

    def _tails(self) -> Tensor:
        """P(x >= level) of the levels 1..L - 1, (L - 1, ...)."""
        level = torch.arange(1, self.num_levels, dtype=self.loc.dtype, device=self.loc.device)
        return LOG_CDF[self.kind]((self.loc - level.reshape(-1, *[1] * self.loc.dim()) + 0.5) / self.scale).exp()

    @property
    def mean(self) -> Tensor:
        return self._tails().sum(0)

    @property
    def variance(self) -> Tensor:
        tails = self._tails()
        level = torch.arange(1, self.num_levels, dtype=tails.dtype, device=tails.device)
        return torch.tensordot(2 * level - 1, tails, 1) - tails.sum(0).square()

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.kind(self.loc, self.scale).sample(Size(sample_shape)).round().clamp(0, self.num_levels - 1)
