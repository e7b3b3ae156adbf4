r"""Priors p(z) whose coordinates are independent and spread otherwise than a normal: heavy tails, and sparse codes.

The horseshoe, a normal whose scale is half-Cauchy, has a density in closed form,

.. math:: p(z) = \frac{e^{t} E_1(t)}{\sqrt{2 \pi^3} \, s}, \qquad t = \frac{z^2}{2 s^2}

with the exponential integral E_1: infinite at zero, with Cauchy's tails.
"""

import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.elementwise import Elementwise

EULER = 0.5772156649015329
FEW = 1.0  # below which the series of E_1 is summed, above its continued fraction


class _Coordinates(nn.Module):
    """Holds zeros and ones, from which a prior is built whose coordinates are independent."""

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        self.loc = nn.Buffer(torch.zeros(num_latents), persistent=False)
        self.scale = nn.Buffer(torch.ones(num_latents), persistent=False)


class Laplace(_Coordinates):
    """Independent Laplace distributions of scale 1."""

    def forward(self) -> dist.TorchDistribution:
        return dist.Laplace(self.loc, self.scale).to_event(1)


class Logistic(_Coordinates):
    """Independent logistic distributions of scale 1."""

    def forward(self) -> dist.TorchDistribution:
        return dist.Logistic(self.loc, self.scale).to_event(1)


class StudentT(_Coordinates):
    """Independent Student's t of scale 1.

    Args:
        num_latents: dimensions of z.
        df: degrees of freedom.

    Raises:
        InputError: if there is no dimension, or these are not positive.
    """

    def __init__(self, num_latents: int, *, df: float = 5.0) -> None:
        super().__init__(num_latents)
        if not (df > 0 and math.isfinite(df)):
            raise InputError(f"a Student's t prior needs positive degrees of freedom, got {df}")
        self.df = df

    def forward(self) -> dist.TorchDistribution:
        return dist.StudentT(self.df * self.scale, self.loc, self.scale).to_event(1)


class Uniform(_Coordinates):
    """Uniform from 0 to 1 in each coordinate."""

    def forward(self) -> dist.TorchDistribution:
        return dist.Uniform(self.loc, self.scale).to_event(1)


class SpikeAndSlab(_Coordinates):
    """Each coordinate from a narrow normal, the spike, or from a wide one: a continuous spike and slab.

    Args:
        num_latents: dimensions of z.
        spike: standard deviation of the spike; that of the slab is 1.
        weight: of the slab.

    Raises:
        InputError: if there is no dimension, or a number is not between 0 and 1.

    References:
        George and McCulloch (1993), Variable selection via Gibbs sampling, JASA 88:881.
    """

    def __init__(self, num_latents: int, *, spike: float = 0.1, weight: float = 0.5) -> None:
        super().__init__(num_latents)
        if not (0 < spike < 1 and 0 < weight < 1):
            raise InputError(f"spike and weight are between 0 and 1, got spike={spike}, weight={weight}")
        self.logits = nn.Buffer(torch.tensor([1 - weight, weight]).log(), persistent=False)
        self.scales = nn.Buffer(torch.tensor([spike, 1.0]), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        shape = (*self.loc.shape, 2)
        components = dist.Normal(self.loc[:, None].expand(shape), self.scales.expand(shape))
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits.expand(shape)), components).to_event(1)


class Horseshoe(_Coordinates):
    """Each coordinate a normal whose standard deviation is half-Cauchy: near zero, or anywhere.

    Args:
        num_latents: dimensions of z.
        scale: of the half-Cauchy.

    Raises:
        InputError: if there is no dimension, or the scale is not positive.

    References:
        Carvalho, Polson and Scott (2010), The horseshoe estimator for sparse signals, Biometrika 97:465.
    """

    def __init__(self, num_latents: int, *, scale: float = 1.0) -> None:
        super().__init__(num_latents)
        if not (scale > 0 and math.isfinite(scale)):
            raise InputError(f"a horseshoe needs a positive scale, got {scale}")
        self.half_cauchy = scale

    def forward(self) -> dist.TorchDistribution:
        return HalfCauchyNormal(self.half_cauchy * self.scale).to_event(1)


class HalfCauchyNormal(Elementwise):
    """The horseshoe density of single numbers, the scale integrated out.

    Args:
        scale: s > 0, of the half-Cauchy.
    """

    names: ClassVar = ("scale",)
    support = constraints.real

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats."""
        t = (self._checked(value) / self.scale).square() / 2
        t = t.clamp_min(torch.finfo(t.dtype).tiny)
        return _log_scaled_e1(t) - 0.5 * math.log(2 * math.pi**3) - self.scale.log()

    @torch.no_grad()
    def sample(self, sample_shape: object = ()) -> Tensor:
        (scale,) = self._expanded(sample_shape)
        return dist.HalfCauchy(scale).sample() * torch.randn_like(scale)


def _log_scaled_e1(t: Tensor) -> Tensor:
    """log(e^t E_1(t)) for t > 0."""
    near = t < FEW
    low, high = torch.where(near, t, 0.5), torch.where(near, 2.0, t)
    term, total = torch.ones_like(low), torch.zeros_like(low)
    for k in range(1, 20):
        term = -term * low / k
        total = total - term / k
    fraction = torch.zeros_like(high)
    for k in range(60, 0, -1):
        fraction = k * k / (high + 2 * k + 1 - fraction)
    return torch.where(near, low + (total - low.log() - EULER).log(), -(high + 1 - fraction).log())
