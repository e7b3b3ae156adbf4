"""How a block of data is measured: its noise, keyed; its programs, undisturbed; its memory and its numbers, guarded."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pyrovae.errors import InputError
from pyrovae.inference.pairs import (
    Program,
    evaluation_mode,
    home_device,
    modules_of,
    on_device,
    own_scope,
    quiet_numerics,
)
from pyrovae.inference.terms import SiteTerms

# What random numbers are for: the first part of every key, so that no two uses share a stream.
FIT, ORDER, BINARIZATION, VALIDATION, EVALUATION, DRAWING, ANNEALING, GAPS, SURGERY, CALIBRATION, CHECKS, GOLD = range(
    12
)

ELEMENTS_AT_ONCE = 2**21  # numbers drawn or scored in one run of the programs, where the caller does not say


def of_device(sizes: dict[str, int], device: torch.device) -> int:
    """The size for CUDA on CUDA, that for the CPU elsewhere."""
    return sizes["cuda" if device.type == "cuda" else "cpu"]


def check_finite(terms: SiteTerms) -> None:
    """Raises FloatingPointError, naming the site, where a density is NaN or a weight would be infinite."""
    for role, tables in terms._asdict().items():
        for name, table in tables.items():
            bad = table.isnan() | (table == (-math.inf if role == "guide" else math.inf))
            if bad.any():
                value = table[bad][0].item()
                raise FloatingPointError(
                    f"site '{name}': log density in the {'guide' if role == 'guide' else 'model'} is {value} "
                    f"for {int(bad.any(0).sum())} of {table.shape[1]} data; look at its parameters there"
                )


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
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


@contextmanager
def undisturbed(model: Program, guide: Program) -> Iterator[tuple[Program, Program, torch.device]]:
    """A pair as it is measured: in its own scope and eval mode, without gradients; all else is put back.

    Yields (model, guide, device), the programs unwrapped, the device that of their parameters.
    """
    with own_scope(model, guide) as (model, guide, _), quiet_numerics(), kept_rng():
        device = home_device(model, guide)
        with evaluation_mode(modules_of(model, guide)), on_device(device):
            yield model, guide, device


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
