"""The loop over blocks of data that every measurement is: seeded, shown, bounded in memory, kept when interrupted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from pyrovae.base.memory import blocks_of, explain_out_of_memory, fitting, out_of_memory, room
from pyrovae.base.progress import bar, kept_on_interrupt
from pyrovae.base.random import Key, is_common, preserve_rng_state, seed_everything
from pyrovae.data.split import Split
from pyrovae.evidence.numerics.digits import warn_of_lost_digits
from pyrovae.pairs.checks.sites import require_no_codes
from pyrovae.pairs.context import in_double, isolated, sets_up_later
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.particles import STRATEGIES, Particles
from pyrovae.pairs.traces import Program, num_rows, plain_traces, row_growth

WHOLE = 100  # data that may well be one block
RUNS_OF_A_LOOK = 4  # that are held at one time: the first, and two particles beside a run of one of them
Part = TypeVar("Part")
Result = TypeVar("Result")


class Pair:
    """A pair while it is measured: how its programs take particles is found out once for blocks of each size.

    Attributes:
        device: where the pair lives.
        measure: observed site -> base measure of its density: "mass", "density" or "factor".
    """

    def __init__(self, model: Program, guide: Program, device: torch.device, plate: str | None) -> None:
        self.model, self.guide, self.device, self.plate = model, guide, device, plate
        self.strategies: dict[int, str] = {}  # data in a block -> how the programs take particles
        self.row_growth = 0  # bytes that one run takes for one more datum, once they were weighed
        self.measure: dict[str, str] = {}
        self.placed: str | None = None  # a site that goes with the place of a row in its batch

    @property
    def strategy(self) -> str:
        """How the programs were run; the slowest way where blocks of unlike size differed."""
        return max(self.strategies.values(), key=list(STRATEGIES).index)

    def particles(self, args: Sequence[Any], strategy: str | None = None) -> Particles:
        """The pair on one block of data, by a strategy or by the fastest; a look leaves random numbers as they were."""
        strategy = strategy or self.strategies.get(num_rows(args))
        with preserve_rng_state():
            return self._seen(Particles(self.model, self.guide, args, plate=self.plate, strategy=strategy))

    def latents(self, args: Sequence[Any]) -> Latents:
        """The latents of one block of data."""
        strategy = self.strategies.get(num_rows(args))
        with preserve_rng_state():
            latents = Latents(self.model, self.guide, args, plate=self.plate, strategy=strategy)
            if not self.strategies:
                warn_of_lost_digits(latents.particles)
        self._seen(latents.particles)
        return latents

    def weigh_rows(self, source: Split, most: int = WHOLE, *, double: bool = False, enough: int = -1) -> None:
        """Finds out what one run takes for each datum; nothing where that is asked of one alone.

        Programs that keep the size of their first data (automatic guides) are run on a block of so many first.

        Args:
            source: the data, where the pair lives.
            most: of them in a block, if rows are not wide.
            double: whether the programs are run on them in double precision.
            enough: bytes; where a run on two of the data needs no more, that stands for what one of them takes.

        Raises:
            InputError: if memory runs out.
        """
        num_data = len(source)
        first = num_data if num_data <= WHOLE else most if sets_up_later(self.model, self.guide) else 0

        def rows(size: int) -> Sequence[Any]:
            batch = source.batch(slice(0, min(size, num_data)))
            return in_double(batch) if double else batch

        with explain_out_of_memory(f"one particle of {max(first, min(2, num_data))} data: lower batch_size"):
            if first:
                self._run(rows(first))
            if num_data > 1:
                self.row_growth = row_growth(self.model, self.guide, rows(2), enough)

    def _run(self, args: Sequence[Any]) -> None:
        try:
            plain_traces(self.model, self.guide, args)
        except Exception as error:  # the look at the block says what is wrong
            if out_of_memory(error):
                raise

    @staticmethod
    def enough(most: int, elements: int | None = None) -> int:
        """Bytes that one run may take for each datum, so that :meth:`rows` gives the most."""
        return room(elements) // (RUNS_OF_A_LOOK * most)

    def rows(self, most: int, elements: int | None = None) -> int:
        """How many data to run at once: a divisor of the most, fewer where one run takes much for each of them."""
        fits = fitting(most, RUNS_OF_A_LOOK * self.row_growth, elements)
        return max(size for size in range(1, fits + 1) if most % size == 0)

    def _seen(self, particles: Particles) -> Particles:
        require_no_codes(particles.structure.codes)
        self.strategies[particles.num_data] = particles.strategy
        self.measure, self.placed = particles.structure.observed, self.placed or particles.placed
        return particles


@dataclass(frozen=True)
class Block:
    """Some of the data, and whom to tell of progress with them: by how much, and in words."""

    index: int
    rows: slice
    tick: Callable[..., Any]
    say: Callable[[str], Any] = lambda words: None

    @property
    def num_data(self) -> int:
        """How many there are."""
        return self.rows.stop - self.rows.start


@dataclass(frozen=True)
class Blocks:
    """How data are cut into blocks.

    Attributes:
        num_data: N.
        batch_size: data in a block, if need be by the pair and the device that it lives on.
        key: of the random numbers, to which the number of the block is added; it begins with what the bar says.
        memory: for what memory may not be enough, and what to lower; "{num_data}" is filled in.
        num_steps: what a block's ``tick`` counts up to; None where it counts data.
    """

    num_data: int
    batch_size: int | Callable[[Pair], int]
    key: Key
    memory: str
    num_steps: int | None = None


def block_by_block(
    model: Program,
    guide: Program,
    blocks: Blocks,
    begin: Callable[[Pair], Callable[[Block], Part]],
    record: Callable[[Sequence[Part], Pair], Result],
    *,
    plate: str | None,
    progress: bool,
) -> Result:
    """Measures data block by block, the pair in eval mode, without gradients and with all else left as it was.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        blocks: of the data.
        begin: what is done once for the pair; it gives what is done with each block.
        record: makes the result of what was done with the blocks so far, and of the pair.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Raises:
        InputError: if memory runs out.
        Interrupted: after Ctrl-C, with the record of the blocks that were done as ``partial``.
    """
    done: list[Part] = []
    with isolated(model, guide) as (model, guide, device):
        pair = Pair(model, guide, device, plate)
        seed_everything(*blocks.key, 0)  # a first run may set programs up (lazy modules), here or in the first block
        work = begin(pair)
        size = blocks.batch_size(pair) if callable(blocks.batch_size) else int(blocks.batch_size)
        slices, steps = blocks_of(blocks.num_data, size), blocks.num_steps
        total, unit = (blocks.num_data, "x") if steps is None else (len(slices) * steps, "step")
        finished = kept_on_interrupt(done, lambda: record(done, pair))
        with finished, bar(shown=progress, delay=2, desc=str(blocks.key[0]), total=total, unit=unit) as shown:
            for number, rows in enumerate(slices):
                index = 0 if is_common() else number
                block = Block(index, rows, shown.update, shown.set_postfix_str)
                seed_everything(*blocks.key, index)
                with explain_out_of_memory(blocks.memory.format(num_data=block.num_data)):
                    done.append(work(block))
        return record(done, pair)
