"""What an evaluation was asked to do, checked; and how much of it is done at once."""

from dataclasses import dataclass, replace

import torch

from pyrovae.base import memory
from pyrovae.base.errors import InputError, check_at_least_one, whole
from pyrovae.base.memory import of_device
from pyrovae.base.random import seed_of
from pyrovae.evidence.blocks import Pair
from pyrovae.evidence.ladder.climb import METHODS
from pyrovae.evidence.ladder.estimates import PILOT
from pyrovae.pairs.graphs.graph import compiler_missing
from pyrovae.pairs.latents import Values

REPAID = 10**7  # decoder passes, N K, after which compiling has cost less than it saved, on two cores
ON_CUDA = 2**28  # numbers scored at once there, where memory allows: more keep the device no busier
DATA_AT_ONCE = {"cpu": 250, "cuda": 1000}  # at most, where the caller does not say
WEIGHTS_AT_ONCE = {"cpu": 2**18, "cuda": 2**23}  # in one table, float64: 2 MB and 64 MB


@dataclass(frozen=True)
class Plan:
    """How the particles of an evaluation are drawn: the arguments of :func:`~pyrovae.evaluate`, checked.

    Raises:
        InputError: for numbers that no evaluation can use.
    """

    num_particles: int
    seed: int
    batch_size: int | None = None
    particle_batch: int | None = None
    plate: str | None = None
    vectorize: bool = True
    defensive: float = 0.0
    compile: bool | str = "auto"
    dtype: str | None = None
    method: str = "importance"
    budget: int | None = None
    num_kept: int = 0  # draws of the posterior of each datum that are handed back
    starts: Values | None = None  # latents, site -> (S, N, ...), from where the modes of each datum are sought too

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

    def apart(self) -> "Plan":
        """The same with draws of its own, none of which are handed back: of a second evidence beside a first."""
        return replace(self, seed=seed_of("joint", self.seed), num_kept=0, starts=None)

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


def data_at_once(num_particles: int, device: torch.device) -> int:
    """How many data share a block: a part of 250 (on CUDA of 1000) such that their weights fit into one small table.

    Example:
        >>> [data_at_once(k, torch.device("cpu")) for k in (1000, 5000, 100_000, 10**7)]
        [250, 50, 2, 1]
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


def even(num_particles: int, most: int) -> int:
    """The size of blocks of particles: a divisor of their number if there is one not far below the most.

    Example:
        >>> even(1000, 26), even(1000, 2000), even(997, 26)  # a last block of its own size would be compiled anew
        (25, 1000, 26)
    """
    most = min(num_particles, most)
    return next((size for size in range(most, most * 3 // 4, -1) if num_particles % size == 0), most)
