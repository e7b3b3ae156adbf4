"""What the commands of :mod:`pyrovae.cli` do; each takes its parsed arguments and returns an exit status."""

import hashlib
import importlib.util
import inspect
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pyrovae as pv
from pyrovae import demonstration, figures, recipes, runs
from pyrovae.base import storage
from pyrovae.base.errors import InputError
from pyrovae.data import Dataset, Split
from pyrovae.inference.loop import Fit
from pyrovae.inference.pairs import Program, modules_of
from pyrovae.inference.training import resolve_device


class Loaded(NamedTuple):
    """A run brought back: its fit, its data and what it was made from."""

    fit: Fit
    dataset: Dataset
    record: dict[str, Any]

    def split(self, name: str) -> Split:
        """A split as the programs take it."""
        return _split(self.dataset, name, self.record)


# ---------------------------------------------------------------------------------------------- fit


COMPILE: dict[str, bool | str] = {"auto": "auto", "yes": True, "no": False}


def fit(arguments: Namespace) -> int:
    """Fits a recipe or a user's programs and keeps the run."""
    record = _record_to_fit(arguments)
    dataset = _dataset(record, arguments.data_dir)
    model, guide, record = _pair(record, dataset, arguments.program)
    fitted = pv.fit(
        model,
        guide,
        _split(dataset, "train", record),
        valid=_split(dataset, "valid", record),
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
    record = _recorded(arguments.out)
    _check_program(arguments.out, record, arguments.program)
    for name in recipes.SETTINGS:
        given, stored = getattr(arguments, name), record.get(name, recipes.SETTINGS[name])
        if given is not None and given != stored and name != "epochs":
            raise InputError(f"{arguments.out}: was begun with --{name.replace('_', '-')} {stored}, not {given}")
    return record if arguments.epochs is None else {**record, "epochs": arguments.epochs}


def _recorded(run: str) -> dict[str, Any]:
    record = runs.describe(run)["record"]
    if "data" not in record:
        raise InputError(f"{run}: was fitted in Python; use pyrovae.runs.load(folder, model, guide) there")
    return record


def _dataset(record: dict[str, Any], data_dir: str | None) -> Dataset:
    return pv.data.load(
        record["data"], binarization=record["binarization"], divisor=record["divisor"], data_dir=data_dir
    )


def _split(dataset: Dataset, name: str, record: dict[str, Any]) -> Split:
    """A split as the programs take it, with labels where they do."""
    split = getattr(dataset, recipes.choose("split", name, ("train", "valid", "test")))
    return split.with_labels() if record["labels"] else split


def _pair(record: dict[str, Any], dataset: Dataset, program: str | None) -> tuple[Program, Program, dict[str, Any]]:
    """The programs of a record, and the record completed by what identifies them."""
    if program is not None:
        model, guide, digest = load_program(program, dataset)
        return model, guide, {**record, "program": {"path": program, "sha256": digest}}
    _refuse_for_recipes(record, dataset)
    recipe = recipes.complete(record, dataset)
    vae = recipes.build(recipe, dataset)
    return vae.model, vae.guide, {**record, **recipe, "program": None}


def _refuse_for_recipes(record: dict[str, Any], dataset: Dataset) -> None:
    if record["labels"]:
        raise InputError("--labels passes the labels as second argument, and the built-in VAE takes none; give FILE.py")
    for name in ("train", "valid", "test"):
        rows = getattr(dataset, name).missing()
        if len(rows):
            raise InputError(
                f"{dataset.name} {name}: {len(rows)} rows hold missing values, the first is row {int(rows[0])}; "
                "impute them first, or give a FILE.py whose programs mask them"
            )


def load_program(path: str, dataset: Dataset) -> tuple[Program, Program, str]:
    """Runs a user's own file: its ``model`` and ``guide`` (or what ``build`` returns), and the file's SHA-256.

    Raises:
        InputError: if the file is missing, fails, or defines neither.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{path}: no such file; give a Python file that defines model and guide")
    spec = importlib.util.spec_from_file_location(f"pyrovae_program_{source.stem}", source)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file; it must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    sys.path.insert(0, str(source.resolve().parent))  # its neighbours can be imported
    try:
        spec.loader.exec_module(module)
        build: Callable | None = getattr(module, "build", None)
        if build is not None:
            pair = build(dataset) if inspect.signature(build).parameters else build()
        else:
            pair = getattr(module, "model", None), getattr(module, "guide", None)
        model, guide = pair
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(source.resolve().parent))
    if not (callable(model) and callable(guide)):
        raise InputError(f"{path}: defines neither model and guide nor build() that returns them")
    return model, guide, hashlib.sha256(source.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------- what is done with runs


def load_run(arguments: Namespace) -> Loaded:
    """Builds the programs of a run again and puts its weights into them."""
    record = _recorded(arguments.run)
    _check_program(arguments.run, record, arguments.program)
    dataset = _dataset(record, arguments.data_dir)
    _check_rows(arguments.run, _split(dataset, "train", record))
    model, guide, _ = _pair(record, dataset, arguments.program)
    device = resolve_device(arguments.device)
    for module in modules_of(model, guide):
        module.to(device)
    return Loaded(runs.load(arguments.run, model, guide), dataset, record)


def _check_rows(run: str, train: Split) -> None:
    fitted = runs.describe(run)["settings"]["protocol"]["sha256"]
    if train.protocol.sha256 != fitted:
        raise InputError(
            f"{run}: was fitted on other rows of {train.protocol.dataset} (SHA-256 {fitted[:8]}, now "
            f"{train.protocol.sha256[:8]}): the data have changed, and its test rows may be rows it was fitted on"
        )


def _check_program(run: str, record: dict[str, Any], program: str | None) -> None:
    stored = record["program"]
    if stored is None:
        if program is not None:
            raise InputError(f"{run}: is a run of a built-in recipe; leave --program out")
        return
    if program is None:
        raise InputError(f"{run}: is a run of your own programs; give --program {stored['path']}")
    if not Path(program).is_file():
        raise InputError(f"{program}: no such file")
    if hashlib.sha256(Path(program).read_bytes()).hexdigest() != stored["sha256"]:
        raise InputError(
            f"{program}: is not the file that was fitted (its SHA-256 differs from that of {stored['path']})"
        )


def check_parent(path: str | None) -> None:
    """Raises InputError, before any work, where a file could not be written."""
    if path is not None and path != "-" and not Path(path).absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {Path(path).absolute().parent}; make it first")


def sample(arguments: Namespace) -> int:
    """Writes data drawn from the model of a run."""
    loaded, path = load_run(arguments), Path(arguments.out)
    if path.suffix not in (".npy", ".png", ".svg", ".pdf"):
        raise InputError(f"{path}: give a name that ends in .npy (values) or .png, .svg or .pdf (a picture)")
    template = loaded.split("test")
    if path.suffix == ".npy":
        draws = pv.sample(loaded.fit.model, template, num_samples=arguments.num, seed=arguments.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = [name for name, value in draws.values.items() if value.shape[1:].numel() == template.shape.numel()]
        if not wanted:
            raise InputError(
                f"{path}: no site draws values of the shape of a datum; the sites are {list(draws.values)}"
            )
        np.save(path, draws.values[wanted[-1]].reshape(-1, *template.shape).numpy())
    else:
        figures.save(figures.prior_samples(loaded.fit.model, template, num=arguments.num, seed=arguments.seed), path)
    print(f"{path}: {arguments.num} {'draws of x' if path.suffix == '.npy' else 'means of p(x|z) at draws of z'}")
    return 0


def draw(arguments: Namespace) -> int:
    """Draws the figures of a run."""
    loaded = load_run(arguments)
    drawn = demonstration.run_figures(loaded.fit, loaded.split("test"))
    if "report.json" in storage.read(arguments.run)[1]:
        drawn["account"] = figures.account(runs.load_report(arguments.run))
    folder = Path(arguments.out or f"{Path(arguments.run)}-figures")
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")
        print(folder / f"{name}.png")
    return 0


def demo(arguments: Namespace) -> int:
    """The demonstration on handwritten digits."""
    return demonstration.run(Path(arguments.out))


COMMANDS = {"fit": fit, "sample": sample, "figures": draw, "demo": demo}
