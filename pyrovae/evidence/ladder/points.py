"""Points of unconstrained space with all their densities: of the model, of the prior and of the guide."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.pairs.latents import Latents
from pyrovae.pairs.terms import LogTerms


class Points(NamedTuple):
    """K points of n data, (K, n, D), and their log densities there, (K, n) nats, float64."""

    u: Tensor
    log_joint: Tensor
    log_prior: Tensor
    log_guide: Tensor
    resolution: Tensor  # (n,): what rounding can make of equal weights

    def of(self, rows: Tensor) -> "Points":
        """Those of some of the data."""
        return Points._make([*(part[:, rows] for part in self[:4]), self.resolution[rows]])

    def first(self, num_points: int) -> "Points":
        """So many of each datum."""
        return Points._make([*(part[:num_points] for part in self[:4]), self.resolution])


def scored(latents: Latents, u: Tensor | int) -> Points:
    """Points (K, n, D), or K draws of the guide, and their densities; not all at once."""
    sizes = latents.part_sizes(u if isinstance(u, int) else len(u))
    return joined([_scored(latents, part) for part in (sizes if isinstance(u, int) else u.split(sizes))])


def joined(parts: Sequence[Points]) -> Points:
    """All points of several sets."""
    *columns, resolution = zip(*parts, strict=True)
    return Points._make([*map(torch.cat, columns), torch.stack(resolution).amax(0)])


def _scored(latents: Latents, u: Tensor | int) -> Points:
    if isinstance(u, int):
        u, joint = latents.moved(latents.draw(u))
    else:
        joint = latents.log_joint_unconstrained(u)
    log_guide, log_prior = latents.log_guide(joint.values) + joint.log_jacobian, joint.log_prior + joint.log_jacobian
    terms = LogTerms(joint.log_likelihood.to(u.dtype), log_prior.to(u.dtype), log_guide.to(u.dtype))
    log_joint = (joint.log_likelihood + log_prior).double()
    log_joint = torch.where(log_prior == -math.inf, -math.inf, log_joint)
    return Points(u, log_joint, log_prior.double(), log_guide.double(), terms.resolution)
