"""What fits into memory: how much is done at once, and words for when it was too much."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pyrovae.base.errors import InputError

ELEMENTS_AT_ONCE = 2**21  # numbers drawn or scored in one run of the programs, where the caller does not say


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
    """Whether an error says that memory ran out, on the CPU or on CUDA."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


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
