r"""Bijections from the reals onto bounded supports that keep their digits at the edges, where float32 loses them.

Proportions by breaking a stick, in logarithms,

.. math:: \log y_k = \log \sigma(x_k - \log(K - k)) + \sum_{j < k} \log \sigma(\log(K - j) - x_j)

with what is left of the stick as the last. Torch's own take 1 - sigmoid, of which float32 keeps nothing beyond 16,
and remember no draw: a draw near the edge is then scored at another point than it was drawn from, where its density
is any number of nats too low.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    IndependentTransform,
    SigmoidTransform,
    Transform,
)
from torch.nn.functional import logsigmoid, pad


class Remembering(Transform):
    """A transform of ``cache_size=1`` that remembers no pass without a graph, where a gradient is asked for."""

    has_graph = False  # whether what is remembered carries gradients

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self

    def __call__(self, x: Tensor) -> Tensor:
        self._look_back(x, 0)
        return super().__call__(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        self._look_back(y, 1)
        return super()._inv_call(y)

    def _look_back(self, given: Tensor, side: int) -> None:
        """Forgets the last pass where it is of another tensor, or has no graph and should have one."""
        is_new = given is not self._cached_x_y[side]
        if is_new or (torch.is_grad_enabled() and not self.has_graph):
            self._cached_x_y, self.has_graph = (None, None), torch.is_grad_enabled()


class StickBreaking(Remembering):
    """K - 1 real numbers -> K proportions that sum to one, in torch's parametrization: zeros give equal parts.

    Example:
        >>> StickBreaking()(torch.zeros(3))
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __init__(self) -> None:
        super().__init__(cache_size=1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StickBreaking)

    def _call(self, x: Tensor) -> Tensor:
        taken, left = self._logs(x)
        logs = pad(taken, (0, 1)) + pad(left.cumsum(-1), (1, 0))
        return logs.exp().clamp_min(torch.finfo(x.dtype).tiny)

    def _inverse(self, y: Tensor) -> Tensor:
        y = y.clamp_min(torch.finfo(y.dtype).tiny)
        behind = y.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # what is left after each part, summed from the small end
        return y[..., :-1].log() - behind.log() + self._offset(y[..., :-1])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        taken, left = self._logs(x)
        earlier = pad(left.cumsum(-1), (1, 0))[..., :-1]
        return (taken + left + earlier).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        return torch.Size([*shape[:-1], shape[-1] + 1])

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size([*shape[:-1], shape[-1] - 1])

    def _logs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the fraction that is taken of what is there, and of that which is left."""
        x = x - self._offset(x)
        return logsigmoid(x), logsigmoid(-x)

    @staticmethod
    def _offset(x: Tensor) -> Tensor:
        return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device).log()


class Sigmoid(Remembering, SigmoidTransform):
    """Real numbers -> numbers between 0 and 1."""

    def __init__(self) -> None:
        super().__init__(cache_size=1)


class Affine(Remembering, AffineTransform):
    """x -> loc + scale x."""

    def __init__(self, loc: Tensor | float, scale: Tensor | float, event_dim: int = 0) -> None:
        super().__init__(loc, scale, event_dim=event_dim, cache_size=1)


def onto(support: constraints.Constraint) -> Transform:
    """The transform from the reals onto a support: torch's, but for intervals and proportions one that remembers."""
    if isinstance(support, constraints._Simplex):
        return StickBreaking()
    return _remembering(biject_to(support))


def _remembering(move: Transform) -> Transform:
    """The same transform, where it begins with a sigmoid as one that remembers."""
    if isinstance(move, SigmoidTransform):
        return Sigmoid()
    if isinstance(move, ComposeTransform) and isinstance(move.parts[0], SigmoidTransform):
        return ComposeTransform([Sigmoid(), *(_affine(part) for part in move.parts[1:])])
    if isinstance(move, IndependentTransform):
        return IndependentTransform(_remembering(move.base_transform), move.reinterpreted_batch_ndims)
    return move


def _affine(move: Transform) -> Transform:
    return Affine(move.loc, move.scale, move.event_dim) if isinstance(move, AffineTransform) else move
