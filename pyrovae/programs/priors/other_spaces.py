"""Priors over latents that are no real vectors: codes, proportions of a whole, directions."""

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.distributions.exponential import Bernoulli
from pyrovae.programs.distributions.sphere import UniformSphere
from pyrovae.programs.distributions.transforms.bijections import StickBreaking
from pyrovae.programs.families.family import positive, positive_inverse


class BernoulliCode(nn.Module):
    """Independent bits, with learned log odds, from 0 on."""

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        self.logits = nn.Parameter(torch.zeros(num_latents))

    def forward(self) -> dist.TorchDistribution:
        return Bernoulli(logits=self.logits).to_event(1)


class OneHotCode(nn.Module):
    """Independent one-hot codes, (num_latents, num_classes), with learned logits, from 0 on.

    Raises:
        InputError: if there is no code, or fewer than 2 classes.
    """

    def __init__(self, num_latents: int, *, num_classes: int = 10) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        if num_classes < 2:
            raise InputError(f"a one-hot code needs at least 2 classes, got {num_classes}")
        self.logits = nn.Parameter(torch.zeros(num_latents, num_classes))

    def forward(self) -> dist.TorchDistribution:
        return dist.OneHotCategorical(logits=self.logits).to_event(1)


class Gamma(nn.Module):
    """Independent gammas of shape 1 and rate 1: positive latents."""

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        check_at_least_one(num_latents=num_latents)
        self.one = nn.Buffer(torch.ones(num_latents), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return dist.Gamma(self.one, self.one).to_event(1)


class Dirichlet(nn.Module):
    """Proportions that sum to one: topics. A concentration for each, learned from 1 on.

    Raises:
        InputError: if there are fewer than 2 dimensions.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        _check_two("a Dirichlet", num_latents)
        self.raw = nn.Parameter(positive_inverse(torch.ones(num_latents)))

    def forward(self) -> dist.TorchDistribution:
        return dist.Dirichlet(positive(self.raw))


class LogisticNormal(nn.Module):
    """Proportions that independent normals give by breaking a stick; their means and scales are learned.

    Raises:
        InputError: if there are fewer than 2 dimensions.

    References:
        Aitchison and Shen (1980), Logistic-normal distributions, Biometrika 67:261.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        _check_two("a logistic normal", num_latents)
        self.loc = nn.Parameter(torch.zeros(num_latents - 1))
        self.raw_scale = nn.Parameter(positive_inverse(torch.ones(num_latents - 1)))

    def forward(self) -> dist.TorchDistribution:
        base = dist.Normal(self.loc, positive(self.raw_scale)).to_event(1)
        return dist.TransformedDistribution(base, [StickBreaking()])


class Sphere(nn.Module):
    """Uniform over directions: unit vectors.

    Raises:
        InputError: if there are fewer than 2 dimensions.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        _check_two("a sphere", num_latents)
        self.like = nn.Buffer(torch.zeros(num_latents), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        return UniformSphere(self.like)


def _check_two(what: str, num_latents: int) -> None:
    if num_latents < 2:
        raise InputError(f"{what} needs at least 2 dimensions, got {num_latents}")
