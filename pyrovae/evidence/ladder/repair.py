"""What the guide's draws do not vouch for: repaired block by block, and what is left of all blocks together.

A block climbs by itself. What nothing vouches for then waits until there is a block of such data, or no other block, as
there are few in each and chains of few data keep the machine no busier than those of one.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, first_line
from pyrovae.base.memory import out_of_memory
from pyrovae.evidence.blocks import Block, Pair
from pyrovae.evidence.ladder.chains import Taken, annealed
from pyrovae.evidence.ladder.climb import Climb, require_climbable
from pyrovae.evidence.ladder.climbed import ROUTES, Climbed
from pyrovae.evidence.ladder.kernels import Kernels
from pyrovae.evidence.ladder.summed import Summed, without_discrete
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.traces import each_batched, joined_rows

CLIMBING = 0.8  # of the time that data take which may climb, about
REFUSED = InputError, RuntimeError, FloatingPointError, MemoryError


class Repair:
    """What better proposals give for the data of an evaluation, one block after another.

    Args:
        pair: that is measured.
        plan: of the evaluation.
        num_rows: data in a block.
        num_data: N.
        compiles: whether densities are replayed as compiled kernels.

    Attributes:
        staying: why data stay at the encoder; None where none does that could have climbed.
        late: what became of rows that waited, numbered as of all data.
    """

    def __init__(self, pair: Pair, plan: Plan, num_rows: int, num_data: int, *, compiles: bool) -> None:
        self.pair, self.plan, self.num_rows, self.num_data = pair, plan, num_rows, num_data
        self.kernels = Kernels(num_rows) if compiles else None  # of better proposals
        self.staying: str | None = None
        self.stays = plan.method == "importance" or not plan.affords_pilot  # all data
        self.routes: Counter[str] = Counter()  # data that took each, so far
        self.alone = True  # whether some rows can be run by themselves
        self.waiting = list[tuple[Taken, Sequence[Any]]]()  # rows of all data that are to be annealed, and they
        self.late = list[Climbed]()

    @property
    def amount(self) -> float:
        """Of what is to be done for data, so much is done here."""
        return 0.0 if self.stays else CLIMBING

    def block(self, particles: Particles, block: Block, unvouched: Callable[[], Tensor]) -> list[Climbed]:
        """What better proposals give for the data of a block that need one; what has waited long enough is annealed.

        Args:
            particles: of the block.
            block: where it lies.
            unvouched: whether the guide's K draws say of themselves that they are not to be trusted, (n,).
        """
        climbed = [] if self.stays else self._climbed(particles, block, unvouched())
        if sum(len(one.rows) for one, _ in self.waiting) >= self.num_rows or block.rows.stop == self.num_data:
            self._anneal_waiting(block)
        return climbed

    def _climbed(self, particles: Particles, block: Block, unvouched: Tensor) -> list[Climbed]:
        """What better proposals give, for the data that need one."""
        left, climbing = block.num_data, self.amount

        def tell(route: str, num_data: int) -> None:
            nonlocal left
            left -= num_data
            self.routes[route] += num_data
            block.tick(climbing * num_data)
            block.say(", ".join(f"{name} {count:,}" for name, count in self.routes.items()))

        climbed = self._climb(particles, block, unvouched, tell)
        tell(ROUTES[0], left)
        return climbed

    def _climb(
        self, particles: Particles, block: Block, unvouched: Tensor, tell: Callable[[str, int], Any]
    ) -> list[Climbed]:
        try:
            latents = self._climbable(particles)
            plan = self.plan
            settings = plan.num_particles, plan.method, self._budget, plan.seed, plan.num_kept
            climb = Climb(*settings, self._starts(block))
            climbed, left = climb.block(latents, partial(self._of_rows, latents), block.index, unvouched, tell)
        except REFUSED as error:  # what the guide gave is kept
            self._stay(error)
            return []
        climbed += self._anneal(left, latents, block, tell)
        self.staying = next((one.reason for one in climbed if one.reason), self.staying)
        return climbed

    def _stay(self, error: BaseException) -> None:
        self.staying = "not enough memory for better proposals" if out_of_memory(error) else first_line(error)

    def _starts(self, block: Block) -> Values | None:
        """From where modes of these data are sought too, site -> (S, n, ...)."""
        starts = self.plan.starts
        return starts and {name: value[:, block.rows].to(self.pair.device) for name, value in starts.items()}

    @property
    def _budget(self) -> float:
        return self.plan.budget or math.inf

    def _anneal(self, left: Sequence[Taken], latents: Latents, block: Block, tell: Callable[..., Any]) -> list[Climbed]:
        """Anneals what nothing vouches for: together with such data of other blocks, as there are few in each."""
        for one in left:
            tell("annealed", len(one.rows))
        if not self.alone or self.pair.placed is not None:
            return [climbed for one in left for climbed in self._annealed(one, lambda: latents, block)]
        for one in left:
            args = each_batched(latents.args, lambda arg: arg[one.rows.to(arg.device)])  # noqa: B023
            self.waiting.append((one._replace(rows=one.rows + block.rows.start), args))
        return []

    def _anneal_waiting(self, block: Block) -> None:
        """Anneals all that waits, those of one kind together."""
        waiting, self.waiting = self.waiting, []
        for kind in sorted({one.start for one, _ in waiting}):
            alike = [(one, args) for one, args in waiting if one.start == kind]
            taken, args = Taken.joined([one for one, _ in alike]), joined_rows([args for _, args in alike])
            places = taken._replace(rows=torch.arange(len(taken.rows), device=taken.rows.device))
            found = self._annealed(places, partial(self._latents, args), block)
            self.late += [climbed.among(taken.rows) for climbed in found]
            self.staying = next((one.reason for one in found if one.reason), self.staying)

    def _latents(self, args: Sequence[Any]) -> Latents:
        return self._with_kernels(without_discrete(Latents.of(self.pair.particles(args))))

    def _annealed(self, taken: Taken, latents: Callable[[], Latents], block: Block) -> list[Climbed]:
        """What chains give for some rows of latents; nothing where these cannot be run, and draws are kept."""
        try:
            latents_of = partial(self._of_rows, latents())
            key = self.plan.seed, block.index, len(taken.rows)
            return annealed(taken, latents_of, self._budget, key, self.plan.num_kept)
        except REFUSED as error:
            self._stay(error)
            return []

    def _with_kernels(self, latents: Latents) -> Latents:
        latents.kernels = None if isinstance(latents, Summed) else self.kernels
        return latents

    def _climbable(self, particles: Particles) -> Latents:
        """The latents of a block of a pair that can climb; where one cannot, no block is tried again."""
        self.stays = True
        self.plan.check_climbable()
        latents = without_discrete(Latents.of(particles))
        require_climbable(latents)
        self.stays = False
        return latents

    def _of_rows(self, latents: Latents, rows: Tensor) -> Latents:
        """Latents of some rows of a block: alone, unless programs demand all rows or know one by its place."""
        if self.alone and self.pair.placed is None:
            try:
                return self._with_kernels(without_discrete(Latents.of(latents.particles.by_rows(rows))))
            except (ValueError, RuntimeError) as error:
                if out_of_memory(error):
                    raise
                self.alone = False
        return latents.only(rows)
