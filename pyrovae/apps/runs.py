"""Runs: a fitted pair as a folder, with its report, its protocol and everything needed to go on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch

from pyrovae.base import storage
from pyrovae.base.errors import InputError
from pyrovae.base.random import kept_rng
from pyrovae.evidence.report import Report
from pyrovae.pairs.context import Scoped, home_device, modules_of, on_device, own_scope
from pyrovae.pairs.traces import Program, plain_traces
from pyrovae.training.checkpoint import part, read_history, set_weights
from pyrovae.training.fit import Fit


def load(folder: str | Path, model: Program, guide: Program) -> Fit:
    """Puts the weights of a run into a pair of programs and returns it as fitted.

    Args:
        folder: of a run, as ``fit(out=folder)`` leaves it.
        model: the program that was fitted; its modules get the run's weights, in place.
        guide: likewise.

    Returns:
        The :class:`~pyrovae.Fit`, with the best weights where the fit had patience, else the last.

    Raises:
        InputError: if the run is damaged, altered or newer than this version, or is of other programs.
    """
    content, files = storage.read(folder)
    tensors = storage.unpack(files["weights.safetensors"], f"{folder}: weights")
    values = part(tensors, "best/") or part(tensors, "weights/")
    modules = modules_of(model, guide)
    with own_scope(model, guide, fresh=True) as (model, guide, scope), kept_rng():
        _create_parameters(folder, model, guide, content["settings"])
        set_weights(modules, values, str(folder))
    progress, history = content["progress"], read_history(files["history.csv"].decode())
    return Fit(
        Scoped(model, scope),
        Scoped(guide, scope),
        history,
        progress["interrupted"],
        progress["best_epoch"],
        content["settings"],
    )


def describe(folder: str | Path) -> dict[str, Any]:
    """What ``run.json`` says of a run: record (recipe), settings, progress, versions; checked like :func:`load`."""
    return storage.read(folder)[0]


def save_report(folder: str | Path, report: Report) -> None:
    """Puts a report and its per-datum table into a run."""
    storage.update(folder, {f"report{suffix}": data for suffix, data in report.to_files().items()})


def load_report(folder: str | Path) -> Report:
    """The report in a run.

    Raises:
        InputError: if the run was not evaluated, or is damaged.
    """
    files = storage.read(folder)[1]
    if "report.json" not in files:
        raise InputError(f"{folder}: was not evaluated yet; run `pyrovae evaluate {folder}` first")
    return Report.from_files({Path(name).suffix: files[name] for name in ("report.json", "report.csv")}, str(folder))


def _create_parameters(folder: str | Path, model: Program, guide: Program, settings: Mapping[str, Any]) -> None:
    """Runs the programs once on blank data, so that every ``pyro.param`` exists."""
    device, num_rows = home_device(model, guide), settings["num_rows"]
    rows = num_rows if settings["batch_size"] >= num_rows else 2  # all, where each datum may have its own parameter
    try:
        with torch.no_grad(), pyro.validation_enabled(False), on_device(device):
            blank = [torch.zeros((rows, *shape), dtype=getattr(torch, dtype)) for shape, dtype in settings["arguments"]]
            plain_traces(model, guide, blank)
    except Exception as error:
        raise InputError(f"{folder}: its programs do not run on data of its shapes ({error})") from error
