"""Particles: a pair on one batch, run for K particles of its N data the fastest way that its programs allow.

"vectorized": one more plate outside all others, so that every draw gains a dimension of K on its left. "tiled": K
copies of the batch as one batch of K N rows; the programs see nothing unusual. "looped": K runs on the batch as it
is. "one by one": a run for each particle of each datum, so that draws may steer control flow.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrovae.base import memory
from pyrovae.base.errors import InputError, first_line
from pyrovae.base.memory import out_of_memory
from pyrovae.base.random import is_common, one_by_one, preserve_rng_state
from pyrovae.pairs.checks import data, looks, weights
from pyrovae.pairs.context import check_one_dtype
from pyrovae.pairs.handlers import Placed, moved, scorable
from pyrovae.pairs.structure import Shown, Structure, describe
from pyrovae.pairs.supports import is_masked
from pyrovae.pairs.terms import SiteTerms, agree, joined, read_terms, sum_by_role, to_rows, to_table
from pyrovae.pairs.traces import (
    Program,
    Sites,
    TracePair,
    each_batched,
    num_rows,
    plain_traces,
    sites,
    sites_of,
)

ONE_BY_ONE = "one by one"
MASKS_OF = 16  # particles, whose masks are compared
FEW = 8  # data, each of which is looked at by both of two particles


class Particles:
    """A pair on one batch, looked at once; outside a value is (K, N, ...), inside as its programs hold it.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        args: what both are called with; the first dimension of the first tensor is the datum (N).
        plate: name of the data plate, where several plates hold all sites.
        strategy: how the programs take particles, where that is known; None finds out.

    Attributes:
        example: one run of the pair, for one particle.
        structure: what it showed.
        moves: latent -> (the auxiliary draw that the guide moves onto its support, the prior of that support).

    Raises:
        InputError: naming the site, if the pair has no per-datum weights or cannot be run on several particles.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        args: Sequence[Any],
        *,
        plate: str | None = None,
        strategy: str | None = None,
    ) -> None:
        model, self.args, self.num_data = scorable(model), args, num_rows(args)
        looked_at = one_row(args, 0) if strategy == ONE_BY_ONE else args
        try:
            self.example = plain_traces(model, guide, looked_at)
        except (RuntimeError, InputError) as error:
            check_one_dtype(error, model, guide, args)
            raise
        moves = weights.moves_of(self.example).items()
        self.moves = {name: (draw, self.example.latent[name]["fn"]) for name, draw in moves}
        if self.moves:
            guide = moved(guide, self.moves)
            self.example = plain_traces(model, guide, looked_at)
        self.model, self.guide = model, guide
        self.placed: str | None = None  # a site that goes with the place of a row in its batch, once looked at
        self.most: int | None = None  # particles at once, where more were too many for the memory there is
        self._two: memory.Storages | None = None  # what a run of two of them allocated, where one was weighed
        self._growth: tuple[memory.Growth, int] | None = None  # of memory with particles of so many data
        self.structure: Structure = describe(self.example, num_rows(looked_at), plate=plate)
        of_guide, of_prior = partial(plain_traces, model, guide, looked_at), partial(sites_of, model, *looked_at)
        data.check_data(self.example, [lambda: of_guide().joint, of_prior])
        with pyro.validation_enabled(False):  # Pyro would refuse the masked values that the look let through
            if strategy is None:
                self.placed = looks.check_weights(self.shown)
            self.strategy: str = strategy or self._strategy_of(self.fastest())
            if strategy is None and any(is_masked(site) for site in self.example.every_site):
                for run in self.traces(MASKS_OF):  # a mask may depend on a draw
                    weights.check_masks_match(run)

    def _strategy_of(self, fastest: "Particles") -> str:
        self._two = fastest._two
        return fastest.strategy

    def on(self, args: Sequence[Any]) -> "Particles":
        """The same for other data, as many of them, without another look."""
        return self._with(args=args)

    def of(self, model: Program, guide: Program) -> "Particles":
        """The same of other programs that have the same plates."""
        return self._with(model=model, guide=guide)

    def by(self, strategy: str) -> "Particles":
        """The same by another strategy."""
        return self._with(strategy=strategy)

    def alone(self, row: int) -> "Particles":
        """The same of one of the data, without another look."""
        return self._with(args=one_row(self.args, row), num_data=1)

    def by_rows(self, rows: Tensor) -> "Particles":
        """The pair on some of the data alone, by the same strategy.

        Raises:
            InputError: where the programs do not run on so few.
        """
        args = each_batched(self.args, lambda arg: arg[rows.to(arg.device)])
        with preserve_rng_state() if is_common() else nullcontext():
            alone = Particles(self.model, self.guide, args, plate=self.structure.plate, strategy=self.strategy)
        alone.moves, alone.most, alone._growth = self.moves, self.most, self._weighed
        return alone

    @property
    def shown(self) -> Shown:
        """What was looked at, and what it showed."""
        return Shown(self.model, self.guide, self.args, self.example, self.structure)

    def at_once(self, elements: int | None = None) -> int:
        """How many particles of all N data to run at once, so that no more numbers than these are drawn or scored.

        Fewer where programs are wide inside: where runs of one particle and of two show that memory would grow by
        more than ``memory.BYTES_FOR_EACH`` of these numbers.
        """
        width = sum(arg[0].numel() for arg in self.args if isinstance(arg, Tensor) and arg.dim() > 0)
        most = max(1, (elements or memory.ELEMENTS_AT_ONCE) // (self.num_data * max(width, 64)))
        most = min(most, self.most or most)
        if most == 1 or self.strategy == ONE_BY_ONE:
            return most
        growth, num_data = self._weighed  # of one more particle, in proportion to the data that it is of
        try:
            weighed = growth(memory.room(elements) * num_data // (most * self.num_data))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return most  # whoever runs them halves a block that is too large, or says what to lower
        return memory.fitting(most, -(-weighed * self.num_data // num_data), elements)

    @property
    def _weighed(self) -> tuple[memory.Growth, int]:
        if self._growth is None:
            self._growth = memory.Growth(self.log_terms, self._two), self.num_data
        return self._growth

    # --------------------------------------------------------------------------------------------------- what is run

    def log_terms(self, num_particles: int) -> SiteTerms:
        """The densities of K draws from the guide, (K, N) for each site."""
        if not is_common():
            return STRATEGIES[self.strategy](self, num_particles)
        return self._one_after_the_other(num_particles)

    def _one_after_the_other(self, num_particles: int) -> SiteTerms:
        """Those of each datum by itself, from the same random numbers."""

        def draw(row: int) -> dict[str, Tensor]:
            found = STRATEGIES[self.strategy](self.alone(row), num_particles)
            return {f"{role} {site}": log_prob for role, terms in enumerate(found) for site, log_prob in terms.items()}

        tables = one_by_one(draw, self.num_data, 1)
        return SiteTerms(*({n[2:]: t for n, t in tables.items() if n[0] == str(role)} for role in range(3)))

    def traces(self, num_particles: int, run: Callable[..., TracePair] = plain_traces) -> list[TracePair]:
        """Runs of the pair: K of one particle where they are looped, else one of all K."""
        if self.strategy == "looped":
            return [run(self.model, self.guide, self.args) for _ in range(num_particles)]
        model, guide = (self._widened(program, num_particles) for program in (self.model, self.guide))
        return [run(model, guide, self._tiled(num_particles))]

    def read(self, runs: Sequence[TracePair], num_particles: int) -> SiteTerms:
        """The densities of all of K particles, (K, N) for each site, in runs that :meth:`traces` made."""
        return joined([read_terms(run, lambda log_prob: self.table(log_prob, num_particles)) for run in runs])

    def sites(self, program: Program, num_particles: int) -> Sites:
        """The sites of one run of a program on K particles (of one, where they are looped)."""
        return sites_of(self._widened(program, num_particles), *self._tiled(num_particles))

    # -------------------------------------------------------------------------------------------- how particles lie

    @property
    def is_vectorized(self) -> bool:
        """Whether particles are a plate of their own."""
        return self.strategy == "vectorized"

    def table(self, log_prob: Tensor, num_particles: int) -> Tensor:
        """Sums over all plates but those of particles and data: (K, N), or (1, N) of one run in a loop."""
        if self.is_vectorized:
            return to_table(log_prob, self.structure, num_particles, self.num_data)
        return to_rows(log_prob, self.structure.dim).reshape(-1, self.num_data)

    def from_program(self, value: Tensor, batch_dim: int) -> Tensor:
        """A value as a run holds it -> (K, N, *plates inside a datum, *event).

        Args:
            value: of a site.
            batch_dim: dimensions of plates that it has in a plain run.
        """
        if not self.is_vectorized:
            value = value.reshape((1,) * (self.structure.depth - batch_dim) + value.shape)
            value = value.movedim(self.structure.depth + self.structure.dim, 0)
            return value.unflatten(0, (-1, self.num_data))
        return value.movedim(self.structure.depth + 1 + self.structure.dim, 1)

    def to_program(self, value: Tensor, batch_dim: int) -> Tensor:
        """The inverse of :meth:`from_program`."""
        depth, dim = self.structure.depth, self.structure.dim
        if self.is_vectorized:
            return value.movedim(1, depth + 1 + dim)
        value = value.flatten(0, 1).movedim(0, depth + dim)
        return value.reshape(value.shape[depth - batch_dim :])

    # -------------------------------------------------------------------------------------------------------- inside

    def _again(self) -> TracePair:
        return plain_traces(self.model, self.guide, self.args)

    def _with(self, **changed: Any) -> "Particles":
        other = copy.copy(self)
        vars(other).update(changed, _growth=None, _two=None)
        return other

    def _widened(self, program: Program, num_particles: int) -> Program:
        if not self.is_vectorized:
            return program
        return pyro.plate("_particles", num_particles, dim=-self.structure.depth - 1)(program)

    def _tiled(self, num_particles: int) -> Sequence[Any]:
        if self.strategy != "tiled":
            return self.args
        return each_batched(self.args, lambda arg: arg.repeat(num_particles, *[1] * (arg.dim() - 1)))

    def fastest(self) -> "Particles":
        """The same by the first strategy by which two particles can be run.

        A program may take the extra particle dimension without an error and yet confuse it with another one, so
        two vectorized particles are compared with plain runs on the same draws: of many data with one run, whose rows
        have the draws of the first particle and of the second by turns.
        """
        failures = []
        for strategy in ("vectorized", "tiled", "looped"):
            tried = self.by(strategy)
            try:
                runs, table = tried._two_weighed()
                if not tried.is_vectorized or tried._vectorizes(runs, table):
                    return tried
            except Exception as error:
                if out_of_memory(error):
                    raise
                failures.append(f"{strategy}: {first_line(error)}")
        raise InputError(
            "the programs cannot be run on a batch of several particles (" + "; ".join(failures) + "). "
            "If sampled values steer their control flow, use vectorize=False"
        )

    def _two_weighed(self) -> tuple[list[TracePair], SiteTerms]:
        """Runs of two particles, and their densities (2, N); what they allocated is kept, if it holds no gradients."""
        two = None if torch.is_grad_enabled() else memory.Storages()
        with two or nullcontext():
            runs = self.traces(2)
            table = self.read(runs, 2)
        self._two = two
        return runs, table

    def _vectorizes(self, runs: Sequence[TracePair], terms: SiteTerms) -> bool:
        """Whether plain runs on the draws of two particles have the densities that a run of both has."""
        (run,) = runs
        table, plain, rows = sum_by_role(terms), self.by("looped"), torch.arange(self.num_data)
        for particle in [rows % 2] if self.num_data > FEW else [0 * rows, 0 * rows + 1]:
            draws = {}
            for name, site in sites(self.example.guide, moved=True).items():
                value, event_dim = run.draws[name], len(site["fn"].event_shape)
                draws[name] = self._of_each(value, event_dim, particle).reshape(site["value"].shape)
            alone = sum_by_role(plain.read([plain_traces(self.model, Placed(draws)(self.guide), self.args)], 1))
            if not all(agree(a[particle, rows], b[0]) for a, b in zip(table, alone, strict=True)):
                return False
        return True

    def _of_each(self, value: Tensor, event_dim: int, particle: Tensor) -> Tensor:
        """Of two particles' values (2, *batch, *event) those of the one that stands for each datum."""
        first, second = value.unbind(-self.structure.depth - 1 - event_dim)
        dim = self.structure.dim - event_dim
        shape = [-1, *[1] * (-dim - 1)]
        return torch.where(particle.to(value.device).reshape(shape) == 0, first, second)

    def _in_runs(self, num_particles: int) -> SiteTerms:
        return self.read(self.traces(num_particles), num_particles)

    def _one_by_one(self, num_particles: int) -> SiteTerms:
        # A draw may decide which sites there are, so only their sums compare.
        alone = [one_row(self.args, row) for row in range(self.num_data)]
        table = torch.stack([self._one_draw(datum) for _ in range(num_particles) for datum in alone])
        columns = table.reshape(num_particles, self.num_data, 3).unbind(-1)
        return SiteTerms(*({"all sites": column} for column in columns))

    def _one_draw(self, datum: Sequence[Any]) -> Tensor:
        one = Particles(self.model, self.guide, datum, plate=self.structure.plate, strategy="looped")
        terms = sum_by_role(one.read([one.example], 1))
        return torch.stack([term.reshape(()) for term in terms])


STRATEGIES: dict[str, Callable[[Particles, int], SiteTerms]] = {  # from the fastest to the slowest
    **dict.fromkeys(("vectorized", "tiled", "looped"), Particles._in_runs),
    ONE_BY_ONE: Particles._one_by_one,
}


def one_row(args: Sequence[Any], row: int) -> list[Any]:
    """The arguments for one datum: batches of one."""
    return each_batched(args, lambda arg: arg[row : row + 1])
