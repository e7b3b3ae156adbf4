"""The command fit."""

import sys
import time
from argparse import Namespace
from typing import Any

import pyrovae as pv
from pyrovae.apps import recipes
from pyrovae.apps.loading import check_program, dataset_of, pair_of, recorded, split_of
from pyrovae.base import storage
from pyrovae.base.errors import InputError
from pyrovae.training.fit import Fit

# ---------------------------------------------------------------------------------------------- fit


COMPILE: dict[str, bool | str] = {"auto": "auto", "yes": True, "no": False}


def fit(arguments: Namespace) -> int:
    """Fits a recipe or a user's programs and keeps the run."""
    record = _record_to_fit(arguments)
    dataset = dataset_of(record, arguments.data_dir)
    model, guide, record = pair_of(record, dataset, arguments.program)
    fitted = pv.fit(
        model,
        guide,
        split_of(dataset, "train", record),
        valid=split_of(dataset, "valid", record),
        **recipes.training(record),
        device=arguments.device,
        compile=COMPILE[recipes.choose("choice of --compile", arguments.compile, COMPILE)],
        out=arguments.out,
        resume=arguments.resume,
        callback=None if sys.stderr.isatty() else _Narrator(record["epochs"]),
        record=record,
    )
    return _tell(fitted, arguments.out, arguments.program)


def _tell(fitted: Fit, run: str, program: str | None) -> int:
    if fitted.history:
        last = fitted.history[-1]
        best = f"; the weights are those of epoch {fitted.best_epoch}" if fitted.best_epoch else ""
        print(
            f"{run}: {last['epoch']} epochs, ELBO {last['elbo']:.3f} on the training data, "
            f"{last['valid_elbo']:.3f} on the validation data (nats per datum){best}"
        )
    again, of = (f"{program} ", f" --program {program}") if program else ("", "")
    if fitted.interrupted:
        print(f"interrupted; the run is saved: go on with pyrovae fit {again}--resume --out {run}", file=sys.stderr)
        return 130
    print(f"next: pyrovae evaluate {run}{of}")
    return 0


class _Narrator:
    """A line now and then where there is no terminal for a progress bar."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.told = epochs, time.monotonic()

    def __call__(self, epoch: int, fitted: Fit) -> None:
        if time.monotonic() - self.told > 10 and epoch < self.epochs:
            self.told = time.monotonic()
            row = fitted.history[-1]
            print(
                f"epoch {epoch}/{self.epochs}: ELBO {row['elbo']:.2f}, validation {row['valid_elbo']:.2f}", flush=True
            )


def _record_to_fit(arguments: Namespace) -> dict[str, Any]:
    """The record of a new run, or of the run to be resumed."""
    if not storage.holds_run(arguments.out):
        if arguments.resume:
            raise InputError(f"{arguments.out}: holds no run to resume; leave --resume out to begin one")
        given = {name: getattr(arguments, name) for name in recipes.SETTINGS}
        used = [name for name in recipes.OF_THE_VAE if given[name] is not None]
        if arguments.program and used:
            raise InputError(f"--{used[0]} is of the built-in VAE; {arguments.program} says it by itself")
        return recipes.record(**given)
    if not arguments.resume:
        raise InputError(f"{arguments.out}: already holds a run; use --resume to go on, or another --out")
    record = recorded(arguments.out)
    check_program(arguments.out, record, arguments.program)
    for name in recipes.SETTINGS:
        given, stored = getattr(arguments, name), record.get(name, recipes.SETTINGS[name])
        if given is not None and given != stored and name != "epochs":
            raise InputError(f"{arguments.out}: was begun with --{name.replace('_', '-')} {stored}, not {given}")
    return record if arguments.epochs is None else {**record, "epochs": arguments.epochs}
