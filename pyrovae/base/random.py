"""Random streams: a seed for each use, keyed by what it is for, and torch's own state left as it was."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyrovae.base.errors import InputError, whole

Key = tuple[str, *tuple[int, ...]]  # what random numbers are for, and whole numbers that tell streams apart


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Leaves torch's random state, on the CPU and on CUDA, as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=list(devices)):
        yield


def seed_of(purpose: str, *key: int) -> int:
    """The seed of a stream of random numbers: one for each purpose and key.

    Args:
        purpose: what the numbers are for, "evaluation" say; no two uses share one.
        key: the caller's seed, then whole numbers from 0 (block of data, block of particles).

    Raises:
        InputError: for a negative number, and for what is no whole number.

    Example:
        >>> seed_of("gaps", 0, 1) == seed_of("gaps", 0, 1), seed_of("gaps", 0, 1) == seed_of("gaps", 0, 1, 0)
        (True, False)
    """
    key = tuple(whole("a seed", number) for number in key)
    if min(key) < 0:
        raise InputError(f"a seed must not be negative, got {min(key)}")
    digest = hashlib.sha256(" ".join([*map(str, key), purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(purpose: str, *key: int) -> None:
    """Seeds torch on every device with :func:`seed_of` a purpose and a key."""
    seed_torch(seed_of(purpose, *key))


def seed_torch(seed: int) -> None:
    """Seeds torch on every device."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed itself takes several times as long
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def stream(purpose: str, *key: int) -> torch.Generator:
    """A generator of its own, on the CPU, seeded with :func:`seed_of` a purpose and a key."""
    return torch.Generator("cpu").manual_seed(seed_of(purpose, *key))
