"""What cannot be fitted is refused before a first step, by argument, site or row: the pair is run over all data."""

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO, RenyiELBO, TraceMeanField_ELBO

from pyrovae.base import storage
from pyrovae.base.errors import InputError
from pyrovae.base.memory import blocks_of, explain_out_of_memory, out_of_memory
from pyrovae.data.split import Split
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program


def check_arguments(
    epochs: int,
    batch_size: int,
    patience: int | None,
    kl_warmup: float,
    valid: Any,
    out: str | Path | None,
    resume: bool,
) -> None:
    """Refuses numbers that mean nothing, and what does not go together."""
    for name, value in {"epochs": epochs, "batch_size": batch_size, "patience": patience}.items():
        if value is not None and not isinstance(value, Integral):
            raise InputError(f"{name} must be a whole number, got {value!r}")
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if kl_warmup < 0:
        raise InputError(f"kl_warmup must not be negative, got {kl_warmup}")
    if patience is not None and valid is None:
        raise InputError("patience needs validation data: give valid=")
    if resume and out is None:
        raise InputError("resume needs the folder of the run: give out=")
    if out is not None and not resume and storage.holds_run(out):
        raise InputError(f"{out}: already holds a run; resume it, or choose another folder")


def check_parts(objective: Any, optimizer: Any, schedule: Any) -> None:
    """Refuses names and instances where programs of one's own are asked for."""
    if objective is not None and not isinstance(objective, ELBO):
        raise InputError(f"objective must be a Pyro ELBO, pyrovae.objectives.IWAE(10) for one, got {objective!r}")
    if isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            f"optimizer must be a PyroOptim or a function parameters -> optimizer, not a {type(optimizer).__name__}: "
            "give lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"
        )
    if schedule is not None and not callable(schedule):
        raise InputError(
            f"schedule must be a function: fraction of the training -> factor on the rate; got {schedule!r}"
        )


def check_pair(
    pair: tuple[Program, Program], train: Split, valid: Split | None, objective: ELBO, settings: Mapping[str, Any]
) -> None:
    """Runs a pair once over all data: every ``pyro.param`` exists afterwards, and every value is in support.

    Raises:
        InputError: naming the site or the row, or what the objective cannot be used for.
    """
    size, splits = max(settings["batch_size"], 500), {"validation data": valid, "training data": train}
    with torch.no_grad(), explain_out_of_memory(f"{size} data at once, even without gradients"):
        found = [
            _inspect(pair, split, rows, settings["plate"], name)
            for name, split in splits.items()
            if split is not None
            for rows in blocks_of(len(split), size)
        ]
    check_objective(objective, found[-1])


def _inspect(pair: tuple[Program, Program], split: Split, rows: slice, plate: str | None, name: str) -> Structure:
    batch = split.batch(rows)
    try:
        return Particles(*pair, batch, plate=plate, strategy="looped").structure
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        missing = ~batch[0].isfinite().reshape(len(batch[0]), -1).all(1)
        if not missing.any():
            raise InputError(f"the programs do not run on the data: {str(error).splitlines()[0]}") from error
        raise InputError(
            f"{int(missing.sum())} rows hold values that are missing or infinite, the first is row "
            f"{rows.start + int(missing.nonzero()[0])} of the {name}: impute them, or mask them in programs of your own"
        ) from error


def check_objective(objective: ELBO, structure: Structure) -> None:
    """Refuses an objective whose gradient would be wrong for this pair, without a word from Pyro.

    Raises:
        InputError: naming the site, for an importance-weighted bound over draws that carry no gradients, and for
            the closed-form KL over latents that the guide draws in another order than the model.
    """
    stuck = [name for name, reparameterized in structure.drawn.items() if not reparameterized]
    if isinstance(objective, RenyiELBO) and objective.alpha == 0 and stuck:
        raise InputError(
            f"site '{stuck[0]}' of the guide cannot be reparameterized: RenyiELBO(alpha=0) would give its parameters "
            "a gradient of zero. Use Trace_ELBO, or a guide family that can (a continuous one)"
        )
    shared = [name for name in structure.drawn if name in structure.latents]
    if isinstance(objective, TraceMeanField_ELBO) and shared != list(structure.latents):
        raise InputError(
            f"TraceMeanField_ELBO needs the guide to draw its latents in the model's order, {list(structure.latents)}, "
            f"but it draws {shared}: the closed-form KL would be wrong. Use Trace_ELBO"
        )
