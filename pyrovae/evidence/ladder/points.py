"""Points of unconstrained space with all their densities: of the model, of the prior and of the guide."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.ladder.kernels import by_parts
from pyrovae.pairs.latents import Joint, Latents, Values
from pyrovae.pairs.terms import LogTerms


class Points(NamedTuple):
    """K points of n data, (K, n, D), and their log densities there, (K, n) nats, float64."""

    u: Tensor
    log_joint: Tensor
    log_prior: Tensor
    log_guide: Tensor
    resolution: Tensor  # (n,): what rounding can make of equal weights

    def log_weight(self, log_density: Tensor) -> Tensor:
        """log p(x, u) by the density that the points were drawn from, (K, n); nothing where the model has none."""
        return torch.where(self.log_joint == -math.inf, -math.inf, self.log_joint - log_density)

    def of(self, rows: Tensor) -> "Points":
        """Those of some of the data."""
        return Points._make([*(part[:, rows] for part in self[:4]), self.resolution[rows]])

    def first(self, num_points: int) -> "Points":
        """So many of each datum."""
        return Points._make([*(part[:num_points] for part in self[:4]), self.resolution])


def scored(latents: Latents, u: Tensor | int) -> Points:
    """Points (K, n, D), or K draws of the guide, and their densities; not all at once."""
    if isinstance(u, int):
        return _of_draws(latents, latents.draw, u)
    return _points(u, by_parts(densities, latents, u))


def of_prior(latents: Latents, num_points: int) -> Points:
    """K draws of the prior, and their densities."""
    return _of_draws(latents, latents.draw_prior, num_points)


def at_values(latents: Latents, values: Values) -> Points:
    """Latents, site -> (K, n, ...), as points, and their densities."""
    sizes = latents.part_sizes(len(next(iter(values.values()))))
    parts = zip(*(value.split(sizes) for value in values.values()), strict=True)
    return _of_values(latents, (dict(zip(values, part, strict=True)) for part in parts))


def _of_draws(latents: Latents, draw: Callable[[int], Values], num_points: int) -> Points:
    return _of_values(latents, latents.in_parts(draw, num_points))


def _of_values(latents: Latents, values: Iterable[Values]) -> Points:
    parts = [latents.moved(part) for part in values]
    tables = [_of_joint(latents, joint) for _, joint in parts]
    return _points(torch.cat([u for u, _ in parts]), torch.cat(tables))


def densities(latents: Latents, u: Tensor) -> Tensor:
    """log p(x | u), log p(u) and log q(u | x) at points (K, n, D): (K, n, 3)."""
    return _of_joint(latents, latents.log_joint_unconstrained(u))


def _of_joint(latents: Latents, joint: Joint) -> Tensor:
    log_guide = latents.log_guide(joint.values) + joint.log_jacobian
    return torch.stack([joint.log_likelihood, joint.log_prior + joint.log_jacobian, log_guide], -1)


def _points(u: Tensor, densities: Tensor) -> Points:
    log_likelihood, log_prior, log_guide = densities.unbind(-1)
    log_joint = torch.where(log_prior == -math.inf, -math.inf, log_likelihood + log_prior).double()
    terms = LogTerms(log_likelihood.to(u.dtype), log_prior.to(u.dtype), log_guide.to(u.dtype))
    return Points(u, log_joint, log_prior.double(), log_guide.double(), terms.resolution)


def joined(parts: Sequence[Points]) -> Points:
    """All points of several sets."""
    *columns, resolution = zip(*parts, strict=True)
    return Points._make([*map(torch.cat, columns), torch.stack(resolution).amax(0)])
