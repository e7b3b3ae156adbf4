"""How a pair is run on K particles of a batch, found out once: what it says holds no value of a tensor."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.inference.pairs import Program, plain_traces, sites
from pyrovae.inference.scales import differs_by_datum, scale_of_plate
from pyrovae.inference.structure import Structure
from pyrovae.inference.terms import tiled_args, to_rows, to_table


class Plan(NamedTuple):
    """How a pair is run for K particles of a batch."""

    structure: Structure
    way: str  # "vectorized", "tiled" or "looped"
    num_particles: int
    num_data: int
    plate_scale: float  # how many data a row stands for

    def traces(self, model: Program, guide: Program, args: Sequence[Any]) -> list[tuple[Trace, Trace]]:
        """Runs of the pair, (model trace, guide trace): K if looped, else one for all particles."""
        if self.way == "vectorized":
            model, guide = self._of_particles(model), self._of_particles(guide)
        if self.way == "tiled":
            args = tiled_args(args, self.num_particles)
        runs = [plain_traces(model, guide, args) for _ in range(self.num_particles if self.way == "looped" else 1)]
        return [(self._rescaled(model_trace), self._rescaled(guide_trace)) for model_trace, guide_trace in runs]

    def table(self, log_prob: Tensor) -> Tensor:
        """Sums over all plates but those of particles and data: (K, N), or (1, N) of one run in a loop."""
        if self.way == "vectorized":
            return to_table(log_prob, self.structure, self.num_particles, self.num_data)
        return to_rows(log_prob, self.structure.dim).reshape(-1, self.num_data)

    def scale_of_data(self, model_trace: Trace) -> float | Tensor:
        """The scale of the observed sites: a number, or (N,)."""
        site = next(site for site in sites(model_trace).values() if site["is_observed"])
        if not differs_by_datum(site["scale"]):
            return site["scale"]
        ones = torch.ones_like(site["log_prob"])
        return (self.table(ones * site["scale"]) / self.table(ones))[0]

    def _of_particles(self, program: Program) -> Program:
        return pyro.plate("_particles", self.num_particles, dim=-self.structure.depth - 1)(program)

    def _rescaled(self, trace: Trace) -> Trace:
        """Each of K copies of a row stands for as many data as the row did."""
        for site in sites(trace).values():
            found = scale_of_plate(site, self.structure)
            if found != self.plate_scale:
                site["scale"] = site["scale"] * (self.plate_scale / found)
        return trace
