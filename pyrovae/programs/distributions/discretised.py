r"""Logistic densities rounded to whole numbers 0..L - 1, as pixels are, the tails added to both ends; mixtures of them.

.. math:: p(x) = \sigma(b) - \sigma(a) = \sigma(b) \, \sigma(-a) \, (1 - e^{a - b}), \qquad
    a, b = (x \mp \tfrac12 - m) / s

The product loses no digit in any tail, where the difference would be zero. (Kingma et al. 2016; Salimans et al. 2017.)
"""

from typing import Any, ClassVar

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
