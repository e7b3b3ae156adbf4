r"""The weights of a block of data: looked at once, then drawn, a block of particles at a time.

.. math:: \log w_{kn} = \log p(x_n \mid z_{kn}) + \log p(z_{kn}) - \log q(z_{kn} \mid x_n)

Noise is keyed by (seed, data block, particle block): a replay of compiled kernels draws what the programs draw.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base import memory
from pyrovae.base.errors import InputError, NotCompiled, check_at_least_one, first_line, warn, whole
from pyrovae.base.memory import of_device, out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.evidence.blocks import Block, Pair
from pyrovae.evidence.compiled import Replay, Replayed
from pyrovae.evidence.digits import NUM_DRAWS, Compared, check_double, compared
from pyrovae.evidence.ladder.chains import Taken, annealed
from pyrovae.evidence.ladder.climb import METHODS, Climb, require_climbable
from pyrovae.evidence.ladder.climbed import ROUTES, Climbed
from pyrovae.evidence.ladder.estimates import PILOT
from pyrovae.evidence.ladder.kernels import Kernels
from pyrovae.evidence.ladder.summed import Summed, without_discrete
from pyrovae.evidence.proposals.defensive import defended
from pyrovae.evidence.running_sums import Moments, Tally, Totals, tally
from pyrovae.pairs.checks.coverage import NUM_DRAWS as PRIOR_DRAWS
from pyrovae.pairs.checks.coverage import told_beyond
from pyrovae.pairs.context import in_double
from pyrovae.pairs.graphs import Untraceable, compiler_missing
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.particles import ONE_BY_ONE, Particles
from pyrovae.pairs.terms import SiteTerms, analytic_kl, check_finite
from pyrovae.pairs.traces import each_batched, joined_rows

MEMORY = "lower particle_batch, then batch_size (the number of particles itself need not change)"
REPAID = 10**7  # decoder passes, N K, after which compiling has cost less than it saved, on two cores
ON_CUDA = 2**28  # numbers scored at once there, where memory allows: more keep the device no busier
DATA_AT_ONCE = {"cpu": 100, "cuda": 1000}  # at most, where the caller does not say
CLIMBING = 0.8  # of the time that data take which may climb, about
REFUSED = InputError, RuntimeError, FloatingPointError, MemoryError
WEIGHTS_AT_ONCE = {"cpu": 2**18, "cuda": 2**23}  # in one table, float64: 2 MB and 64 MB


@dataclass(frozen=True)
class Plan:
    """How the particles of an evaluation are drawn: the arguments of :func:`~pyrovae.evaluate`, checked.

    Raises:
        InputError: for numbers that no evaluation can use.
    """

    num_particles: int
    seed: int
    batch_size: int | None
    particle_batch: int | None
    plate: str | None
    vectorize: bool
    defensive: float
    compile: bool | str = "auto"
    dtype: str | None = None
    method: str = "importance"
    budget: int | None = None

    def __post_init__(self) -> None:
        check_at_least_one(num_particles=self.num_particles)
        for name in ("num_particles", "seed", "batch_size", "particle_batch", "budget"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole(name, value))
        sizes = {name: getattr(self, name) for name in ("batch_size", "particle_batch")}
        if wrong := [f"{name}={size}" for name, size in sizes.items() if size is not None and size < 1]:
            raise InputError(f"block sizes must be at least 1, got {', '.join(wrong)}")
        if not 0 <= self.defensive < 1:
            raise InputError(f"defensive is the prior's fraction of the draws, from 0 to below 1; got {self.defensive}")
        if self.defensive and not self.vectorize:
            raise InputError("defensive= runs many particles of many data at once: leave vectorize=False out")
        if self.method not in METHODS:
            raise InputError(f"method is one of {', '.join(METHODS)}, got {self.method!r}")
        if self.method == "annealed" and (self.defensive or not self.vectorize):
            raise InputError("method='annealed' takes neither defensive= nor vectorize=False: leave these out")
        if self.budget is not None and self.budget < self.num_particles:
            raise InputError(
                f"budget is decoder passes for each datum, at least the {self.num_particles} of the particles; "
                f"got {self.budget}: raise it, or lower the number of particles"
            )
        if self.compile not in (True, False, "auto"):
            raise InputError(f'compile is True, False or "auto", got {self.compile!r}')
        if self.dtype not in (None, "float64"):
            raise InputError(f'dtype is None (that of the programs) or "float64", got {self.dtype!r}')
        if self.compile is True and not self.may_compile:
            raise InputError(
                "compile=True takes neither defensive= nor vectorize=False: leave the one or the other out"
            )

    @property
    def may_compile(self) -> bool:
        """Whether draws are of a kind that a graph can hold."""
        return self.vectorize and not self.defensive

    @property
    def affords_pilot(self) -> bool:
        """Whether the budget has draws left that could show what the guide's are worth."""
        return self.budget is None or self.budget >= self.num_particles + PILOT

    def check_climbable(self) -> None:
        """Raises InputError, saying why, if another proposal than the guide cannot be taken."""
        if not self.vectorize:
            raise InputError("vectorize=False runs one particle of one datum at a time")
        if self.defensive:
            raise InputError("defensive= is a proposal of its own")

    def rows(self, pair: Pair) -> int:
        """Data in a block: as was said, or so many that neither a run nor the table of their weights grows large."""
        if self.batch_size:
            return self.batch_size
        most = data_at_once(self.num_particles, pair.device)
        return pair.rows(most, elements_at_once(pair.device))

    def compiles(self, num_data: int, device: torch.device) -> bool:
        """Whether draws are compiled: as was said, or as it is worth it."""
        if isinstance(self.compile, bool) or not self.may_compile:
            return self.compile is True
        return device.type == "cuda" or (num_data * self.num_particles >= REPAID and not compiler_missing(device))


Proposal = Callable[[Sequence[Any], int], SiteTerms]  # data and K -> the densities of K draws


class Weights(NamedTuple):
    """What K particles of the n data of one block leave behind; one table alone grows with K."""

    log_weight: Tensor  # (K, n), float64
    terms: Moments  # (2, n): of log p(x|z), and of log q(z|x) - log p(z)
    resolution: Tensor  # (n,): what rounding can make of equal weights, in nats; NaN where those say nothing
    kl_prior_analytic: Tensor  # (n,)
    climbed: Sequence[Climbed] = ()  # what better proposals gave in place of the encoder, for some of the data


class Evaluation:
    """One evaluation of N data: what stays the same from block to block."""

    def __init__(self, pair: Pair, plan: Plan, num_data: int) -> None:
        self.pair, self.plan = pair, plan
        self.elements, self.sizes = elements_at_once(pair.device), dict[int, int]()  # data in a block -> K at once
        self.compiles = plan.compiles(num_data, pair.device)
        self.num_rows = min(num_data, plan.rows(pair))
        self.replayed: dict[int, Replayed] = {}  # particles -> their draw, for blocks of num_rows data
        self.compared, self.coarsest = list[Compared](), -1.0  # with double; nats, of a block compared
        self.kernels = Kernels(self.num_rows) if self.compiles else None  # of better proposals
        self.staying: str | None = None  # why data stay at the encoder
        self.stays = plan.method == "importance" or not plan.affords_pilot  # all of them
        self.routes: Counter[str] = Counter()  # data that took each, so far
        self.beyond: str | None = None  # why the ELBO is minus infinity, whatever the draws show
        self.alone, self.halved = True, False  # whether some rows can be run by themselves; whether memory ran out
        self.num_data = num_data
        self.waiting = list[tuple[Taken, Sequence[Any]]]()  # rows of all data that are to be annealed, and they
        self.late = list[Climbed]()  # what became of such rows

    def block(self, args: Sequence[Any], block: Block) -> Weights:
        """The weights of one block of data."""
        args = in_double(args) if self.plan.dtype else args
        particles = self.pair.particles(args, None if self.plan.vectorize else ONE_BY_ONE)
        if self.plan.vectorize:
            particles.check_supports(PRIOR_DRAWS if block.index == 0 else max(200, 2 * block.num_data))
        self.beyond = self.beyond or told_beyond(particles.example)
        if self.plan.dtype:
            check_double(particles)
        climbing = 0.0 if self.stays else CLIMBING
        totals, structure = self._totals(particles, block, 1 - climbing), particles.structure
        self._compare(particles, block, float(totals.resolution.max()))
        # Discrete draws may all be equal, and so their weights, however wrong the guide is.
        nats = totals.resolution_of_distinct if structure.has_discrete else totals.resolution
        kl = torch.full((block.num_data,), math.nan)
        if self.plan.vectorize and not self.plan.defensive:
            kl = analytic_kl(particles.example, structure, block.num_data)
        climbed = self._climbed(particles, block, climbing) if climbing else []
        if sum(len(one.rows) for one, _ in self.waiting) >= self.num_rows or block.rows.stop == self.num_data:
            self._anneal_waiting(block)
        return Weights(totals.log_weight, totals.terms, nats, kl.double(), climbed)

    def _climbed(self, particles: Particles, block: Block, climbing: float) -> list[Climbed]:
        """What better proposals give, for the data that need one."""
        left = block.num_data

        def tell(route: str, num_data: int) -> None:
            nonlocal left
            left -= num_data
            self.routes[route] += num_data
            block.tick(climbing * num_data)
            block.say(", ".join(f"{name} {count:,}" for name, count in self.routes.items()))

        climbed = self._climb(particles, block, tell)
        tell(ROUTES[0], left)
        return climbed

    def _climb(self, particles: Particles, block: Block, tell: Callable[[str, int], Any]) -> list[Climbed]:
        if self.halved:
            particles.most = self.sizes[block.num_data]
        try:
            latents = self._climbable(particles)
            climb = Climb(self.plan.num_particles, self.plan.method, self._budget, self.plan.seed)
            climbed, left = climb.block(latents, partial(self._of_rows, latents), block.index, tell)
        except REFUSED as error:  # what the guide gave is kept
            self._stay(error)
            return []
        climbed += self._anneal(left, latents, block, tell)
        self.staying = next((one.reason for one in climbed if one.reason), self.staying)
        return climbed

    def _stay(self, error: BaseException) -> None:
        self.staying = "not enough memory for better proposals" if out_of_memory(error) else first_line(error)

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
            return annealed(taken, latents_of, self._budget, (self.plan.seed, block.index, len(taken.rows)))
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

    def _compare(self, particles: Particles, block: Block, resolution: float) -> None:
        """Scores a few draws in double too: of the first block, and of one whose densities are twice as large."""
        if not self.plan.dtype and resolution > 2 * self.coarsest:
            seed_everything("digits", self.plan.seed, block.index)
            self.coarsest = resolution
            num_draws = min(NUM_DRAWS, self.plan.num_particles)
            if (found := compared(particles, block.rows.start, num_draws)) is not None:
                self.compared.append(found)

    def _totals(self, particles: Particles, block: Block, amount: float) -> Totals:
        """The tallies of all particles of a block of data; where memory runs out, of blocks of half as many.

        They are so large an amount of what is to be done for the data.
        """
        num_data, num_particles = particles.num_data, self.plan.num_particles
        while True:
            size, totals = self._size(particles), Totals(num_particles, num_data)
            try:
                draw = self._draw(particles, block.index)
                for number, start in enumerate(range(0, num_particles, size)):
                    count = min(size, num_particles - start)
                    totals.add(draw(number, count))
                    block.tick(amount * num_data * count / num_particles)
                return totals
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.plan.particle_batch or size == 1:
                    what = f"{size} particles of {num_data} data at once"
                    raise InputError(f"not enough memory for {what}: {MEMORY}") from error
            block.tick(-amount * num_data * totals.count / num_particles)
            self.sizes[num_data], self.halved = size // 2, True
            self.replayed.clear()

    def _size(self, particles: Particles) -> int:
        """How many particles are drawn at once."""
        chosen, num_particles, num_data = self.plan.particle_batch, self.plan.num_particles, particles.num_data
        if num_data not in self.sizes:
            size = min(chosen, num_particles) if chosen else even(num_particles, particles.at_once(self.elements))
            self.sizes[num_data] = size
        return self.sizes[num_data]

    def _draw(self, particles: Particles, index: int) -> Callable[[int, int], Tally]:
        """What draws, of these data, the block of particles of a number, so many of them."""
        propose = self._proposal(particles)
        replay_of = cache(partial(self._replay, propose, particles))

        def draw(number: int, count: int) -> Tally:
            key = ("evaluation", self.plan.seed, index, number)
            if (replay := replay_of(count)) is not None:
                seed_everything(*key)
                if (found := replay()) is not None:
                    return found
            seed_everything(*key)
            sites = propose(particles.args, count)
            check_finite(sites)
            return tally(sites)

        return draw

    def _proposal(self, particles: Particles) -> Proposal:
        """Data and K -> K draws: from the guide, or from its defensive mixture with the prior."""
        if self.plan.defensive:
            draw = defended(particles, self.plan.defensive)
            return lambda _, count: draw(count)
        return lambda args, count: particles.on(args).log_terms(count)

    def _replay(self, propose: Proposal, particles: Particles, count: int) -> Replay | None:
        """What replays a draw of so many particles of these data; None where the programs run anew."""
        rare = count != self.sizes[particles.num_data] and 10 * count < self.plan.num_particles
        if not self.compiles or rare or particles.num_data != self.num_rows:
            return None
        try:
            if particles.strategy == "looped":
                raise Untraceable("the programs take one particle at a time")
            if count not in self.replayed:
                self.replayed[count] = Replayed(lambda *data: propose(data, count), *particles.args)
            return self.replayed[count].of(*particles.args)
        except Untraceable as error:
            if self.plan.compile is True:
                raise InputError(f"the evaluation cannot be compiled: {error}; use compile=False") from error
            warn(NotCompiled(f"the evaluation is not compiled, and so slower: {error}"))
            self.compiles = False
            return None


def even(num_particles: int, most: int) -> int:
    """The size of blocks of particles: a divisor of their number if there is one not far below the most.

    Example:
        >>> even(1000, 26), even(1000, 2000), even(997, 26)  # a last block of its own size would be compiled anew
        (25, 1000, 26)
    """
    most = min(num_particles, most)
    return next((size for size in range(most, most * 3 // 4, -1) if num_particles % size == 0), most)


def data_at_once(num_particles: int, device: torch.device) -> int:
    """How many data share a block: a part of 100 (on CUDA of 1000) such that their weights fit into one small table.

    Example:
        >>> [data_at_once(k, torch.device("cpu")) for k in (1000, 5000, 100_000, 10**7)]
        [100, 50, 2, 1]
    """
    most, fits = of_device(DATA_AT_ONCE, device), of_device(WEIGHTS_AT_ONCE, device) // num_particles
    return max(size for size in range(1, most + 1) if most % size == 0 and size <= max(1, fits))


def elements_at_once(device: torch.device) -> int:
    """How many numbers are scored at once: on CUDA a power of two for which a quarter of the free memory suffices."""
    if device.type != "cuda":
        return memory.ELEMENTS_AT_ONCE
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    room = (torch.cuda.mem_get_info(device)[0] + unused) // (4 * 32)  # bytes for a logit and what comes of it
    return min(ON_CUDA, 1 << max(0, room.bit_length() - 1))
