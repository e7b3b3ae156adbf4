r"""Heads: the numbers that a network gives for one latent -> a distribution on the latent's own support.

A latent of the continuous kind is drawn in unconstrained space and moved by the bijection T of its support:

.. math:: z = T(c + s (m + L \epsilon)), \qquad \epsilon \sim N(0, I)

with the network's location m and lower triangular L (each row in the unit of its scale), and c and s, the centre and
spread of draws of the model, so that an untrained head draws where the prior does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.conditional import ConditionalTransform
from pyro.distributions.transforms import conditional_spline, conditional_spline_autoregressive
from torch import Size, Tensor, nn
from torch.distributions import constraints, transforms
from torch.nn.functional import one_hot, pad, softplus

from pyrovae.programs.distributions.transforms.bijections import Remembering, onto

CONTEXT = 16  # numbers by which a flow learns of the datum
LEAST_SCALE = 1e-5  # of a head, in spreads of the prior, which may be vague
FARTHEST = 30.0  # spreads from the centre: as far as a later head sees a value


class Head(nn.Module, ABC):
    """How one latent is drawn, and how later heads see what was drawn.

    Args:
        num_raw: numbers that a network gives for one place.
        num_linear: of them, the first ones that are linear in the data beside what hidden layers add.
        num_features: numbers by which a value is seen.
    """

    def __init__(self, num_raw: int, num_linear: int, num_features: int) -> None:
        super().__init__()
        self.num_raw, self.num_linear, self.num_features = num_raw, num_linear, num_features

    @abstractmethod
    def build(self, raw: Tensor) -> TorchDistribution:
        """(*batch, num_raw) -> a distribution of that batch shape."""

    @abstractmethod
    def features(self, value: Tensor) -> Tensor:
        """What was drawn, (*batch, *event) -> (*batch, num_features)."""


class Coins(Head):
    """Independent Bernoullis, for events of any shape."""

    def __init__(self, event_shape: Size) -> None:
        size = event_shape.numel()
        super().__init__(size, size, size)
        self.event_shape = event_shape

    def build(self, raw: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=_shaped(raw, self.event_shape)).to_event(len(self.event_shape))

    def features(self, value: Tensor) -> Tensor:
        return _flat(value, self.event_shape)


class Classes(Head):
    """Independent categories, for events of any shape; of one-hot events the last dimension holds the classes."""

    def __init__(self, event_shape: Size, num_classes: int, *, is_one_hot: bool) -> None:
        size = event_shape.numel() * (1 if is_one_hot else num_classes)
        super().__init__(size, size, size)
        self.event_shape, self.num_classes, self.is_one_hot = event_shape, num_classes, is_one_hot

    def build(self, raw: Tensor) -> TorchDistribution:
        if self.is_one_hot:
            logits = _shaped(raw, self.event_shape)
            return dist.OneHotCategorical(logits=logits).to_event(len(self.event_shape) - 1)
        logits = _shaped(raw, Size([*self.event_shape, self.num_classes]))
        return dist.Categorical(logits=logits).to_event(len(self.event_shape))

    def features(self, value: Tensor) -> Tensor:
        if self.is_one_hot:
            return _flat(value, self.event_shape)
        return _flat(one_hot(value, self.num_classes), Size([*self.event_shape, self.num_classes]))


class Angles(Head):
    """Independent von Mises, each by two numbers: concentration times cosine and sine of its direction."""

    def __init__(self, event_shape: Size) -> None:
        size = 2 * event_shape.numel()
        super().__init__(size, size, size)
        self.event_shape = event_shape

    def build(self, raw: Tensor) -> TorchDistribution:
        along, across = _shaped(raw, Size([*self.event_shape, 2])).unbind(-1)
        concentration = (along.square() + across.square() + 1e-6).sqrt()  # with a gradient at zero
        return dist.VonMises(torch.atan2(across, along), concentration).to_event(len(self.event_shape))

    def features(self, value: Tensor) -> Tensor:
        return torch.cat([_flat(value.cos(), self.event_shape), _flat(value.sin(), self.event_shape)], -1)


class Gaussian(Head):
    """A Gaussian in unconstrained space, or a flow from one, moved onto the support.

    Args:
        event_shape: of the latent.
        support: bounds -> the constraint of the latent; None for reals.
        bounds: of the support, where they are tensors.
        center: of the latent's coordinates in unconstrained space, (*plates, D).
        spread: likewise, above zero.
        covariance: "diagonal" or "full covariance" of the D coordinates, or "flow": a spline autoregressive flow,
            which the data condition, gives the noise that the full covariance moves.

    References:
        Dolatabadi, Erfani and Leckie (2020), Invertible generative modeling using linear rational splines.
        Kingma et al. (2016), Improved variational inference with inverse autoregressive flow.
    """

    def __init__(
        self,
        event_shape: Size,
        support: Callable[..., constraints.Constraint] | None,
        bounds: tuple[Tensor, ...],
        center: Tensor,
        spread: Tensor,
        covariance: str,
    ) -> None:
        size = center.shape[-1]
        is_full, is_flow = covariance != "diagonal" and size > 1, covariance == "flow"
        below = size * (size - 1) // 2 if is_full else 0
        super().__init__(2 * size + below + (CONTEXT if is_flow else 0), size, size)
        self.event_shape, self.support, self.size, self.is_full = event_shape, support, size, is_full
        self.center, self.spread = nn.Buffer(center), nn.Buffer(spread)
        self.num_bounds = len(bounds)
        for number, bound in enumerate(bounds):
            self.register_buffer(f"bound_{number}", bound)
        place = torch.full((size, size), below)  # where each entry below the diagonal stands; others are a zero
        rows, columns = torch.tril_indices(size, size, -1)
        place[rows, columns] = torch.arange(len(rows))
        self.place = nn.Buffer(place.flatten())
        self.flow = _flow(size) if is_flow else None

    def build(self, raw: Tensor) -> TorchDistribution:
        loc, scale, below, context = raw.split([self.size, self.size, self.num_raw_below, self.num_context], -1)
        loc, scale = self.center + self.spread * loc, softplus(scale) + LEAST_SCALE
        if self.is_full or self.flow is not None:
            base, moves = self._together(loc, self._lower(scale, below), context)
        else:
            base, moves = self._elementwise(loc, self.spread * scale)
        if self.support is not None:
            moves.append(self._move())
        return dist.TransformedDistribution(base, moves) if moves else base

    def features(self, value: Tensor) -> Tensor:
        real = value if self.support is None else self._move().inv(value)
        real = _flat(real, self._real_shape())
        return ((real - self.center) / self.spread).clamp(-FARTHEST, FARTHEST)

    @property
    def num_context(self) -> int:
        return 0 if self.flow is None else CONTEXT

    @property
    def num_raw_below(self) -> int:
        return self.num_raw - 2 * self.size - self.num_context

    def _move(self) -> transforms.Transform:
        bounds = (getattr(self, f"bound_{number}") for number in range(self.num_bounds))
        return onto(self.support(*bounds))  # type: ignore[misc]

    def _real_shape(self) -> Size:
        if self.support is None or self.num_bounds:  # which have plates, and so no shape of one event
            return self.event_shape
        return Size(self._move().inverse_shape(self.event_shape))

    def _elementwise(self, loc: Tensor, scale: Tensor) -> tuple[TorchDistribution, list]:
        shape = self._real_shape()
        return dist.Normal(_shaped(loc, shape), _shaped(scale, shape)).to_event(len(shape)), []

    def _lower(self, scale: Tensor, below: Tensor) -> Tensor:
        rest = pad(below, (0, 1))[..., self.place].unflatten(-1, (self.size, self.size))
        return (self.spread * scale)[..., None] * (rest + torch.ones_like(scale).diag_embed())

    def _together(self, loc: Tensor, lower: Tensor, context: Tensor) -> tuple[TorchDistribution, list]:
        # Moved noise, no MultivariateNormal: it remembers the noise of its own draws, which a solve would round.
        shape = self._real_shape()
        moves = [] if self.flow is None else [self.flow.condition(context)]
        moves.append(LowerAffine(loc, lower))
        if shape != (self.size,):
            moves.append(transforms.ReshapeTransform(Size([self.size]), shape))
        return dist.Normal(torch.zeros_like(loc), 1.0).to_event(1), moves


class LowerAffine(Remembering):
    r"""y = m + L x for a batch of m, (*batch, D), and L, (*batch, D, D), lower triangular with a positive diagonal.

    Pyro's ``LowerCholeskyAffine`` takes the determinant of one L alone.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor, lower: Tensor) -> None:
        super().__init__(cache_size=1)
        self.loc, self.lower = loc, lower

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + (self.lower @ x[..., None])[..., 0]

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.lower, (y - self.loc)[..., None], upper=False)[..., 0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.lower.diagonal(dim1=-2, dim2=-1).log().sum(-1).expand(x.shape[:-1])


def _flow(size: int) -> ConditionalTransform:
    widths = [2 * (size + CONTEXT)] * 2
    if size == 1:
        return conditional_spline(1, CONTEXT, hidden_dims=widths)
    return conditional_spline_autoregressive(size, CONTEXT, hidden_dims=widths)


def _shaped(raw: Tensor, event_shape: Size) -> Tensor:
    return raw.reshape(raw.shape[:-1] + event_shape)


def _flat(value: Tensor, event_shape: Size) -> Tensor:
    """(*batch, *event) -> (*batch, size of an event)."""
    return value.reshape(*value.shape[: value.dim() - len(event_shape)], event_shape.numel())
