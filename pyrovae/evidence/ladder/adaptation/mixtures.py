"""What is adapted: a Gaussian in unconstrained space for each datum, or a mixture of some."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.proposals.students import Students


class Gaussian(NamedTuple):
    """N(loc, scale_tril scale_tril') for each of n data, float64; and the dtype of the latents.

    Several of the same data stand in front, (C, n, D), where it says so.
    """

    loc: Tensor  # (n, D)
    scale_tril: Tensor  # (n, D, D)
    dtype: torch.dtype

    def moved(self, step: Tensor, precision: Tensor) -> "Gaussian":
        """By a step (n, D), and with a precision (n, D, D), both in units of the scale."""
        loc = self.loc + (self.scale_tril @ step[..., None]).squeeze(-1)
        upper = torch.linalg.cholesky_ex(precision.flip(-2, -1)).L.flip(-2, -1)  # U U' = precision
        scale_tril = torch.linalg.solve_triangular(upper.mT, self.scale_tril, upper=False, left=False)
        return self._replace(loc=loc, scale_tril=scale_tril)

    @classmethod
    def joined(cls, parts: "Sequence[Gaussian]") -> "Gaussian":
        """Those of unlike data."""
        loc, scale_tril = (torch.cat([getattr(one, name) for one in parts]) for name in ("loc", "scale_tril"))
        return cls(loc, scale_tril, parts[0].dtype)

    def of(self, rows: Tensor) -> "Gaussian":
        """Those of some of the data."""
        return self._replace(loc=self.loc[rows], scale_tril=self.scale_tril[rows])

    def distance(self, u: Tensor) -> Tensor:
        """Of points (..., n, D) from the mean, in standard deviations: (..., n)."""
        axes = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        whitening = torch.linalg.solve_triangular(self.scale_tril, axes.expand_as(self.scale_tril), upper=False)
        return torch.einsum("nij,...nj->...ni", whitening, u - self.loc).norm(dim=-1)

    def each(self) -> "list[Gaussian]":
        """Several, one by one."""
        return [Gaussian(*one, self.dtype) for one in zip(self.loc, self.scale_tril, strict=True)]

    def where(self, these: Tensor, other: "Gaussian") -> "Gaussian":
        """This for some of the data, (n,), the other for the rest."""
        loc = torch.where(these[:, None], self.loc, other.loc)
        return Gaussian(loc, torch.where(these[:, None, None], self.scale_tril, other.scale_tril), self.dtype)

    def finite_or(self, other: "Gaussian") -> "Gaussian":
        """This where it is finite, else the other."""
        return self.where(self.loc.isfinite().all(-1) & self.scale_tril.isfinite().flatten(1).all(-1), other)


class Mixture(NamedTuple):
    """Gaussians and their log weights (C, n)."""

    log_weight: Tensor
    components: list[Gaussian]

    @classmethod
    def alone(cls, one: Gaussian) -> "Mixture":
        return cls(one.loc.new_zeros(1, len(one.loc)), [one])

    @classmethod
    def joined(cls, mixtures: "Sequence[Mixture]") -> "Mixture":
        """Those of unlike data, of as many components each."""
        components = [Gaussian.joined(each) for each in zip(*(one.components for one in mixtures), strict=True)]
        return cls(torch.cat([one.log_weight for one in mixtures], 1), components)

    @property
    def num_dims(self) -> int:
        """D."""
        return self.components[0].loc.shape[1]

    def students(self, df: float, widened: float) -> Students:
        """Student's t about the same means, scales so many times as wide."""
        loc = torch.stack([one.loc for one in self.components])
        scale_tril = torch.stack([one.scale_tril for one in self.components])
        return Students(self.log_weight, loc, widened * scale_tril, df, self.components[0].dtype)

    @property
    def heaviest(self) -> Gaussian:
        """The component of each datum that weighs most."""
        return one_of_each(self.components, self.log_weight.argmax(0))

    def beside(self, other: "Mixture", part: float = 0.5) -> "Mixture":
        """This, and another mixture that is so large a part of the whole."""
        each = [self.log_weight.log_softmax(0) + math.log1p(-part), other.log_weight.log_softmax(0) + math.log(part)]
        return Mixture(torch.cat(each), [*self.components, *other.components])

    def finite_or(self, other: "Mixture") -> "Mixture":
        """With the first component of another in place of those that are not finite."""
        log_weight = some_finite(self.log_weight).log_softmax(0)
        return Mixture(log_weight, [one.finite_or(other.components[0]) for one in self.components])

    def of(self, rows: Tensor) -> "Mixture":
        """Those of some of the data."""
        return Mixture(self.log_weight[:, rows], [one.of(rows) for one in self.components])


def one_of_each(several: list[Gaussian], which: Tensor) -> Gaussian:
    """One of several for each datum, by its number (n,)."""
    data = torch.arange(len(which), device=which.device)
    loc = torch.stack([one.loc for one in several])[which, data]
    scale_tril = torch.stack([one.scale_tril for one in several])[which, data]
    return several[0]._replace(loc=loc, scale_tril=scale_tril)


def some_finite(log_weight: Tensor) -> Tensor:
    """Log weights (C, n), all alike for data where none is finite."""
    return torch.where(log_weight.isfinite().any(0) & ~log_weight.isnan().any(0), log_weight, 0.0)


def tril_of(half: Tensor) -> Tensor:
    """The lower triangular L with L L' = A A', its diagonal positive: no square is formed."""
    upper = torch.linalg.qr(half.mT).R
    return (upper * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None]).mT.contiguous()
