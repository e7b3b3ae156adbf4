"""Random streams: a seed for each use, keyed by what it is for, and torch's own state left as it was."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pyrovae.base.errors import InputError

# What random numbers are for: the first part of every key, so that no two uses share a stream.
FIT, ORDER, BINARIZATION, VALIDATION, EVALUATION, DRAWING, ANNEALING, GAPS, SURGERY, CALIBRATION, CHECKS, GOLD = range(
    12
)


@contextmanager
def kept_rng() -> Iterator[None]:
    """Leaves torch's random state, on the CPU and on CUDA, as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=list(devices)):
        yield


def seed_of(*key: int) -> int:
    """One seed from a key of whole numbers; keys of unlike length are unlike seeds."""
    if min(key) < 0:
        raise InputError(f"a seed must not be negative, got {min(key)}")
    sequence = np.random.SeedSequence((len(key), *key))  # by itself it takes (1, 2) and (1, 2, 0) for the same
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def seed_everything(*key: int) -> None:
    """Seeds torch, on every device, from a key of whole numbers."""
    seed_torch(seed_of(*key))


def seed_torch(seed: int) -> None:
    """Seeds torch on every device."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed itself takes several times as long
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def stream(seed: int, purpose: str) -> torch.Generator:
    """A generator of its own, on the CPU, for each seed and purpose."""
    key = hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8]
    return torch.Generator("cpu").manual_seed(int.from_bytes(key, "little") >> 1)
