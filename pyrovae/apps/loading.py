"""What a record names, a data set and programs: built from a recipe, or run from a user's own file."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyrovae.apps import recipes
from pyrovae.apps.encoder_for import encoder_for
from pyrovae.base.errors import InputError
from pyrovae.data.datasets import load
from pyrovae.data.named import PARTS
from pyrovae.data.split import Dataset, Split
from pyrovae.pairs.traces import Program


def dataset_of(record: dict[str, Any], data_dir: str | Path | None) -> Dataset:
    """The data set that a record names, prepared as it says."""
    names = ("binarization", "divisor", "columns", "standardize", "group", "time")  # a run of long ago lacks the last
    options: dict[str, Any] = {name: record.get(name) for name in names}
    options["dequantize"] = bool(record.get("dequantize"))
    return load(_source(record), **options, covariates=record.get("covariates") or (), data_dir=data_dir)


def _source(record: dict[str, Any]) -> str:
    """The data of a record: as they were named, from here; else where they were when it was made.

    Raises:
        InputError: if they are at neither place.
    """
    source, at = record["data"], record.get("data_at")  # which a run of long ago lacks
    if at is None or Path(source).expanduser().exists():
        return source
    if not Path(at).exists():
        here = Path(source).expanduser().absolute()
        raise InputError(
            f'the data "{source}" are neither at {here} nor where they were, at {at}; put them back, or run this where '
            f"{source} is a path to them"
        )
    return at


def split_of(dataset: Dataset, name: str, record: dict[str, Any]) -> Split:
    """A split as the programs take it, with labels where they do; of a semi-supervised run they are unknown (-1)."""
    split = getattr(dataset, recipes.choose("split", name, PARTS))
    if record.get("semi_supervised") is not None:  # which a run of long ago lacks
        return split.with_labels(0)
    return split.with_labels() if record["labels"] else split


def train_of(dataset: Dataset, record: dict[str, Any]) -> Split:
    """What a record trains on: the training data, of which a semi-supervised run knows some labels.

    Raises:
        InputError: for data without labels, and for fewer or more labels than can be as many of each class.
    """
    split, count = split_of(dataset, "train", record), record.get("semi_supervised")
    if count is None:
        return split
    assert split.labels is not None  # which split_of has asked for
    _, counts = split.labels.unique(return_counts=True)
    most = int(counts.min()) * len(counts)
    if not len(counts) <= count <= most:
        raise InputError(
            f"--semi-supervised: expected {len(counts)} to {most:,} of {len(split):,} training data, as many of each "
            f"of {len(counts)} classes, got {count}"
        )
    return split.with_labels(count, seed=record["seed"])


def pair_of(record: dict[str, Any], dataset: Dataset, program: str | None) -> tuple[Program, Program, dict[str, Any]]:
    """The programs of a record, and the record completed by what identifies them."""
    if program is not None:
        model, guide, digest = load_program(program, dataset)
        if guide is None:
            guide = encoder_for(model, train_of(dataset, record), seed=record["seed"])
        return model, guide, {**record, "program": {"path": program, "sha256": digest}}
    _check_recipe_options(record, dataset)
    recipe = recipes.complete(record, dataset)
    told = {name: record.get(name) for name in ("labels", "semi_supervised")}
    vae = recipes.build({**recipe, **told}, dataset)
    return vae.model, vae.guide, {**record, **recipe, "program": None}


def _check_recipe_options(record: dict[str, Any], dataset: Dataset) -> None:
    if not (option := recipes.option_of_labels(record)):
        return
    if dataset.columns is not None:
        instead = {"--labels": "use --covariates"}.get(option, "give a FILE.py")
        raise InputError(f"{option} takes labels beside the data, and those of a table are columns of it: {instead}")
    if any(recipes.rows_with_missing(dataset).values()):
        raise InputError(f"{option} takes whole data, and {dataset.name} has missing entries: give a FILE.py")


def load_program(path: str, dataset: Dataset) -> tuple[Program, Program | None, str]:
    """Runs a user's own file: its ``model`` and ``guide`` (or what ``build`` returns), and the file's SHA-256.

    A file may leave the guide out: then it is None.

    Raises:
        InputError: if the file is missing, fails, or defines no model; if ``build`` returns something else.
    """
    source, digest = Path(path), _sha256(path)
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
            model, guide = _pair(path, build(dataset) if inspect.signature(build).parameters else build())
        else:
            model, guide = getattr(module, "model", None), getattr(module, "guide", None)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(source.resolve().parent))
    if not (callable(model) and (guide is None or callable(guide))):
        raise InputError(f"{path}: defines neither model and guide nor build() that returns them")
    return model, guide, digest


def _pair(path: str, built: Any) -> tuple[Program | None, Program | None]:
    """What ``build`` returned as model and guide: two programs, a model alone, or an object that has both."""
    if isinstance(built, (tuple, list)) and len(built) == 2:
        return built[0], built[1]
    if callable(getattr(built, "model", None)) and callable(getattr(built, "guide", None)):
        return built.model, built.guide
    if callable(built):
        return built, None
    held = f"{type(built).__name__} of {len(built)}" if isinstance(built, (tuple, list)) else type(built).__name__
    raise InputError(f"{path}: build() returns model and guide, or the model alone (its guide is written), got {held}")


def _sha256(path: str) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; give a Python file that defines model and guide")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def check_program(run: str | Path, record: dict[str, Any], program: str | None) -> None:
    """Raises InputError where a run was fitted with another file of programs, or with none."""
    stored = record["program"]
    if stored is None and program is not None:
        raise InputError(f"{run}: is a run of a built-in recipe; leave --program out")
    if stored is not None and program is None:
        how = f"give --program {stored['path']}; in Python, runs.load(folder, model, guide)"
        raise InputError(f"{run}: is a run of your own programs; {how}")
    if program is not None and _sha256(program) != stored["sha256"]:
        raise InputError(
            f"{program}: is not the file that was fitted (its SHA-256 differs from that of {stored['path']})"
        )
