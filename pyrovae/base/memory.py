"""What fits into memory: what runs allocate, how much is then done at once, and words for when it was too much.

What a run takes is counted, not guessed from its data: each storage that an operation allocates is noted as it arises
and as it goes. The most that a run of size 2 holds bounds what one more takes; where that bound is not enough, a run of
size 1 shows by how much every storage grows. A size that is chosen by hand is one for each kind of device.
"""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyrovae.base.errors import InputError
from pyrovae.base.random import preserve_rng_state

ELEMENTS_AT_ONCE = 2**21  # numbers drawn or scored in one run of the programs, where the caller does not say
BYTES_FOR_EACH = 72  # that a run may hold for each of these numbers: 150 MB for all


def fitting(most: int, growth: int, elements: int | None = None) -> int:
    """How many fit, at most so many, of what takes ``growth`` bytes each: at least one.

    Example:
        >>> fitting(100, 10**6), fitting(100, 10**7), fitting(100, 10**12)
        (100, 15, 1)
    """
    return max(1, min(most, room(elements) // max(1, growth)))


def room(elements: int | None = None) -> int:
    """Bytes that a run may hold, where so many numbers are drawn or scored in it."""
    return (elements or ELEMENTS_AT_ONCE) * BYTES_FOR_EACH


class Growth:
    """Bytes by which the memory that a run of some size needs grows with its size: by runs of size 1 and 2.

    Storages are matched by the order in which they arise, so that what is as large in both does not count. Random
    state is kept, and no run is made twice.

    Args:
        run: of a size.
        two: what a run of size 2 allocated, where one was made already.
    """

    def __init__(self, run: Callable[[int], object], two: "Storages | None" = None) -> None:
        self.run, self.two = run, two
        self.exact: int | None = None

    def __call__(self, enough: int = -1) -> int:
        """Bytes; where all that a run of size 2 needs is no more than ``enough``, that, and no other run is made."""
        with preserve_rng_state(), torch.no_grad():
            self.two = two = self.two or Storages.of(self.run, 2)
            if (most := two.peak(two.sizes)) <= enough:
                return most
            if self.exact is None:
                self.exact = _growth(Storages.of(self.run, 1), two)
        return self.exact


def _growth(one: "Storages", two: "Storages") -> int:
    more = len(two.sizes) - len(one.sizes)
    if more < 0 or 0 < more < len(one.sizes):  # other operations, neither one run nor two of the first
        return two.peak(two.sizes) // 2
    before = one.sizes + [0] * len(two.sizes)
    return two.peak([size - less for size, less in zip(two.sizes, before, strict=False)])


class Storages(TorchDispatchMode):
    """What operations allocate while this is entered: storages in the order in which they arise."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []  # bytes
        self.events: list[int] = []  # the number of a storage as it arises, its complement as it goes
        self.alive: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and to see to that torch would import its compiler, for a second or more."""
        return False

    @classmethod
    def of(cls, run: Callable[[int], object], size: int) -> "Storages":
        """Of a run of this size."""
        with cls() as found:
            run(size)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages_in((args, kwargs))}
        for storage in _storages_in(out):
            if storage._cdata not in given | self.alive:  # else a view, or a value written in place
                self.alive.add(storage._cdata)
                self.events.append(len(self.sizes))
                weakref.finalize(storage, self._gone, storage._cdata, len(self.sizes)).atexit = False
                self.sizes.append(storage.nbytes())
        return out

    def _gone(self, key: int, number: int) -> None:
        self.alive.discard(key)
        self.events.append(~number)

    def peak(self, sizes: list[int]) -> int:
        """The most that was alive at one time, of these bytes for the storages."""
        changes = (sizes[event] if event >= 0 else -sizes[~event] for event in self.events)
        return max(accumulate(changes), default=0)


def _storages_in(tree: Any) -> list[Any]:
    leaves = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.layout == torch.strided)
    return [leaf.untyped_storage() for leaf in leaves]


def of_device(sizes: dict[str, int], device: torch.device) -> int:
    """The size for CUDA on CUDA, that for the CPU elsewhere."""
    return sizes["cuda" if device.type == "cuda" else "cpu"]


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turns running out of memory into an InputError that says for what it was not enough, and what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"not enough memory for {advice}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on CUDA, or could never hold so much."""
    words = ("allocate memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


def blocks_of(num_data: int, batch_size: int) -> list[slice]:
    """The rows of each block of data."""
    return [slice(i, min(i + batch_size, num_data)) for i in range(0, num_data, batch_size)]


CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container that we run in."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in CONTAINER_LIMITS:
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed in blocks below 32 MB: given back, each page of it is cleared at its next use.

    Freeing one block of that size, untouched, raises its threshold; other allocators take no notice.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")
