"""Distributions of whole events: normals of low rank, counts that share a total, rows whose columns are unlike."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints


def _flat(value: Tensor, event_dim: int) -> Tensor:
    """With one dimension in place of those of an event."""
    return value.reshape(*value.shape[: value.dim() - event_dim], -1)


class LowRankNormal(dist.TorchDistribution):
    """A normal whose covariance is that of a few factors and of each element's own noise; events of any shape.

    Args:
        loc: (..., *event).
        factor: (..., D, R), D the number of elements of an event.
        scale: (..., *event), of each element's own noise.
        event_dim: dimensions of an event.
    """

    arg_constraints: ClassVar = {}
    has_rsample = True

    def __init__(
        self, loc: Tensor, factor: Tensor, scale: Tensor, event_dim: int, validate_args: bool | None = None
    ) -> None:
        event = loc.shape[loc.dim() - event_dim :]
        batch = loc.shape[: loc.dim() - event_dim]
        square = _flat(scale, event_dim).square()
        self.flat = dist.LowRankMultivariateNormal(_flat(loc, event_dim), factor, square, validate_args=False)
        super().__init__(batch, event, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.flat = self.flat.expand(batch_shape)
        super(LowRankNormal, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def with_parts(self, change: Callable[[Any], Any]) -> "LowRankNormal":
        """The same of the normal over vectors that a function of it gives."""
        new = self.expand(self.batch_shape)
        new.flat = change(new.flat)
        return new

    @property
    def mean(self) -> Tensor:
        return self.flat.mean.reshape(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        return self.flat.variance.reshape(self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        own, (loc, factor, square) = self.flat, (each.double() for each in self._parameters)
        # What the factors explain is a difference of large squares, of which float32 keeps a tenth of a nat.
        double = dist.LowRankMultivariateNormal(loc, factor, square, validate_args=False)
        return double.log_prob(_flat(value, len(self.event_shape)).double()).to(own.loc.dtype)

    @property
    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.flat.loc, self.flat.cov_factor, self.flat.cov_diag

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.flat.rsample(Size(sample_shape)).reshape(self._extended_shape(sample_shape))


class Multinomial(dist.TorchDistribution):
    r"""Counts of the elements of an event, given their total: each event is scored by its own, as documents are.

    .. math:: \log p(x \mid \textstyle\sum x) = \log \Gamma(1 + \sum_d x_d) - \sum_d \log x_d! + \sum_d x_d \log \pi_d

    Args:
        total_count: of the events that are drawn.
        logits: of pi, (..., *event).
        event_dim: dimensions of an event.

    Example:
        >>> Multinomial(2, torch.zeros(2), 1).log_prob(torch.tensor([[2, 0], [1, 1], [0, 2]])).exp()
        tensor([0.2500, 0.5000, 0.2500])
    """

    arg_constraints: ClassVar = {}

    def __init__(self, total_count: int, logits: Tensor, event_dim: int, validate_args: bool | None = None) -> None:
        event = logits.shape[logits.dim() - event_dim :]
        self.total_count, self.log_pi = total_count, _flat(logits, event_dim).log_softmax(-1)
        super().__init__(logits.shape[: logits.dim() - event_dim], event, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.nonnegative_integer, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.total_count, new.log_pi = self.total_count, self.log_pi.expand(*batch_shape, -1)
        super(Multinomial, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return (self.total_count * self.log_pi.exp()).reshape(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        pi = self.log_pi.exp()
        return (self.total_count * pi * (1 - pi)).reshape(self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass given the total, in nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        x = _flat(value, len(self.event_shape)).to(self.log_pi.dtype)
        total, parts = x.double().sum(-1, keepdim=True), x.double()
        # About the fractions that the event has itself: large counts would cancel, and float32 lose them.
        log_fraction = torch.where(parts > 0, parts, 1.0).log() - total.clamp_min(1.0).log()
        about = torch.lgamma(total[..., 0] + 1) + (parts * log_fraction - torch.lgamma(parts + 1)).sum(-1)
        return about.to(x.dtype) + (x * (self.log_pi - log_fraction.to(x.dtype))).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        pi = self.log_pi.exp().expand(*sample_shape, *self.log_pi.shape)
        rows = pi.reshape(-1, pi.shape[-1])
        drawn = torch.multinomial(rows, self.total_count, replacement=True)
        counts = torch.zeros_like(rows).scatter_add_(-1, drawn, torch.ones_like(drawn, dtype=rows.dtype))
        return counts.reshape(self._extended_shape(sample_shape))


class Columns(constraints.Constraint):
    """Rows some of whose columns satisfy one constraint, and some another.

    Args:
        parts: constraints of events of one dimension, and the columns that they hold for.
    """

    event_dim = 1

    def __init__(self, parts: Sequence[tuple[Any, Sequence[int]]]) -> None:
        self.parts = parts
        self.is_discrete = any(constraint.is_discrete for constraint, _ in parts)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return torch.stack([constraint.check(value[..., columns]) for constraint, columns in self.parts]).all(0)


class MixedColumns(dist.TorchDistribution):
    """Rows whose columns have unlike distributions, independent given the parameters.

    Args:
        parts: one for each run of columns, events of one dimension.
        columns: of each part, the places of its columns in a row.
        names: of the parts.
    """

    arg_constraints: ClassVar = {}

    def __init__(
        self,
        parts: Sequence[dist.TorchDistribution],
        columns: Sequence[Sequence[int]],
        names: Sequence[str] = (),
        validate_args: bool | None = None,
    ) -> None:
        self.parts, self.columns = list(parts), [list(each) for each in columns]
        self.names = list(names) or [str(number) for number in range(len(self.parts))]
        size = sum(len(each) for each in columns)
        super().__init__(self.parts[0].batch_shape, Size([size]), validate_args=validate_args)

    @constraints.dependent_property(event_dim=1)
    def support(self) -> constraints.Constraint:
        """Of each column its own."""
        return Columns([(part.support, places) for part, places in zip(self.parts, self.columns, strict=True)])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.parts, new.columns = [part.expand(batch_shape) for part in self.parts], self.columns
        new.names = self.names
        super(MixedColumns, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Values of the parts as rows."""
        order = torch.tensor([place for places in self.columns for place in places]).argsort()
        return torch.cat(list(parts), -1)[..., order.to(parts[0].device)]

    @property
    def mean(self) -> Tensor:
        return self._joined([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._joined([part.variance for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of a row, masses of its discrete columns included: nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        pairs = zip(self.parts, self.columns, strict=True)
        return torch.stack(torch.broadcast_tensors(*(part.log_prob(value[..., places]) for part, places in pairs))).sum(
            0
        )

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = [part.sample(Size(sample_shape)) for part in self.parts]
        dtype = torch.promote_types(drawn[0].dtype, torch.get_default_dtype())
        return self._joined([each.to(dtype) for each in drawn])
