"""The command report: runs as one HTML page, and what was not measured yet, measured where that is asked for."""

import hashlib
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyrovae as pv
from pyrovae.apps import measure
from pyrovae.apps.arguments import Action, Command
from pyrovae.apps.commands import complete
from pyrovae.apps.recipes import choose
from pyrovae.base.errors import InputError


class Measurement(NamedTuple):
    """What a page shows of a run beside its fit, and the command that measures it."""

    about: str
    kind: str  # the class of its record
    words: tuple[str, ...]  # of the command, without the run


MEASUREMENTS = {
    "evaluate": Measurement("the account of log p(x)", "Report", ("evaluate",)),
    "train": Measurement("over-fitting", "train", ("evaluate", "--split", "train", "--num", "500")),
    "gaps": Measurement("gaps of inference", "Gaps", ("gaps", "--num", "100")),
    "anatomy": Measurement("ELBO surgery", "Surgery", ("anatomy",)),
    "calibrate": Measurement("calibration", "Calibration", ("calibrate",)),
    "check": Measurement("predictive check", "PredictiveCheck", ("check", "--num", "500")),
    "bounds": Measurement("bounds from both sides", "Bidirectional", ("evaluate", "--method", "bdmc", "--num", "50")),
    "complete": Measurement("completions", "Restoration", ("complete", "--mask", "lower-half", "--num", "8")),
}
_COMMANDS: Mapping[str, Command] = {**measure.COMMANDS, "complete": complete.complete}


def report(p: ArgumentParser) -> Action:
    """Write one HTML page on runs: findings ranked in nats, accounts, figures, how to make it again.

    example:
      pyrovae report runs/digits
      pyrovae report runs/digits --compute all --out digits.html
      pyrovae report runs/normal runs/mixture --out both.html
    The page needs nothing beside it, runs no script and prints; what was not measured is named with its command.
    """
    p.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs; of several, differences are paired")
    p.add_argument("--out", metavar="FILE.html", help="the page [RUN-report.html]")
    names = ", ".join(MEASUREMENTS)
    p.add_argument("--compute", metavar="NAMES", help=f"measure first what is missing of {names}, or all [none]")
    p.add_argument("--title", help="of the page")
    p.add_argument("--program", metavar="FILE.py", help="the program file, for a run of your own programs")
    p.add_argument("--data-dir", help="where the files of named data sets lie [PYROVAE_DATA]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto: cuda where there is one]")
    return _report


def _report(given: Namespace) -> int:
    out = Path(given.out or f"{Path(given.runs[0])}-report.html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out}: a page has a name that ends in .html; give one")
    for name in _asked(given.compute):
        for run in given.runs:
            _compute(name, run, given)
    from pyrovae.reports.html.page import page, write

    names = [Path(run).name for run in given.runs]
    labels = names if len(set(names)) == len(names) else given.runs
    subjects = [subject(run, label, given) for run, label in zip(given.runs, labels, strict=True)]
    write(page(subjects, title=given.title), out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    return 0


def _asked(names: str | None) -> list[str]:
    if not names:
        return []
    if names == "all":
        return list(MEASUREMENTS)
    return [choose("measurement", name, MEASUREMENTS.keys()) for name in names.split(",")]


def _compute(name: str, run: str, given: Namespace) -> None:
    """Measures what a run lacks; what its data or latents have no place for is said and left out."""
    if name not in missing(pv.runs.reports(run)):
        return
    command, *words = [*MEASUREMENTS[name].words, *_shared(given)]
    p = ArgumentParser(prog=f"pyrovae {command}")
    action = _COMMANDS[command](p)
    print(f"\n{command_for(name, run, given.program)}")
    try:
        action(p.parse_args([run, *words]))
    except InputError as error:
        print(f"left out: {error}")


def _shared(given: Namespace) -> list[str]:
    options = {"--program": given.program, "--data-dir": given.data_dir, "--device": given.device}
    return [word for name, value in options.items() if value is not None for word in (name, value)]


def missing(records: Mapping[str, Any]) -> list[str]:
    """The names of what was not measured, of ``MEASUREMENTS``."""
    kinds = {type(one).__name__ for one in records.values()}
    splits = {one.protocol.split for one in records.values() if isinstance(one, pv.Report) and one.protocol}
    if "train" in splits:
        kinds.add("train")
    if splits == {"train"}:
        kinds.remove("Report")
    return [name for name, one in MEASUREMENTS.items() if one.kind not in kinds]


def command_for(name: str, run: str, program: str | None = None) -> str:
    """The command that measures one of ``MEASUREMENTS``.

    Example:
        >>> command_for("gaps", "runs/digits")
        'pyrovae gaps runs/digits --num 100'
    """
    command, *words = MEASUREMENTS[name].words
    return shlex.join(["pyrovae", command, run, *(["--program", program] if program else []), *words])


def subject(run: str, label: str, given: Namespace) -> Any:
    """What a page tells of a run."""
    from pyrovae.apps.commands import again
    from pyrovae.apps.draw import run_figures
    from pyrovae.reports.html.page import Subject, in_order

    loaded = pv.runs.bring_back(run, program=given.program, data_dir=given.data_dir, device=given.device)
    records = pv.runs.reports(run)
    drawn = run_figures(loaded.fit, loaded.split("test"))
    del drawn["training"]  # which the section of the fit draws
    of_programs = ["--program", given.program] if given.program else []
    whole = len(loaded.dataset.test)
    commands = [again.measurement_command(one, run, whole, of_programs) for one in in_order(records.values())]
    return Subject(
        name=label,
        records=[loaded.fit, *records.values()],
        figures={_NAMES[name]: figure for name, figure in drawn.items()},
        facts=_facts(run, loaded),
        commands=[again.fit_command(loaded.record, run), *(one for one in commands if one is not None)],
        missing={MEASUREMENTS[name].about: command_for(name, run, given.program) for name in missing(records)},
    )


_NAMES = {
    "reconstructions": "reconstructions",
    "samples": "prior_samples",
    "latents": "latent_means",
    "interpolation": "interpolation",
    "manifold": "manifold",
}


def _facts(run: str, loaded: Any) -> dict[str, str]:
    """The data and how the pair was fitted to them, in words."""
    from pyrovae.base import storage

    content, files = storage.read(run)
    record, settings, versions = loaded.record, loaded.fit.settings, content["versions"]
    history = loaded.fit.history
    named = ("prior", "likelihood", "guide", "network", "latent", "hidden")
    own = record.get("program")
    pair = own["path"] if own else ", ".join(f"{name} {_plain(record[name])}" for name in named if name in record)
    seconds = sum(row.get("seconds", 0.0) for row in history)
    of_fit = ("batch_size", "kl_warmup", "precision", "seed", "device", "compile")
    chosen = ", ".join(f"{name} {record[name]}" for name in ("objective", "lr", "schedule") if record.get(name))
    return {
        **{f"{name} data": str(getattr(loaded.dataset, name).protocol) for name in ("train", "valid", "test")},
        "the pair": pair,
        "the fit": f"{len(history)} epochs in {seconds:,.0f} s; {chosen}, "
        + ", ".join(f"{name} {settings[name]}" for name in of_fit if settings.get(name) is not None),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "weights": f"sha256 {hashlib.sha256(files['weights.safetensors']).hexdigest()}",
    }


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
