r"""Priors over codes in which each part goes by those before it, all by one network whose weights are masked.

.. math:: p(z) = \prod_{d=1}^D p(z_d \mid z_1, \ldots, z_{d-1})

Nothing is left out but what the network cannot hold: every distribution over codes is of this form. A mass takes one
pass of the network, a draw as many as there are parts.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import linear, one_hot, silu

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.parameters import seeded


class AutoregressiveBits(nn.Module):
    """Bits, each with log odds by those before it; independent and fair at first.

    Args:
        num_latents: bits of z.
        hidden: width of the hidden layer.
        seed: of its weights.

    Raises:
        InputError: if there is no bit or no hidden unit.

    References:
        Germain et al. (2015), MADE: masked autoencoder for distribution estimation, arXiv:1502.03509.
        Larochelle and Murray (2011), The neural autoregressive distribution estimator, AISTATS.
    """

    def __init__(self, num_latents: int, *, hidden: int = 64, seed: int | None = 0) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents, hidden=hidden)
        self.network = Made(num_latents, 1, hidden, seed=seed)

    def forward(self) -> dist.TorchDistribution:
        return Autoregressive(self._logits, Size([self.network.num_parts]), self.network.bias)

    def _logits(self, value: Tensor) -> Tensor:
        """(..., D) -> log odds of a one over a zero, (..., D, 2)."""
        odds = self.network(value)
        return torch.stack([torch.zeros_like(odds), odds], -1)


class AutoregressiveCode(nn.Module):
    """One-hot codes, (num_latents, num_classes), each with logits by those before it; all alike at first.

    Args:
        num_latents: codes of z.
        num_classes: classes of each.
        hidden: width of the hidden layer.
        seed: of its weights.

    Raises:
        InputError: if there is no code, no hidden unit, or fewer than 2 classes.

    References:
        Germain et al. (2015), MADE: masked autoencoder for distribution estimation, arXiv:1502.03509.
        van den Oord, Vinyals and Kavukcuoglu (2017), Neural discrete representation learning, arXiv:1711.00937.
    """

    def __init__(self, num_latents: int, *, num_classes: int = 10, hidden: int = 64, seed: int | None = 0) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents, hidden=hidden)
        if num_classes < 2:
            raise InputError(f"an autoregressive code needs at least 2 classes, got {num_classes}")
        self.shape = Size([num_latents, num_classes])
        self.network = Made(num_latents, num_classes, hidden, seed=seed)

    def forward(self) -> dist.TorchDistribution:
        return Autoregressive(self._logits, self.shape, self.network.bias)

    def _logits(self, value: Tensor) -> Tensor:
        """(..., D, C) -> the same shape."""
        return self.network(value.flatten(-2)).unflatten(-1, self.shape)


class Made(nn.Module):
    """A perceptron of one hidden layer whose outputs for a part see the inputs of earlier parts alone.

    Args:
        num_parts: D.
        width: numbers for each part, in the input and in the output.
        hidden: hidden units: each sees a number of parts, from the first on.
        seed: of the weights; those of the output begin at zero.
    """

    def __init__(self, num_parts: int, width: int, hidden: int, *, seed: int | None) -> None:
        super().__init__()
        self.num_parts = num_parts
        part = torch.arange(num_parts).repeat_interleave(width)
        sees = 1 + torch.arange(hidden) % max(num_parts - 1, 1)  # how many parts a hidden unit sees
        size = num_parts * width
        with seeded(seed):
            self.first = nn.Linear(size, hidden)
        self.second = nn.Parameter(torch.zeros(size, hidden))
        self.direct = nn.Parameter(torch.zeros(size, size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.seen = nn.Buffer((part < sees[:, None]).to(torch.get_default_dtype()), persistent=False)
        self.counts = nn.Buffer((sees <= part[:, None]).to(torch.get_default_dtype()), persistent=False)
        self.earlier = nn.Buffer((part < part[:, None]).to(torch.get_default_dtype()), persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        """(..., D * width) -> the same shape."""
        hidden = silu(linear(value, self.first.weight * self.seen, self.first.bias))
        return linear(hidden, self.second * self.counts, self.bias) + linear(value, self.direct * self.earlier)


class Autoregressive(dist.TorchDistribution):
    """Codes of D parts, bits or one-hot.

    Args:
        logits: a code (..., *event) -> logits of the values of each part, (..., D, values), by earlier parts alone.
        event_shape: (D,) of bits, (D, C) of one-hot codes.
        like: a tensor of the dtype and device of draws.

    Example:
        >>> fair = Autoregressive(lambda z: torch.zeros(*z.shape, 2), Size([3]), torch.zeros(()))
        >>> fair.log_prob(torch.tensor([1.0, 0.0, 1.0])).exp()
        tensor(0.1250)
    """

    arg_constraints: ClassVar = {}

    def __init__(
        self, logits: Callable[[Tensor], Tensor], event_shape: Size, like: Tensor, validate_args: bool | None = None
    ) -> None:
        self.logits, self.like = logits, like
        super().__init__(Size(), event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.one_hot if self._is_one_hot else constraints.boolean, 1)

    @property
    def _is_one_hot(self) -> bool:
        return len(self.event_shape) == 2

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.logits, new.like = self.logits, self.like
        super(Autoregressive, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.like.dtype)
        which = value if self._is_one_hot else torch.stack([1 - value, value], -1)
        each = (which * self.logits(value).log_softmax(-1)).sum((-2, -1))
        return each.expand(torch.broadcast_shapes(each.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self.like.new_zeros(self._extended_shape(sample_shape))
        place = -2 if self._is_one_hot else -1
        for part in range(self.event_shape[0]):
            logits = self.logits(drawn)[..., part, :]
            value = dist.Categorical(logits=logits, validate_args=False).sample()
            value = one_hot(value, logits.shape[-1]) if self._is_one_hot else value
            drawn.select(place, part).copy_(value)
        return drawn
