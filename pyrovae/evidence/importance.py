r"""The weights of a block of data: looked at once, then drawn, a block of particles at a time.

.. math:: \log w_{kn} = \log p(x_n \mid z_{kn}) + \log p(z_{kn}) - \log q(z_{kn} \mid x_n)

Noise is keyed by (seed, data block, particle block): a replay of compiled kernels draws what the programs draw.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.base import memory
from pyrovae.base.errors import InputError, NotCompiled
from pyrovae.base.memory import of_device, out_of_memory
from pyrovae.base.random import EVALUATION, seed_everything, seed_of, seed_torch
from pyrovae.data.split import Split
from pyrovae.evidence.compiled import Replay, Replayed
from pyrovae.evidence.proposals.defensive import Defended
from pyrovae.evidence.running_sums import Moments, Tally, Totals, tally
from pyrovae.pairs.graphs import Untraceable, compiler_missing
from pyrovae.pairs.particles import WAYS, check_num_particles, choose_way, one_row
from pyrovae.pairs.structure import Structure, describe, refuse_narrow_guide
from pyrovae.pairs.supports import support_of
from pyrovae.pairs.terms import SiteTerms, check_finite
from pyrovae.pairs.traces import Program, num_rows, plain_traces, sites

MEMORY = "lower particle_batch, then batch_size (the number of particles itself need not change)"


REPAID = 10**7  # decoder passes, N K, after which compiling has cost less than it saved, on two cores


ON_CUDA = 2**28  # numbers scored at once there, where memory allows: more keep the device no busier


DATA_AT_ONCE = {"cpu": 100, "cuda": 1000}  # at most, where the caller does not say


WEIGHTS_AT_ONCE = {"cpu": 2**18, "cuda": 2**23}  # in one table, float64: 2 MB and 64 MB


@dataclass(frozen=True, kw_only=True)
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

    def __post_init__(self) -> None:
        check_num_particles(self.num_particles)
        sizes = {name: getattr(self, name) for name in ("batch_size", "particle_batch")}
        if wrong := [f"{name}={size}" for name, size in sizes.items() if size is not None and size < 1]:
            raise InputError(f"block sizes must be at least 1, got {', '.join(wrong)}")
        if not 0 <= self.defensive < 1:
            raise InputError(f"defensive is the prior's share of the draws, from 0 to below 1; got {self.defensive}")
        if self.defensive and not self.vectorize:
            raise InputError("defensive= runs many particles of many data at once: leave vectorize=False out")
        if self.compile not in (True, False, "auto"):
            raise InputError(f'compile is True, False or "auto", got {self.compile!r}')
        if self.compile is True and not self.may_compile:
            raise InputError(
                "compile=True takes neither defensive= nor vectorize=False: leave the one or the other out"
            )

    @property
    def may_compile(self) -> bool:
        """Whether draws are of a kind that a graph can hold."""
        return self.vectorize and not self.defensive

    def rows(self, device: torch.device) -> int:
        """Data in a block: as was said, or so many that the table of their weights does not grow with K."""
        return self.batch_size or data_at_once(self.num_particles, device)

    def compiles(self, num_data: int, device: torch.device) -> bool:
        """Whether draws are compiled: as was said, or as it is worth it."""
        if isinstance(self.compile, bool) or not self.may_compile:
            return self.compile is True
        return device.type == "cuda" or (num_data * self.num_particles >= REPAID and not compiler_missing(device))


class Weights(NamedTuple):
    """What K particles of the n data of one block leave behind; one table alone grows with K."""

    log_weight: Tensor  # (K, n), float64
    terms: Moments  # (2, n): of log p(x|z), and of log q(z|x) - log p(z)
    resolution: Tensor  # (n,): what rounding can make of equal weights, in nats; NaN where those say nothing
    kl_prior_analytic: Tensor  # (n,)


class Evaluation:
    """One evaluation: what stays the same from block to block.

    Args:
        model: program of p(x, z), inside ``blocks.undisturbed``.
        guide: program of q(z|x).
        plan: how particles are drawn.
        num_data: N, of all blocks together.
        device: where they are drawn.
    """

    def __init__(self, model: Program, guide: Program, plan: Plan, num_data: int, device: torch.device) -> None:
        self.model, self.guide, self.plan = model, guide, plan
        self.measure: dict[str, str] = {}
        self.ways: dict[int, str] = {}  # data in a block -> how the programs take it
        self.elements, self.sizes = elements_at_once(device), dict[int, int]()  # data in a block -> particles at once
        self.batch_size, self.compiles = plan.rows(device), plan.compiles(num_data, device)
        self.num_rows = min(num_data, self.batch_size)
        self.replayed: dict[int, Replayed] = {}  # particles -> their draw, for blocks of num_rows data

    @property
    def way(self) -> str:
        """How the programs were run; the slowest way where blocks of unlike size differed."""
        return max(self.ways.values(), key=list(WAYS).index)

    def block(self, split: Split, index: int, rows: slice, shown: Any) -> Weights:
        """The weights of one block of data."""
        seed_everything(EVALUATION, self.plan.seed, index)
        args, num_data = split.batch(rows), rows.stop - rows.start
        structure, kl, discrete = self._inspect(args, num_data)
        totals = self._totals(args, structure, index, shown)
        # Discrete draws may all be equal, and so their weights, however wrong the guide is.
        nats = totals.resolution_of_distinct if discrete else totals.resolution
        return Weights(totals.log_weight, totals.terms, nats, kl.double())

    def _inspect(self, args: Sequence[Any], num_data: int) -> tuple[Structure, Tensor, bool]:
        """The pair's structure, KL(q || prior) where it has a closed form, and whether some latent is discrete."""
        plan = self.plan
        if plan.vectorize:
            traces = plain_traces(self.model, self.guide, args)
            structure = describe(*traces, num_data, plate=plan.plate)
            refuse_narrow_guide(*traces, structure)
            kl = analytic_kl(*traces, structure, num_data)
        else:
            traces = plain_traces(self.model, self.guide, one_row(args, 0))
            structure = describe(*traces, 1, plate=plan.plate)
        if not plan.vectorize or plan.defensive:
            kl = torch.full((num_data,), math.nan)
        self.measure = structure.observed
        if num_data not in self.ways:
            way = choose_way(self.model, self.guide, args, structure) if plan.vectorize else "one by one"
            self.ways[num_data] = way
        return structure, kl, any_discrete(*traces)

    def _totals(self, args: Sequence[Any], structure: Structure, index: int, shown: Any) -> Totals:
        """The tallies of all particles of a block of data; where memory runs out, of blocks of half as many."""
        num_data, num_particles = num_rows(args), self.plan.num_particles
        while True:
            size, totals = self._size(args, num_data), Totals(num_particles, num_data)
            try:
                draw = self._draw(args, structure, index)
                for number, start in enumerate(range(0, num_particles, size)):
                    totals.add(draw(number, min(size, num_particles - start)))
                    shown.update(num_data * min(size, num_particles - start) / num_particles)
                return totals
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.plan.particle_batch or size == 1:
                    what = f"{size} particles of {num_data} data at once"
                    raise InputError(f"not enough memory for {what}: {MEMORY}") from error
            shown.update(-num_data * totals.count / num_particles)
            self.sizes[num_data] = size // 2
            self.replayed.clear()

    def _size(self, args: Sequence[Any], num_data: int) -> int:
        """How many particles are drawn at once."""
        if num_data not in self.sizes:
            width = sum(arg[0].numel() for arg in args if isinstance(arg, Tensor) and arg.dim() > 0)
            most = max(1, self.elements // (num_data * max(width, 64)))
            chosen, num_particles = self.plan.particle_batch, self.plan.num_particles
            self.sizes[num_data] = min(chosen, num_particles) if chosen else even(num_particles, most)
        return self.sizes[num_data]

    def _draw(self, args: Sequence[Any], structure: Structure, index: int) -> Callable[[int, int], Tally]:
        """What draws, of these data, the block of particles of a number, so many of them."""
        way, replays = self._way(args, structure), dict[int, Replay | None]()
        blocks_of_particles = -(-self.plan.num_particles // self._size(args, num_rows(args)))
        seeds = [seed_of(EVALUATION, self.plan.seed, index, number) for number in range(blocks_of_particles)]

        def draw(number: int, count: int) -> Tally:
            if count not in replays:
                replays[count] = self._replay(way, args, count)
            replay = replays[count]
            if replay is not None:
                seed_torch(seeds[number])
                if (found := replay()) is not None:
                    return found
            seed_torch(seeds[number])
            sites = way(args, count)
            check_finite(sites)
            return tally(sites)

        return draw

    def _way(self, args: Sequence[Any], structure: Structure) -> Callable[[Sequence[Any], int], SiteTerms]:
        """Data and K -> K draws: from the guide, or from its defensive mixture with the prior."""
        way, plan = self.ways[num_rows(args)], self.plan
        if plan.defensive:
            mixture = Defended(self.model, self.guide, args, plan.defensive, plate=structure.plate, way=way)
            return lambda args, count: mixture.draw(count)
        return lambda args, count: WAYS[way](self.model, self.guide, args, structure, count)

    def _replay(self, way: Callable[[Sequence[Any], int], SiteTerms], args: Sequence[Any], count: int) -> Replay | None:
        """What replays a draw of so many particles of these data; None where the programs run anew."""
        rare = count != self.sizes[num_rows(args)] and 10 * count < self.plan.num_particles
        if not self.compiles or rare or num_rows(args) != self.num_rows:
            return None
        try:
            if self.ways[self.num_rows] == "looped":
                raise Untraceable("the programs take one particle at a time")
            if count not in self.replayed:
                self.replayed[count] = Replayed(lambda *data: way(data, count), *args)
            return self.replayed[count].of(*args)
        except Untraceable as error:
            if self.plan.compile is True:
                raise InputError(f"the evaluation cannot be compiled: {error}; use compile=False") from error
            warnings.warn(f"the evaluation is not compiled, and so slower: {error}", NotCompiled, stacklevel=2)
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


def any_discrete(model_trace: Any, guide_trace: Any) -> bool:
    """Whether a latent or auxiliary site has a discrete support."""
    drawn = [*sites(guide_trace).values(), *(s for s in sites(model_trace).values() if not s["is_observed"])]
    return any(bool(getattr(support_of(site["fn"]), "is_discrete", False)) for site in drawn)


def analytic_kl(model_trace: Any, guide_trace: Any, structure: Structure, num_data: int) -> Tensor:
    """KL(q(z|x) || p(z)) in closed form, (N,) nats; NaN where torch has none or there are several latent sites."""
    unknown = torch.full((num_data,), math.nan)
    drawn = sites(guide_trace)
    if len(structure.latents) != 1 or list(drawn) != list(structure.latents):
        return unknown
    prior, guide = model_trace.nodes[structure.latents[0]], drawn[structure.latents[0]]
    if prior["mask"] is not None or guide["mask"] is not None:
        return unknown
    try:
        kl = kl_divergence(guide["fn"], prior["fn"])
    except (NotImplementedError, ValueError, RuntimeError):
        return unknown
    others = [dim for dim in range(-kl.dim(), 0) if dim != structure.dim]
    return (kl.sum(others) if others else kl).expand(num_data)
