"""Families of latents that are no real vectors: codes, proportions of a whole, directions."""

import pyro.distributions as dist
import torch
from torch import Size, Tensor

from pyrovae.programs.distributions.sphere import PowerSpherical
from pyrovae.programs.families.family import Family, elementwise, positive


def one_hot() -> Family:
    """One-hot codes, the last dimension of an event the classes, from logits. A mass; draws carry no gradient."""

    def build(event_dim: int, logits: Tensor) -> dist.TorchDistribution:
        return dist.OneHotCategorical(logits=logits).to_event(event_dim - 1)

    return Family("one_hot", elementwise, build)


def dirichlet() -> Family:
    """Proportions that sum to one, from concentrations: topics. A density.

    Concentrations stay above 0.5: below, many draws would lie on the edge of the simplex in float32.
    """

    def build(event_dim: int, raw: Tensor) -> dist.TorchDistribution:
        return dist.Dirichlet(positive(raw) + 0.5)

    return Family("dirichlet", elementwise, build)


def unimodal_beta() -> Family:
    """Numbers between 0 and 1 about a mode, from its log odds and a concentration that is 0 where all are alike.

    Both parameters of the beta stay above 1: below, many draws would lie on the edge in float32. A density.
    """

    def build(event_dim: int, logits: Tensor, raw: Tensor) -> dist.TorchDistribution:
        whole = 2 * positive(raw)
        return dist.Beta(1 + whole * logits.sigmoid(), 1 + whole * (-logits).sigmoid()).to_event(event_dim)

    return Family("unimodal_beta", lambda event_shape: (event_shape, event_shape), build)


def power_spherical() -> Family:
    """Unit vectors about a direction, with a concentration. A density by the area of the sphere.

    References:
        De Cao and Aziz (2020), The power spherical distribution, arXiv:2006.04437.
    """

    def shapes(event_shape: Size) -> tuple[Size, ...]:
        return event_shape, torch.Size([])

    def build(event_dim: int, loc: Tensor, raw: Tensor) -> PowerSpherical:
        return PowerSpherical(loc, 10 * positive(raw))

    return Family("power_spherical", shapes, build)
