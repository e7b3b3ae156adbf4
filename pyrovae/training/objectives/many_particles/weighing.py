"""What bounds of several particles share: the importance weights of each datum, and the scale that stays outside."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyrovae.pairs.particles import Particles
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair, plain_traces
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.bounds import Bound, Table
from pyrovae.training.objectives.objective import Objective
from pyrovae.training.objectives.scales import require_gradients, scale_of_data, scales_all_alike


@dataclass(frozen=True)
class Weighed:
    """Scored runs of K particles, and what bounds are made of; tables are (K, N), float64, in nats."""

    runs: list[TracePair]
    particles: Particles
    num_particles: int
    scale: float | Tensor  # of the bound of a datum, outside of the logarithm: a number, or (N,)

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z), each site by its power: its scale over that of the datum."""
        return self.table_of(bounds.log_joint) / self.scale

    @property
    def log_guide(self) -> Tensor:
        """log q(z|x), likewise."""
        return self.table_of(bounds.log_guide) / self.scale

    @property
    def log_density(self) -> Tensor:
        """log q(z|x) without any scale: that of which draws are draws."""
        return self.table_of(bounds.log_density)

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z|x), with powers."""
        return self.log_joint - self.log_guide

    def table_of(self, read: Callable[[TracePair, Table], Tensor]) -> Tensor:
        """What is read off each run, for all particles."""
        return torch.cat([read(run, self.table) for run in self.runs])

    def table(self, log_prob: Tensor) -> Tensor:
        """A log density of one run, summed over all plates but those of particles and data."""
        return self.particles.table(log_prob, self.num_particles)

    def bound(self, per_datum: Tensor) -> Bound:
        """The bound of a batch from that of each datum, (N,), beside the ELBO's terms of the same runs."""
        terms = bounds.mean_terms(self.runs, self.num_particles)
        return Bound(-(self.scale * per_datum).sum(), *terms)


class ParticleObjective(Objective):
    """A bound from the importance weights of K particles of each datum.

    The scale s_n of the bound of a datum is that of the data plate, and of handlers around both programs where these
    scale all sites alike; it stays outside of every logarithm. Other scales are powers within the weight, whose log is
    the sum over sites j of s_j log w_nkj / s_n: beta of a KL warm-up, that of a likelihood.
    """

    needs_gradients = True

    def __init__(self, num_particles: int, *, vectorize_particles: bool = True, plate: str | None = None) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, plate=plate)
        self._scales_all_alike = False

    def weighed(
        self, model: Program, guide: Program, args: Any, run: Callable[..., TracePair] = plain_traces
    ) -> Weighed:
        """K particles of each datum, scored."""
        particles = self.prepare(model, guide, *args)
        runs = [found.score() for found in self.runs(model, guide, *args, run=run)]
        table = partial(particles.table, num_particles=self.num_particles)
        scale = scale_of_data(runs[0], table) if self._scales_all_alike else particles.structure.plate_scale
        return Weighed(runs, particles, self.num_particles, scale)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        if self.needs_gradients:
            require_gradients(type(self).__name__, run)
        self._scales_all_alike = scales_all_alike(structure, run)


def weighted(weight: Tensor, log_density: Tensor) -> Tensor:
    """The mean of log densities by weights that sum to one: (K, N) -> (N,); what weighs nothing adds nothing."""
    return torch.where(weight > 0, weight * log_density, 0.0).sum(0)


def log_mean_exp(log_weight: Tensor, dim: int = 0) -> Tensor:
    """The log of the mean weight of each datum: (K, N) -> (N,)."""
    return log_weight.logsumexp(dim) - math.log(log_weight.shape[dim])
