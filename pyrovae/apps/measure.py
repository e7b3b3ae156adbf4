"""The commands that measure a run: load it, measure, print the account, write JSON and a figure.

An interrupt keeps what is done: the account of the data that were finished is printed and written like a whole one,
and says of how many data it is.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae.apps import runs
from pyrovae.apps.loading import check_parent, load_run
from pyrovae.apps.recipes import choose
from pyrovae.base import storage
from pyrovae.base.errors import InputError, Interrupted
from pyrovae.base.records import as_json
from pyrovae.evidence.annealing import paths
from pyrovae.reports import figures

Draw = Callable[[Any], Any]  # record -> figure
STARTS = {"guide": paths.from_guide, "prior": paths.from_prior}


def evaluate(arguments: Namespace) -> int:
    """Accounts for log p(x) of a run by one of three methods."""
    method = _METHODS[choose("method", arguments.method, tuple(_METHODS))]
    return method(arguments)


def _importance_sampling(arguments: Namespace) -> int:
    whole_test = arguments.split == "test" and not arguments.num and not arguments.defensive

    def measure(*pair_and_data: Any, **options: Any) -> Any:
        report = pv.evaluate(*pair_and_data, **options)
        if whole_test:
            runs.save_report(arguments.run, report)
        return report

    options = {"num_particles": arguments.particles, "defensive": arguments.defensive}
    status = _measured(arguments, measure, figures.account, **options, vectorize=not arguments.no_vectorize)
    if arguments.json != "-" and status == 0:
        print(
            f"kept in {arguments.run}"
            if whole_test
            else "not kept in the run: only a report on the whole test split is"
        )
    return status


def _annealed(arguments: Namespace) -> int:
    return _measured(arguments, pv.annealed_evidence, figures.annealed, **_path(arguments))


def _bidirectional(arguments: Namespace) -> int:
    options = {"num_data": arguments.num or 100, "num_particles": arguments.particles}
    return _measured(arguments, pv.bidirectional, figures.bounds, **options, **_path(arguments))


def _path(arguments: Namespace) -> dict[str, Any]:
    return {
        "num_temperatures": arguments.temperatures,
        "num_chains": arguments.chains,
        "start": STARTS[choose("start", arguments.start, tuple(STARTS))],
    }


_METHODS = {"is": _importance_sampling, "ais": _annealed, "bdmc": _bidirectional}


def gaps(arguments: Namespace) -> int:
    """Splits the gap between evidence and ELBO of a run into approximation and amortization."""
    options = {"num_particles": arguments.particles, "num_steps": arguments.steps}
    return _measured(arguments, pv.gaps, figures.gaps, **options)


def anatomy(arguments: Namespace) -> int:
    """Takes the KL to the prior apart, and tells which latent dimensions a run uses."""
    return _measured(arguments, pv.surgery, figures.anatomy, num_queries=arguments.queries)


def calibrate(arguments: Namespace) -> int:
    """Tests whether the guide of a run is the posterior of its model, on simulated data."""
    sizes = {"num_simulations": arguments.simulations, "num_draws": arguments.draws}
    options = {**sizes, "num_particles": max(arguments.particles, arguments.draws)}
    return _measured(arguments, pv.calibrate, figures.calibration, **options)


def check(arguments: Namespace) -> int:
    """Compares data with what the model of a run makes."""
    return _measured(arguments, pv.predictive_check, figures.predictive_check, num_draws=arguments.draws)


def compare(arguments: Namespace) -> int:
    """Prints the paired differences between the reports of runs."""
    _check_figure(arguments.figure)
    names = [Path(run).name for run in arguments.runs]
    labels = names if len(set(names)) == len(names) else arguments.runs
    table = pv.compare({label: runs.load_report(run) for label, run in zip(labels, arguments.runs, strict=True)})
    print(table)
    _draw(arguments.figure, figures.comparison, table)
    return 0


# ------------------------------------------------------------------------------------------- what all share


# Data at once: few where a datum takes long, as an interrupt keeps whole batches.
BATCH_SIZES = {"ais": 25, "bdmc": 25, "gaps": 25, "calibrate": 50, "check": 50, "anatomy": 500}


def _measured(arguments: Namespace, measure: Callable[..., Any], draw: Draw, **options: Any) -> int:
    if arguments.num is not None and arguments.num < 1:
        raise InputError(f"--num must be at least 1, got {arguments.num}")
    check_parent(arguments.json)
    _check_figure(arguments.figure)
    loaded = load_run(arguments)
    data = loaded.split(arguments.split)
    data = data[: arguments.num] if arguments.num else data
    default = BATCH_SIZES.get(getattr(arguments, "method", arguments.command))
    size = default if arguments.batch_size is None else arguments.batch_size
    options |= {"seed": arguments.seed, "batch_size": size}
    try:
        record, status = measure(loaded.fit.model, loaded.fit.guide, data, **options), 0
    except Interrupted as interrupt:
        record, status = interrupt.partial, 130
        print(f"interrupted: this is the account of the {len(record)} data that were done", file=sys.stderr)
    _deliver(arguments, record, interrupted=status == 130)
    _draw(arguments.figure, draw, record)
    return status


def _deliver(arguments: Namespace, record: Any, *, interrupted: bool) -> None:
    account = {**record.to_dict(), "interrupted": True} if interrupted else record.to_dict()
    text = as_json(account)
    if arguments.json == "-":
        print(text, end="")
        return
    print(record.summary())
    if arguments.json:
        storage.write_whole(Path(arguments.json), text.encode())


def _check_figure(path: str | None) -> None:
    if path is not None and Path(path).suffix.lower() not in figures.UNDATED:
        raise InputError(f"{path}: give a name that ends in {', '.join(figures.UNDATED)}")


def _draw(path: str | None, draw: Draw, record: Any) -> None:
    if path is not None:
        figures.save(draw(record), path)
        print(path, file=sys.stderr)


COMMANDS = {
    "evaluate": evaluate,
    "gaps": gaps,
    "anatomy": anatomy,
    "calibrate": calibrate,
    "check": check,
    "compare": compare,
}
