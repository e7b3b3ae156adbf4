"""How a block of data is measured: its noise, keyed; its programs, undisturbed; its memory and its numbers, guarded."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyrovae.base.random import kept_rng
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
def undisturbed(model: Program, guide: Program) -> Iterator[tuple[Program, Program, torch.device]]:
    """A pair as it is measured: in its own scope and eval mode, without gradients; all else is put back.

    Yields (model, guide, device), the programs unwrapped, the device that of their parameters.
    """
    with own_scope(model, guide) as (model, guide, _), quiet_numerics(), kept_rng():
        device = home_device(model, guide)
        with evaluation_mode(modules_of(model, guide)), on_device(device):
            yield model, guide, device
