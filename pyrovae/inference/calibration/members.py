r"""Data simulated from a model, and the latents that made them ranked among draws: the guide's, and resampled ones.

Of K particles z_k ~ q(z|x) the first L are the guide's draws; L others are taken in proportion to

.. math:: w_k = p(x, z_k) / q(z_k \mid x)

What is ranked is every coordinate of every latent site, and log p(x, z).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.base.memory import memory_advice
from pyrovae.inference.calibration.ranks import rank_members
from pyrovae.inference.latents import Latents, Values
from pyrovae.inference.pairs import Program, plain_traces
from pyrovae.inference.plain import coordinates
from pyrovae.inference.resampling import resample
from pyrovae.inference.simulation import simulate
from pyrovae.inference.supports import refuse_masked
from pyrovae.inference.terms import WAYS

LOG_JOINT = "log p(x, z)"


class Tables(NamedTuple):
    """Ranks of the members of n simulations, (L + 1, n, D) for each kind of draws; the truth is the first member."""

    guide: Tensor
    resampled: Tensor


class _Members(NamedTuple):
    """What is ranked in n simulations: the truth at a random row among K particles, so that no rounding marks it."""

    quantities: Tensor  # (K + 1, n, D)
    log_weight: Tensor  # (K + 1, n)
    truth: Tensor  # (n,): its row

    def others(self) -> Tensor:
        """The rows of the particles, (K, n)."""
        rows = torch.arange(len(self.quantities) - 1, device=self.truth.device)[:, None]
        return rows + (rows >= self.truth)

    def ranks(self, rows: Tensor) -> Tensor:
        """Ranks of the truth, first, and of the members at rows (L, n): (L + 1, n, D)."""
        chosen = torch.cat([self.truth[None], rows])[..., None].expand(-1, -1, self.quantities.shape[-1])
        return rank_members(self.quantities.gather(0, chosen).cpu()).int()


class Ranking:
    """Ranks of the truth among its draws, block by block of simulations."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        template: Sequence[Tensor],
        num_draws: int,
        num_particles: int,
        plate: str | None,
    ) -> None:
        self.model, self.guide, self.template, self.plate = model, guide, template, plate
        self.num_draws, self.num_particles = num_draws, num_particles
        self.names: list[str] = []
        self.ways: dict[int, str] = {}  # data in a block -> how the programs take it

    @property
    def way(self) -> str:
        """How the programs were run; the slowest way where blocks of unlike size differed."""
        return max(self.ways.values(), key=list(WAYS).index)

    def block(self, rows: slice) -> Tables:
        """Simulates, draws and ranks; the seed is the caller's."""
        num_data = rows.stop - rows.start
        args, truth = simulate(self.model, self.template, rows)
        latents = Latents(self.model, self.guide, args, plate=self.plate, way=self.ways.get(num_data))
        self.ways[num_data] = latents.way
        refuse_masked(*plain_traces(latents.model, latents.guide, latents.args), latents.sites)
        with memory_advice(f"{self.num_particles} particles of {num_data} data: lower batch_size or num_particles"):
            members = self._members(latents, latents.lifted(truth))
            others = members.others()
            chosen = others.gather(0, resample(members.log_weight.gather(0, others), self.num_draws))
            return Tables(members.ranks(others[: self.num_draws]), members.ranks(chosen))

    def _members(self, latents: Latents, truth: Values) -> _Members:
        sizes = latents.part_sizes(self.num_particles + 1)
        parts = [latents.draw(size) for size in sizes]
        values = {name: torch.cat([part[name] for part in parts]) for name in truth}
        row = torch.randint(self.num_particles + 1, (latents.num_data,), device=latents.args[0].device)
        for name, value in truth.items():
            values[name][row, torch.arange(latents.num_data, device=row.device)] = value[0]
        log_joint, log_weight = _scored(latents, values, sizes)
        self.names = [*coordinates({name: value.shape[2:] for name, value in values.items()}), LOG_JOINT]
        columns = [value.reshape(*log_joint.shape, -1).double() for value in values.values()]
        quantities = torch.cat([*columns, log_joint[..., None]], -1)
        _check_defined(quantities, self.names)
        return _Members(quantities, log_weight, row)


def _scored(latents: Latents, values: Values, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """log p(x, z) and log p(x, z) - log q(z|x) of latents (K, n, ...), so many particles at once: (K, n) each."""
    split = {name: value.split(sizes) for name, value in values.items()}
    parts = [{name: value[number] for name, value in split.items()} for number in range(len(sizes))]
    joints = [latents.log_joint(part) for part in parts]
    log_joint = torch.cat([joint.log_likelihood.double() + joint.log_prior.double() for joint in joints])
    return log_joint, log_joint - torch.cat([latents.log_guide(part).double() for part in parts])


def _check_defined(quantities: Tensor, names: Sequence[str]) -> None:
    undefined = quantities.isnan().any(0)
    for name, column in zip(names, undefined.unbind(-1), strict=True):
        if column.any():
            raise FloatingPointError(
                f"'{name}' is NaN for {int(column.sum())} of {len(column)} simulations; look at its parameters there"
            )
