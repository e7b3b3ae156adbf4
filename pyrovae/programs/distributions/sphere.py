r"""Directions: distributions over unit vectors, densities by the area of the sphere.

.. math:: p(z) = \frac{\Gamma(d/2)}{2 \pi^{d/2}}, \qquad
    q(z) = \frac{(1 + \mu^T z)^\kappa}{2^{a + b} \pi^b \Gamma(a) / \Gamma(a + b)}, \quad
    a = \tfrac{d - 1}{2} + \kappa, \; b = \tfrac{d - 1}{2}

The second, the power spherical, is drawn without rejection, and so with gradients. (De Cao & Aziz 2020.)
"""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor
from torch.distributions import register_kl
from torch.nn.functional import normalize

from pyrovae.base.errors import InputError


class UniformSphere(dist.TorchDistribution):
    """Uniform over the unit vectors of d dimensions.

    Args:
        like: a vector whose length is d, of the dtype and device of draws.

    Example:
        >>> UniformSphere(torch.zeros(2)).log_prob(torch.tensor([1.0, 0.0])).exp() * 2 * math.pi
        tensor(1.0000)
    """

    arg_constraints: ClassVar = {}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, like: Tensor, validate_args: bool | None = None) -> None:
        self.like = like
        super().__init__(Size(), like.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.like = self.like
        super(UniformSphere, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def log_area(self) -> float:
        """Logarithm of the area of the sphere."""
        half = len(self.like) / 2
        return math.log(2) + half * math.log(math.pi) - math.lgamma(half)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, (...)."""
        if self._validate_args:
            self._validate_sample(value)
        return (0 * value.sum(-1) - self.log_area).expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.like.dtype, device=self.like.device)
        return normalize(noise, dim=-1)


class PowerSpherical(dist.TorchDistribution):
    """Unit vectors about a direction.

    Args:
        loc: the direction mu, (..., d), d at least 2; made a unit vector.
        concentration: kappa > 0, (...).

    References:
        De Cao and Aziz (2020), The power spherical distribution, arXiv:2006.04437.

    Example:
        >>> PowerSpherical(torch.tensor([1.0, 0.0]), torch.tensor(3.0)).rsample((5,)).norm(dim=-1)
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """

    arg_constraints: ClassVar = {}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = normalize(loc, dim=-1).expand(*shape, -1)
        self.concentration = concentration.expand(shape)
        super().__init__(shape, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.loc, new.concentration = self.loc.expand(*batch_shape, -1), self.concentration.expand(batch_shape)
        super(PowerSpherical, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def widened(self, factor: float, shift: float) -> "PowerSpherical":
        """Of a concentration that is divided by factor^2.

        Raises:
            InputError: for a shift, which a direction has none of.
        """
        if shift:
            raise InputError(f"no shifted PowerSpherical is known, got shift={shift}; leave it at 0")
        return PowerSpherical(self.loc, self.concentration / factor**2)

    @property
    def _shapes(self) -> tuple[Tensor, Tensor]:
        """a and b: of the beta distribution of (1 + mu' z) / 2."""
        half = torch.full_like(self.concentration, (self.loc.shape[-1] - 1) / 2)
        return half + self.concentration, half

    @property
    def mean(self) -> Tensor:
        a, b = self._shapes
        return self.loc * ((a - b) / (a + b))[..., None]

    @property
    def log_normalizer(self) -> Tensor:
        """Logarithm of the integral of ((1 + mu' z) / 2)^kappa over the sphere, of the batch shape; in double.

        Where the concentration is high it is a difference of large numbers, of which float32 keeps a hundredth of a
        nat.
        """
        a, b = (each.double() for each in self._shapes)
        return 2 * b * math.log(2) + b * math.log(math.pi) + torch.lgamma(a) - torch.lgamma(a + b)

    def entropy(self) -> Tensor:
        """In nats, of the batch shape."""
        a, b = (each.double() for each in self._shapes)
        mean_log = torch.digamma(a) - torch.digamma(a + b)  # of (1 + mu' z) / 2
        return (self.log_normalizer - self.concentration * mean_log).to(self.concentration.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        # (1 + mu' z) / 2 = 1 - |z - mu|^2 / 4 for unit vectors, which keeps its digits near mu.
        away = ((value - self.loc).square().sum(-1) / 4).clamp_max(1 - torch.finfo(value.dtype).eps)
        return (self.concentration * torch.log1p(-away) - self.log_normalizer).to(away.dtype)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws along the first axis, reflected so that it becomes mu."""
        shape = self._extended_shape(sample_shape)
        a, b = (each.expand(shape[:-1]) for each in self._shapes)
        # (1 - mu' z) / 2, small where the concentration is high: it keeps its digits.
        short = dist.Beta(b, a, validate_args=False).rsample()[..., None]
        across = normalize(torch.randn(*shape[:-1], shape[-1] - 1, dtype=short.dtype, device=short.device), dim=-1)
        width = 2 * (short * (1 - short)).clamp_min(torch.finfo(short.dtype).tiny).sqrt()
        drawn = torch.cat([1 - 2 * short, width * across], -1)
        first = torch.zeros_like(self.loc)
        first[..., 0] = 1.0
        mirror = normalize(first - self.loc, dim=-1)
        return drawn - 2 * (mirror * drawn).sum(-1, keepdim=True) * mirror


@register_kl(PowerSpherical, UniformSphere)
def _kl_to_uniform(q: PowerSpherical, p: UniformSphere) -> Tensor:
    return p.log_area - q.entropy()
