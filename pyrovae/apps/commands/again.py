"""How a run and what was measured on it are made again: the commands, word by word."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrovae.apps import fit
from pyrovae.pairs.operators.images import MASKS

Words = list[str]


def fit_command(record: Mapping[str, Any], folder: str | Path) -> str:
    """The command that makes a run from its record: what is not as a fit of these data is by default.

    Example:
        >>> fit_command({**fit.record(data="digits"), "latent": 2, "labels": True}, "runs/two")
        'pyrovae fit --data digits --labels --latent 2 --out runs/two'
    """
    usual = {**fit.record(data=record["data"]), "data": None}
    told = {name: record[name] for name in fit.SETTINGS if name in record and record[name] != usual.get(name)}
    program = [record["program"]["path"]] if record.get("program") else []
    if program:
        told = {name: value for name, value in told.items() if name not in fit.OF_THE_VAE}
    options = [word for name, value in told.items() for word in _option(name, value)]
    return shlex.join(["pyrovae", "fit", *program, *options, "--out", str(folder)])


def _option(name: str, value: Any) -> Words:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool) or value is None:
        can_be_denied = value is False and name == "standardize"
        return [option] if value else [option.replace("--", "--no-", 1)] * can_be_denied
    return [option, *map(str, value)] if isinstance(value, list | tuple) else [option, _written(value)]


def _written(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def measurement_command(record: Any, folder: str | Path, whole: int, of_programs: Sequence[str] = ()) -> str | None:
    """The command that measures a record again; None where no command does.

    Args:
        record: a record that was kept in the run.
        folder: of the run.
        whole: how many rows the test split has.
        of_programs: ``["--program", path]`` for a run of one's own programs.
    """
    words = _WORDS.get(type(record).__name__, lambda one: [])(record)
    if not words:
        return None
    command, *options = words
    protocol = getattr(record, "protocol", None)
    split = protocol.split if protocol is not None else "test"
    other = ["--split", split] if split not in ("test", "all") else []
    few = ["--num", str(len(record))] if type(record).__name__ in _OF_ROWS and (other or len(record) < whole) else []
    of_record = [*map(str, options), "--seed", str(record.seed)]
    return shlex.join(["pyrovae", command, str(folder), *of_programs, *other, *few, *of_record])


# Whose length counts rows of a split.
_OF_ROWS = ("Report", "Annealed", "Gaps", "Surgery", "PredictiveCheck", "Classification")
_WORDS: dict[str, Callable[[Any], list[Any]]] = {
    "Report": lambda one: [
        *("evaluate", "--method", one.method, "--particles", one.num_particles),
        *(["--budget", one.budget] if one.budget is not None else []),
    ],
    "Annealed": lambda one: _annealed(one, "ais"),
    "Bidirectional": lambda one: [*_annealed(one, "bdmc"), "--particles", one.num_particles, "--num", len(one)],
    "Gaps": lambda one: ["gaps", "--particles", one.num_particles, "--steps", one.num_steps],
    "Surgery": lambda one: ["anatomy"],
    "Calibration": lambda one: [
        *("calibrate", "--simulations", len(one), "--draws", one.guide.num_draws, "--particles", one.num_particles)
    ],
    "Restoration": lambda one: _completed(one) if one.operator.partition(":")[0] in MASKS else [],
    "Classification": lambda one: [
        *("classify", "--particles", one.num_particles, "--bins", one.num_bins, "--site", one.site)
    ],
    "PredictiveCheck": lambda one: ["check", "--draws", one.num_draws, "--site", one.site],
}


def _completed(one: Any) -> list[Any]:
    sizes = ("--num", len(one), "--draws", len(one.draws), "--particles", one.report.num_particles)
    return ["complete", "--mask", one.operator, *sizes]


def _annealed(one: Any, method: str) -> list[Any]:
    path = ("--temperatures", one.num_temperatures, "--chains", one.num_chains, "--start", one.start)
    return ["evaluate", "--method", method, *path]
