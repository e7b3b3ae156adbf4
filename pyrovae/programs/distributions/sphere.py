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
from torch.nn.functional import normalize


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

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, (...)."""
        if self._validate_args:
            self._validate_sample(value)
        half = len(self.like) / 2
        constant = math.lgamma(half) - math.log(2) - half * math.log(math.pi)
        return (0 * value.sum(-1) + constant).expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))

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

    @property
    def _shapes(self) -> tuple[Tensor, Tensor]:
        """a and b: of the beta distribution of (1 + mu' z) / 2."""
        half = torch.full_like(self.concentration, (self.loc.shape[-1] - 1) / 2)
        return half + self.concentration, half

    @property
    def mean(self) -> Tensor:
        a, b = self._shapes
        return self.loc * ((a - b) / (a + b))[..., None]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        a, b = self._shapes
        constant = (a + b) * math.log(2) + b * math.log(math.pi) + torch.lgamma(a) - torch.lgamma(a + b)
        # 1 + mu' z = 2 - |z - mu|^2 / 2 for unit vectors, which keeps its digits near mu.
        away = (value - self.loc).square().sum(-1)
        return self.concentration * (2 - away / 2).clamp_min(torch.finfo(away.dtype).tiny).log() - constant

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws along the first axis, reflected so that it becomes mu."""
        shape = self._extended_shape(sample_shape)
        a, b = (each.expand(shape[:-1]) for each in self._shapes)
        along = 2 * dist.Beta(a, b, validate_args=False).rsample()[..., None] - 1
        across = normalize(torch.randn(*shape[:-1], shape[-1] - 1, dtype=along.dtype, device=along.device), dim=-1)
        drawn = torch.cat([along, (1 - along.square()).clamp_min(torch.finfo(along.dtype).tiny).sqrt() * across], -1)
        first = torch.zeros_like(self.loc)
        first[..., 0] = 1.0
        mirror = normalize(first - self.loc, dim=-1)
        return drawn - 2 * (mirror * drawn).sum(-1, keepdim=True) * mirror
