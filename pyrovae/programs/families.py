"""Families: parameters -> Distribution. A likelihood and a variational family are the same kind of thing.

A family says which parameters a network must produce for one datum, and builds the distribution from them.
A user's own family is a few lines: ``Family("laplace", lambda shape: (shape, shape), build)``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, softplus

SCALE_FLOOR = 1e-4


@dataclass(frozen=True)
class Family:
    """A named map from parameters to a distribution over one datum.

    Args:
        name: what reports call it, with its constants: ``"binomial(16)"``.
        shapes: event shape -> shapes of the parameters that a network produces for one datum.
        build: ``(event_dim, *parameters, *free) -> Distribution``, with the last ``event_dim`` dimensions an
            event; parameter i has shape ``(..., *shapes(event_shape)[i])``.
        free: initial values of parameters learned without a network, shared by all data.
    """

    name: str
    shapes: Callable[[Size], tuple[Size, ...]]
    build: Callable[..., dist.TorchDistribution]
    free: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Learned:
    """A positive parameter learned as one tensor for all data; made by :func:`learned`."""

    initial: Tensor


def learned(initial: float | Tensor) -> Learned:
    """A positive parameter that is learned, not predicted: a number (one for all pixels) or a tensor (each its own).

    Example:
        >>> normal(scale=learned(0.5)).name  # probabilistic PCA has this noise
        'normal(scale learned)'
    """
    return Learned(torch.as_tensor(initial, dtype=torch.get_default_dtype()))


def positive(raw: Tensor) -> Tensor:
    """Real -> positive: softplus with a floor of 1e-4, below which a density could run away on constant data."""
    return softplus(raw) + SCALE_FLOOR


def positive_inverse(value: Tensor) -> Tensor:
    """The raw number whose :func:`positive` is ``value``; values below the floor are taken at it."""
    value = (value - SCALE_FLOOR).clamp_min(torch.finfo(value.dtype).tiny)
    return value + torch.log(-torch.expm1(-value))


def _same(event_shape: Size) -> tuple[Size, ...]:
    return (event_shape,)


def bernoulli() -> Family:
    """Binary data in {0, 1}, from logits. A mass; the values between 0 and 1 are outside its support."""
    return Family("bernoulli", _same, lambda d, logits: dist.Bernoulli(logits=logits).to_event(d))


def continuous_bernoulli() -> Family:
    """Data in [0, 1], from logits, with its normalizer (Loaiza-Ganem & Cunningham 2019). A density."""
    return Family("continuous_bernoulli", _same, lambda d, logits: dist.ContinuousBernoulli(logits=logits).to_event(d))


def binomial(total_count: int) -> Family:
    """Counts 0..total_count, from logits: total_count independent trials for each element. A mass."""
    if total_count < 1:
        raise ValueError(f"binomial needs a total_count of at least 1, got {total_count}")
    return Family(f"binomial({total_count})", _same, lambda d, logits: Binomial(total_count, logits).to_event(d))


def poisson() -> Family:
    """Counts 0, 1, 2, ..., from log rates. A mass."""
    return Family("poisson", _same, lambda d, log_rate: dist.Poisson(log_rate.exp()).to_event(d))


def categorical(num_classes: int) -> Family:
    """Classes 0..num_classes-1, from logits. A mass; as a latent it is drawn by the guide, not enumerated."""
    if num_classes < 2:
        raise ValueError(f"categorical needs at least 2 classes, got {num_classes}")
    return Family(
        f"categorical({num_classes})",
        lambda event_shape: (Size([*event_shape, num_classes]),),
        lambda d, logits: dist.Categorical(logits=logits).to_event(d),
    )


def normal(*, scale: float | Learned | None = None) -> Family:
    """Real data. The scale is predicted beside the mean (default), fixed (a number) or :func:`learned`.

    A density: its value depends on the unit of the data (see the log Jacobian of a data protocol).
    """
    if scale is None:
        return Family(
            "normal",
            lambda event_shape: (event_shape, event_shape),
            lambda d, loc, raw: dist.Normal(loc, positive(raw)).to_event(d),
        )
    if isinstance(scale, Learned):
        return Family(
            "normal(scale learned)",
            _same,
            lambda d, loc, raw: dist.Normal(loc, positive(raw)).to_event(d),
            free=(positive_inverse(scale.initial),),
        )
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"normal needs a positive scale, got {scale}")
    return Family(f"normal(scale={scale:g})", _same, lambda d, loc: dist.Normal(loc, scale).to_event(d))


class Binomial(dist.TorchDistribution):
    r"""Binomial from logits with a fixed number of trials; its coefficient is computed from the data alone.

    .. math:: \log p(x) = \log\tbinom{n}{x} + x \log\sigma(\ell) + (n - x) \log\sigma(-\ell)

    torch's own computes the coefficient again for every particle and takes a third longer for it.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    has_enumerate_support = False

    def __init__(self, total_count: int, logits: Tensor, validate_args: bool | None = None) -> None:
        self.total_count, self.logits = total_count, logits
        super().__init__(logits.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """Expected count, of the shape of the logits."""
        return self.total_count * self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        """Variance of the count, of the shape of the logits."""
        return self.mean * (-self.logits).sigmoid()

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Binomial":
        new = self._get_checked_instance(Binomial, _instance)
        new.total_count, new.logits = self.total_count, self.logits.expand(batch_shape)
        super(Binomial, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of shape ``sample_shape + logits.shape``."""
        shape = self._extended_shape(Size(sample_shape))
        with torch.no_grad():
            count = torch.full_like(self.logits, self.total_count).expand(shape)
            return torch.binomial(count.contiguous(), self.logits.sigmoid().expand(shape).contiguous())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the logits."""
        if self._validate_args:
            self._validate_sample(value)
        n, value = self.total_count, value.to(self.logits.dtype)
        coefficient = math.lgamma(n + 1) - torch.lgamma(value + 1) - torch.lgamma(n + 1 - value)
        return coefficient + value * self.logits + n * logsigmoid(-self.logits)
