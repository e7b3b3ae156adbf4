"""Runs: a fitted pair as a folder, with its reports, its protocol and everything needed to go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.apps import loading
from pyrovae.base import storage
from pyrovae.base.device import resolve_device
from pyrovae.base.errors import InputError, UnfinishedFit, warn
from pyrovae.base.random import preserve_rng_state
from pyrovae.base.records import SUFFIXES, Record
from pyrovae.data.split import Dataset, Split
from pyrovae.evidence.report import Report
from pyrovae.pairs import context
from pyrovae.pairs.traces import Program, plain_traces
from pyrovae.training.checkpoint import part, read_history, set_weights
from pyrovae.training.fit import Fit


class Loaded(NamedTuple):
    """A run brought back: its fit, its data and what it was made from."""

    fit: Fit
    dataset: Dataset
    record: dict[str, Any]

    def split(self, name: str) -> Split:
        """A split as the programs take it."""
        return loading.split_of(self.dataset, name, self.record)


def load(
    folder: str | Path,
    model: Program | None = None,
    guide: Program | None = None,
    *,
    data_dir: str | Path | None = None,
) -> Fit:
    """A run as fitted: the programs of its recipe, built again, or those given, with the weights of the run.

    Args:
        folder: of a run, as ``fit(out=folder)`` or the command line leaves it.
        model: the program that was fitted, where it was one's own; its modules get the run's weights, in place.
        guide: likewise.
        data_dir: where the files of the named data set of a recipe lie; PYROVAE_DATA when None.

    Returns:
        The :class:`~pyrovae.Fit`, with the best weights where the fit had patience, else the last. Where it did not
        come to its end, a warning :class:`~pyrovae.base.errors.UnfinishedFit` says so and what to do.

    Raises:
        InputError: if the run is damaged, altered or newer than this version, or is of other programs or other rows.
    """
    if (model is None) != (guide is None):
        raise InputError("give both programs, model and guide, or neither for a run of a recipe")
    if model is None or guide is None:
        return bring_back(folder, data_dir=data_dir).fit
    return restored(folder, model, guide, storage.read(folder))


def restored(folder: str | Path, model: Program, guide: Program, held: storage.Held) -> Fit:
    """What :func:`load` gives, from what :func:`pyrovae.base.storage.read` read of the run."""
    content, files = held
    _tell_unfinished(folder, content)
    tensors = storage.unpack(files["weights.safetensors"], f"{folder}: weights")
    values = part(tensors, "best/") or part(tensors, "weights/")
    named = context.modules_of(model, guide)
    with context.own_scope(model, guide, fresh=True) as (model, guide, scope), preserve_rng_state():
        with context.evaluation_mode(named), context.called_modules() as called:
            _create_parameters(folder, model, guide, content["settings"])
        set_weights(context.every_module(named, list(called)), values, str(folder))
    progress, history = content["progress"], read_history(files["history.csv"].decode())
    pair = context.Scoped(model, scope), context.Scoped(guide, scope)
    return Fit(*pair, history, progress["interrupted"], progress["best_epoch"], content["settings"])


def bring_back(
    folder: str | Path, *, program: str | None = None, data_dir: str | Path | None = None, device: str = "auto"
) -> Loaded:
    """A run of the command line with its data: as :func:`load`, its programs from the recipe or from a file.

    Args:
        folder: of the run.
        program: the file of one's own programs that was fitted.
        data_dir: as for :func:`load`.
        device: where the programs go; "auto" is CUDA when there is one.
    """
    record = recorded(folder)
    loading.check_program(folder, record, program)
    data = dataset(folder, data_dir=data_dir)
    model, guide, _ = loading.pair_of(record, data, program)
    target = resolve_device(device)
    blank = _blank(describe(folder)["settings"], context.home_device(model, guide))
    for module in context.used_modules(model, guide, blank):
        module.to(target)
    return Loaded(load(folder, model, guide), data, record)


def dataset(folder: str | Path, *, data_dir: str | Path | None = None) -> Dataset:
    """The data that a run was fitted on, loaded again as its record says.

    Raises:
        InputError: if they are other rows now, or the run was fitted in Python, on data that it does not name.
    """
    record = recorded(folder)
    data = loading.dataset_of(record, data_dir)
    now, fitted = loading.train_of(data, record).protocol, describe(folder)["settings"]["protocol"]["sha256"]
    if now.sha256 != fitted:
        raise InputError(
            f"{folder}: was fitted on other rows of {now.dataset} (SHA-256 {fitted[:8]}, now {now.sha256[:8]}): "
            "the data have changed, and its test rows may be rows it was fitted on"
        )
    return data


def recorded(folder: str | Path) -> dict[str, Any]:
    """What a run was fitted on and with.

    Raises:
        InputError: if it was fitted in Python, which says nothing of it.
    """
    return record_of(folder, describe(folder))


def record_of(folder: str | Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`recorded` gives, from what :func:`describe` does."""
    record = content["record"]
    if "data" not in record:
        raise InputError(f"{folder}: was fitted in Python; use pyrovae.runs.load(folder, model, guide) there")
    return record


def describe(folder: str | Path) -> dict[str, Any]:
    """What ``run.json`` says of a run: record (recipe), settings, progress, versions; checked like :func:`load`."""
    return storage.read(folder)[0]


def save_report(folder: str | Path, report: Record, name: str | None = None) -> None:
    """Puts a report, or another record, into a run, beside those of other kinds, methods and numbers of particles.

    Args:
        folder: of the run.
        report: in the place of an earlier one of its name.
        name: where none is given that of method and K, of what is no report of ``evaluate`` that of its class.
    """
    name = name or _name_of(report)
    storage.update(folder, {f"{name}{suffix}": data for suffix, data in report.to_files().items()})


def _name_of(record: Record) -> str:
    """What a record is called in a run; a report on training data says so first, and is none of the run's best."""
    if not isinstance(record, Report):
        return type(record).__name__.lower()
    of = "train-" if record.protocol and record.protocol.split == "train" else ""
    return f"{of}report-{record.method}-{record.num_particles}"


def reports(folder: str | Path) -> dict[str, Record]:
    """Every record kept in a run, by name: what the commands measured on its test split (:class:`~pyrovae.Report` by
    method and K, :class:`~pyrovae.Gaps` and others by their class), and what :func:`save_report` put there.
    """
    return reports_in(folder, storage.read(folder)[1])


def reports_in(folder: str | Path, files: Mapping[str, bytes]) -> dict[str, Record]:
    """What :func:`reports` gives, from the files of a run."""
    names = [file.removesuffix(".json") for file in files if file.endswith(".json")]
    beside = {name: {s: files[name + s] for s in SUFFIXES if name + s in files} for name in names}
    return {
        name: _kind(parts[".json"], f"{folder}: {name}").from_files(parts, str(folder))
        for name, parts in beside.items()
    }


def _kind(account: bytes, what: str) -> type[Record]:
    """The class of a record that was saved; before records said what they are, runs kept reports alone.

    Raises:
        InputError: if this version has no such class.
    """
    try:
        name = json.loads(account).get("record", {}).get("kind", "Report")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{what}: not a record that pyrovae saved ({error})") from error
    kind = getattr(pv, name, None) if name in pv.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise InputError(f"{what}: holds a {name}, which this version does not know; update pyrovae")
    return kind


def load_report(folder: str | Path) -> Report:
    """The best report in a run: of the fewest unreliable data, then of the smallest Monte-Carlo error.

    Raises:
        InputError: if the run was not evaluated, or is damaged.
    """
    if (best := best_report(folder)) is None:
        raise InputError(f"{folder}: was not evaluated yet; run `pyrovae evaluate {folder}` first")
    return best


def best_report(folder: str | Path) -> Report | None:
    """What :func:`load_report` loads; None for a run that was not evaluated."""
    kept = [one for name, one in reports(folder).items() if name.startswith("report") and isinstance(one, Report)]
    return min(kept, key=lambda report: report.doubt, default=None)


def _tell_unfinished(folder: str | Path, content: Mapping[str, Any]) -> None:
    """Warns of a fit that ended before its last epoch and before its patience did."""
    progress, epochs = content["progress"], content["settings"]["epochs"]
    if progress["stopped"] or progress["epoch"] >= epochs:
        return
    how = "was interrupted" if progress["interrupted"] else "diverged, was killed or runs still"
    program = f"{content['record']['program']['path']} " if content["record"].get("program") else ""
    after = f"these are the weights after {progress['epoch']} of {epochs} epochs"
    on = f"pyrovae fit {program}--resume --out {folder}, or fit(..., out=, resume=True)"
    warn(UnfinishedFit(f"{folder}: its fit {how}: {after}; {on}, goes on or says where it fails"))


def _create_parameters(folder: str | Path, model: Program, guide: Program, settings: Mapping[str, Any]) -> None:
    """Runs the programs once on blank data, so that every ``pyro.param`` exists."""
    device = context.home_device(model, guide)
    try:
        with torch.no_grad(), pyro.validation_enabled(False), context.on_device(device):
            plain_traces(model, guide, _blank(settings, device))
    except Exception as error:
        raise InputError(f"{folder}: its programs do not run on data of its shapes ({error})") from error


def _blank(settings: Mapping[str, Any], device: torch.device) -> list[Tensor]:
    """Zeros in the shapes of the data: two rows, or all where each datum may have a parameter of its own."""
    num_rows = settings["num_rows"]
    rows = num_rows if settings["batch_size"] >= num_rows else 2
    return [
        torch.zeros((rows, *shape), dtype=getattr(torch, dtype), device=device)
        for shape, dtype in settings["arguments"]
    ]
