r"""Mixtures of multivariate Student's t, one for each datum, in unconstrained space: tails that bound the weights.

.. math:: q(u) = \sum_c \pi_c \, t_\nu(u; m_c, L_c L_c^T)

With infinitely many degrees of freedom they are Gaussians.
"""

import math
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.distributions import Chi2

from pyrovae.base.memory import of_device
from pyrovae.base.random import categories, is_common, noise
from pyrovae.evidence.proposals.local import Local, Points
from pyrovae.pairs.latents import Joint

AT_ONCE = {"cpu": 5000, "cuda": 2**18}  # points of all data: on the CPU, what is larger leaves the cache


class Students(Local):
    """C components for each of n data with D coordinates; parameters are float64, draws of a dtype.

    Args:
        log_weight: (C, n), of the components.
        loc: (C, n, D).
        scale_tril: (C, n, D, D), lower triangular.
        df: degrees of freedom.
        dtype: of draws, that of the programs' latents.
    """

    def __init__(self, log_weight: Tensor, loc: Tensor, scale_tril: Tensor, df: float, dtype: torch.dtype) -> None:
        self.log_weight, self.loc, self.scale_tril = log_weight.double(), loc.double(), scale_tril.double()
        self.weight, self.df, self.dtype = self.log_weight.exp(), df, dtype

    @property
    def _at_once(self) -> int:
        """Points of each datum."""
        return max(1, of_device(AT_ONCE, self.loc.device) // self.loc.shape[1])

    @cached_property
    def _whitening(self) -> Tensor:
        """The inverse of each scale_tril: (C, n, D, D)."""
        identity = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        return torch.linalg.solve_triangular(self.scale_tril, identity.expand_as(self.scale_tril), upper=False)

    def draw(self, num_particles: int) -> Tensor:
        parts = [self.draw_of(torch.full((num_particles, self.loc.shape[1]), c)) for c in range(len(self.loc))]
        return torch.cat(parts)

    def sample(self, num_particles: int) -> Tensor:
        if len(self.loc) == 1:
            return self.draw(num_particles)
        return self.draw_of(categories(self.log_weight, num_particles))

    def draw_of(self, component: Tensor) -> Tensor:
        """One draw from each of the components (K, n), a few at a time: (K, n, D)."""
        size = max(1, len(component)) if is_common() else self._at_once  # noise is then that of one datum
        return torch.cat([self._draw_at_once(part) for part in component.split(size)])

    def _draw_at_once(self, component: Tensor) -> Tensor:
        normal = partial(torch.randn, dtype=self.dtype)
        away = noise(normal, *component.shape, self.loc.shape[-1], data=1).double()
        if self.df < math.inf:
            squares = noise(Chi2(self.loc.new_tensor(self.df)).sample, *component.shape, data=1)
            away = away * (self.df / squares).sqrt()[..., None]
        if len(self.loc) == 1:
            return (self.loc[0] + torch.einsum("nij,knj->kni", self.scale_tril[0], away)).to(self.dtype)
        data = torch.arange(self.loc.shape[1])
        moved = (self.scale_tril[component, data] @ away[..., None]).squeeze(-1)
        return (self.loc[component, data] + moved).to(self.dtype)

    def log_prob(self, points: Points, joint: Joint | None = None) -> Tensor:
        each = self.log_prob_of_each(points)
        return each.logsumexp(0) if len(each) > 1 else each[0]

    def log_prob_of_each(self, points: Tensor) -> Tensor:
        """What each component adds to the density: (K, n, D) -> (C, K, n) nats."""
        return torch.stack([self._log_prob(points, c) + self.log_weight[c] for c in range(len(self.loc))])

    def _log_prob(self, points: Tensor, component: int) -> Tensor:
        tril, num_dims = self.scale_tril[component], points.shape[-1]
        square = torch.cat([self._square(part, component) for part in points.split(self._at_once)])
        log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        if self.df == math.inf:
            return -square / 2 - num_dims / 2 * math.log(2 * math.pi) - log_det
        half = (self.df + num_dims) / 2
        constant = math.lgamma(half) - math.lgamma(self.df / 2) - num_dims / 2 * math.log(self.df * math.pi)
        return constant - log_det - half * torch.log1p(square / self.df)

    def _square(self, points: Tensor, component: int) -> Tensor:
        away = points.double() - self.loc[component]
        return torch.einsum("nij,knj->kni", self._whitening[component], away).square().sum(-1)

    def of(self, rows: Tensor) -> "Students":
        """Those of some of the data."""
        return Students(self.log_weight[:, rows], self.loc[:, rows], self.scale_tril[:, rows], self.df, self.dtype)
