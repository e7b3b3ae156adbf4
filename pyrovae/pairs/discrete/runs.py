r"""A pair run at every value of its discrete latents, the continuous ones drawn: M values, K particles, N data.

.. math:: E_q[f] = E \Big[ \sum_d q(d \mid x, u_d) f(d, u_d) \Big], \qquad u_d \sim q(u \mid x, d)

(Rao-Blackwellisation): each value has draws of its own of the continuous latents, and weighs by the mass that the guide
gives it there.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.pairs.discrete.values import every_value
from pyrovae.pairs.handlers import Placed
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.supports import base_measure
from pyrovae.pairs.traces import TracePair

Table = Callable[[Tensor], Tensor]


class AtEveryValue:
    """Runs of a pair at every value of its discrete latents.

    Args:
        particles: of the pair on one batch; it is run on others of as many data.
        num_particles: K, draws of the continuous latents at each value.

    Attributes:
        discrete: site -> its values (M, 1, ...); empty where no latent is discrete, and then M is 1.
        num_values: M.

    Raises:
        InputError: naming the site, where there are too many values, or no finite number of them.
    """

    def __init__(self, particles: Particles, num_particles: int = 1) -> None:
        latent = particles.example.latent
        self.discrete: Values = every_value(Latents.of(particles)) if discrete_latents(particles.example) else {}
        self.num_values = len(next(iter(self.discrete.values()))) if self.discrete else 1
        self.num_particles = num_particles
        self.plates = {n: latent[n]["value"].dim() - len(latent[n]["fn"].event_shape) for n in self.discrete}

    def runs(self, particles: Particles) -> list[TracePair]:
        """M K runs of one particle where they are looped, else one of all M K."""
        if particles.strategy != "looped":
            return self._at(particles, self.discrete, self.num_particles)
        alone = [{n: v[m : m + 1] for n, v in self.discrete.items()} for m in range(self.num_values)]
        return [run for one in alone for run in self._at(particles, one, 1)]

    def tables(
        self, particles: Particles, runs: Sequence[TracePair], read: Callable[[TracePair, Table], Tensor]
    ) -> Tensor:
        """What ``read`` makes of each scored run: (M, K, N)."""

        def table(log_prob: Tensor) -> Tensor:
            return particles.table(log_prob, self.num_values * self.num_particles)

        return torch.cat([read(run, table) for run in runs]).unflatten(0, (self.num_values, self.num_particles))

    def log_mass(self, run: TracePair, table: Table) -> Tensor:
        """log q(d | x, u) of the discrete latents of a scored run, whatever their scales and masks."""
        nothing = torch.zeros_like(table(next(iter(run.joint.values()))["log_prob"].detach()), dtype=torch.float64)
        masses = [table(run.drawn[name]["unscaled_log_prob"]).double() for name in self.discrete]
        return torch.stack([nothing, *masses]).sum(0)

    def _at(self, particles: Particles, values: Values, copies: int) -> list[TracePair]:
        placed = {}
        for name, value in values.items():
            of_each = value.expand(-1, particles.num_data, *value.shape[2:]).repeat_interleave(copies, 0)
            placed[name] = particles.to_program(of_each, self.plates[name])
        num_values = len(next(iter(values.values()))) if values else 1
        return particles.of(particles.model, Placed(placed)(particles.guide)).traces(num_values * self.num_particles)


def discrete_latents(run: TracePair) -> list[str]:
    """The names of the latents that have masses."""
    return [name for name, site in run.latent.items() if base_measure(site["fn"]) == "mass"]
