r"""The exemplar prior: a mixture of equal normals about the encoder's means at the training data themselves.

.. math:: p(z) = \frac1M \sum_{j=1}^M N(z; \mu(x_j), \sigma^2 I), \qquad
    p(z_n \mid x_{-n}) = \frac{1}{M - 1} \sum_{j \ne n} N(z_n; \mu(x_j), \sigma^2 I)

The first is the prior, with a learned sigma. The second, without the datum itself, is what it is trained by: a datum
that may be its own exemplar draws sigma to zero.
"""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.families.family import positive, positive_inverse
from pyrovae.programs.parameters import seeded


class ExemplarPrior(nn.Module):
    """A mixture of the encoder's means at the training data, of one scale that is learned from 1 on.

    While it trains, the encoder's last batch tells whose prior is asked for: what the encoder reads in one call is
    left out of the mixture in the next call of the prior, row by row, all its duplicates too. In eval mode all
    exemplars count, and their means are kept until the encoder's weights change: no gradient reaches these there.

    Args:
        num_latents: dimensions of z.
        num_exemplars: drawn anew for each batch while it trains, where there are more rows: the bound is then, on
            average, lower. None takes all, as evaluation does.
        encoder: x -> Distribution with a mean, the guide's own network: a module.
        rows: the training data, (N, *shape), at least two: a split or a tensor. Of data that are drawn anew at each
            use (dynamic binarization), the first draws are the exemplars, and a datum's own is that of the row by
            which it is most likely: for 8 x 8 bits right three times in four.
        seed: of the first draws.

    Raises:
        InputError: for fewer than two rows or an encoder that is no module; when called, if the encoder's
            distribution has no mean, or one of another shape.

    References:
        Norouzi, Fleet and Norouzi (2020), Exemplar VAE, arXiv:2004.04795.
    """

    def __init__(
        self,
        num_latents: int,
        *,
        num_exemplars: int | None = None,
        encoder: nn.Module,
        rows: Any,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents, num_exemplars=1 if num_exemplars is None else num_exemplars)
        if not isinstance(encoder, nn.Module):
            raise InputError("the exemplar prior leaves out what its encoder reads: the encoder must be a module")
        if len(rows) < 2:
            raise InputError(f"the exemplar prior needs at least two rows of data, got {len(rows)}")
        self.num_latents, self.num_exemplars = num_latents, min(num_exemplars or len(rows), len(rows))
        with seeded(seed):
            exemplars, self.own = _read(rows)
        self.exemplars = nn.Buffer(exemplars, persistent=False)
        self.raw_scale = nn.Parameter(positive_inverse(torch.ones(())))
        self._encoder = (encoder,)  # of the guide, which has its weights among its own
        self._seen: Tensor | None = None  # what the encoder read last, while the prior trains
        self._is_own_call = False
        self._kept: tuple[list[Tensor], Tensor] | None = None  # the encoder's state, and the means of all exemplars
        encoder.register_forward_hook(self._keep)

    def forward(self) -> dist.TorchDistribution:
        batch, self._seen = self._seen, None
        if not self.training:
            return Kernels(self._kept_means(), positive(self.raw_scale))
        chosen = None
        if self.num_exemplars < len(self.exemplars):
            chosen = torch.randint(len(self.exemplars), (self.num_exemplars,), device=self.exemplars.device)
        exemplars = self.exemplars if chosen is None else self.exemplars[chosen]
        left_out = None if batch is None else self._own(batch, chosen)
        return Kernels(self._means(exemplars), positive(self.raw_scale), left_out)

    def _kept_means(self) -> Tensor:
        """Of all exemplars: found anew where the encoder has other weights than when they were found last."""
        if self._kept is not None and get_proxy_mode() is not None:  # what is traced was run before
            return self._kept[1]
        state = [each.detach() for each in (*self._encoder[0].parameters(), *self._encoder[0].buffers())]
        if self._kept is None or not all(map(_equal, self._kept[0], state)):
            with torch.no_grad():
                self._kept = [each.clone() for each in state], self._means(self.exemplars)
        return self._kept[1]

    def _means(self, exemplars: Tensor) -> Tensor:
        self._is_own_call = True
        try:
            posterior = self._encoder[0](exemplars)
        finally:
            self._is_own_call = False
        try:
            means = posterior.mean
        except NotImplementedError:
            means = None
        if means is None or means.shape[1:] != (self.num_latents,):
            raise InputError(
                f"the exemplar prior is over {self.num_latents} latents, about the means of its encoder's posteriors; "
                f"{type(posterior).__name__} of event shape {tuple(posterior.event_shape)} has no such mean"
            )
        return means

    def _keep(self, module: nn.Module, given: Any, result: Any) -> None:
        if self.training and not self._is_own_call:
            self._seen = given[0].detach()

    def _own(self, batch: Tensor, chosen: Tensor | None) -> Tensor:
        """Which exemplars are a datum's own, (n, M): at least one is left."""
        own = self.own(batch)
        own = own if chosen is None else own[:, chosen]
        return own & ~own.all(-1, keepdim=True)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


class Fingerprints(nn.Module):
    """One number for each of some rows, another for each other row; it finds rows among them.

    It is kept as whole numbers, the bits of doubles, which no cast of a module to another dtype rounds.

    Args:
        rows: (M, *shape).
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        flat = _numbers(rows)
        weights = torch.randn(flat.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        number = flat @ weights.to(rows.device)
        self.weights = nn.Buffer(weights.to(rows.device).view(torch.int64), persistent=False)
        self.numbers = nn.Buffer(number.view(torch.int64), persistent=False)
        self.tolerance = 1e-11 * float(number.abs().max())

    def forward(self, batch: Tensor) -> Tensor:
        """(n, *shape) -> which of the rows is this one, (n, M)."""
        number = _numbers(batch) @ self.weights.view(torch.float64)
        return (number[:, None] - self.numbers.view(torch.float64)).abs() <= self.tolerance


def _numbers(rows: Tensor) -> Tensor:
    """(n, *shape) -> (n, D), double; what is missing (NaN) is a number that hardly any entry is."""
    return rows.flatten(1).double().nan_to_num(-math.pi)


class MostLikely(nn.Module):
    """It finds the row whose probabilities of bits make a datum most likely, for bits that are drawn anew at each use.

    Args:
        probabilities: (M, *shape).
    """

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        flat = probabilities.flatten(1).clamp(1e-4, 1 - 1e-4)
        self.log_odds = nn.Buffer(flat.logit(), persistent=False)
        self.log_all_zero = nn.Buffer((1 - flat).log().sum(-1), persistent=False)

    def forward(self, batch: Tensor) -> Tensor:
        """(n, *shape) -> which of the rows is this one, (n, M)."""
        log_likelihood = batch.to(self.log_odds.dtype).flatten(1) @ self.log_odds.T + self.log_all_zero
        best = log_likelihood.argmax(-1, keepdim=True)
        return best == torch.arange(len(self.log_odds), device=batch.device)


class Kernels(dist.TorchDistribution):
    """A mixture of equal normals of one scale about M centres, some left out for some of the data.

    Args:
        centres: (M, D).
        scale: of each coordinate of each, a scalar.
        left_out: (n, M), true where a datum has not this centre; None where all have all.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector

    def __init__(
        self, centres: Tensor, scale: Tensor, left_out: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self.centres, self.scale, self.left_out = centres, scale, left_out
        batch = Size() if left_out is None else left_out.shape[:-1]
        super().__init__(batch, centres.shape[1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.centres, new.scale, new.left_out = self.centres, self.scale, self.left_out
        super(Kernels, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        middle, unit = self.centres.mean(0).detach(), math.sqrt(2) * self.scale  # about it squares lose no digits
        each = -_squared_distances((value - middle) / unit, (self.centres - middle) / unit)
        if self.left_out is not None:
            each = each.masked_fill(self.left_out, -math.inf)
        constant = value.shape[-1] * (self.scale.log() + 0.5 * math.log(2 * math.pi))
        log_prob = each.logsumexp(-1) - self._log_number - constant
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    @property
    def _log_number(self) -> Tensor | float:
        """Of the centres that a datum has, (n,) or one number."""
        if self.left_out is None:
            return math.log(len(self.centres))
        return (~self.left_out).sum(-1).to(self.scale.dtype).log()

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        if self.left_out is None:
            chosen = torch.randint(len(self.centres), shape[:-1], device=self.centres.device)
        else:
            chosen = dist.Categorical((~self.left_out).expand(*shape[:-1], -1).to(self.scale)).sample()
        centre = self.centres[chosen]
        return centre + self.scale * torch.randn_like(centre)


def _read(rows: Any) -> tuple[Tensor, nn.Module]:
    """All rows of a split, or of a tensor; and what finds a batch among them."""
    if isinstance(rows, Tensor):
        return _real(rows), Fingerprints(rows)
    found, *_ = rows.batch(slice(0, len(rows)))
    again, *_ = rows.batch(slice(0, len(rows)))
    return _real(found), Fingerprints(found) if torch.equal(found, again) else MostLikely(_real(rows.x))


def _real(rows: Tensor) -> Tensor:
    return rows.clone() if rows.is_floating_point() else rows.to(torch.get_default_dtype())


def _squared_distances(value: Tensor, centres: Tensor) -> Tensor:
    """(..., D), (M, D) -> (..., M), by one matrix product."""
    squares = value.square().sum(-1, keepdim=True) + centres.square().sum(-1)
    return squares - 2 * value @ centres.T
