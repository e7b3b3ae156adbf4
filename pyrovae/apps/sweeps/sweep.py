"""sweep(): what a prior, a likelihood, a guide, or anything else that can be swapped does to log p(x), in one table."""

import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyrovae as pv
from pyrovae.apps import fit, loading, runs
from pyrovae.apps.sweeps.grid import Combination, grid
from pyrovae.base import storage
from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, Interrupted, UntrustedEvidence, check_at_least_one
from pyrovae.data.split import Dataset
from pyrovae.evidence.comparisons.paired import source_evidence
from pyrovae.evidence.comparisons.seeds import OverSeeds, compare_seeds
from pyrovae.evidence.report import Report
from pyrovae.pairs.traces import Program

QUERIES = 500  # data by which active units are told
RESUMABLE = ("epochs",)  # settings that may differ from those a run was begun with


class Measured(NamedTuple):
    """One fit of a sweep."""

    report: Report
    active_units: float  # NaN where latents have no mean, such as classes
    seconds: float  # of its training


@checked
def sweep(
    data: str | Path | Dataset = "digits",
    *,
    seeds: int | Sequence[int] = 5,
    out: str | Path | None = None,
    num_particles: int = 1000,
    method: str = "auto",
    one_at_a_time: bool = False,
    data_dir: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> OverSeeds:
    """Fits every combination of what is given as a list, from several seeds, and compares their evidence.

    Args:
        data: name of a set, a path, or what ``data.load`` gave.
        seeds: how many, counted from 0, or the seeds themselves: of weights, order and noise.
        out: folder that keeps each fit as a run, ``out/NAME/seed-0``; a sweep that was stopped goes on where it was,
            and what is in there already is not done again. None keeps nothing but the table.
        num_particles: K of the evaluation.
        method: of the evaluation.
        one_at_a_time: instead of every combination, the first of each list together, and each other value in the place
            of the first of its own list alone.
        data_dir: where the files of named data sets lie; PYROVAE_DATA when None.
        device: "auto" is CUDA when there is one.
        progress: a line to stderr for each fit.
        settings: of the command ``fit`` (prior, likelihood, guide, network, objective, latent, hidden, epochs, lr and
            others), each a value or a list of values to swap.

    Returns:
        An :class:`OverSeeds`: log p(x) of the test split, ELBO, both KLs, active units, unreliable data and seconds of
        each combination, paired differences with their standard errors over data and their spread over seeds.
        Combinations whose prior and guide are over unlike latents are left out, and said to be; a fit that diverges is
        counted out, and said so.

    Raises:
        InputError: before anything is fitted, for a setting or a name that is not there; if ``out`` holds a run with
            other settings; if fewer than two combinations are left.
        Interrupted: after Ctrl-C, with the table of what was done as ``partial`` if it has two rows.

    Example:
        >>> import pyrovae as pv
        >>> table = pv.sweep("digits", prior=["normal", "mixture:5"], seeds=2, epochs=1, num_particles=30,
        ...                  method="importance", progress=False)
        >>> sorted(table.row_names()), table.rows[0].num_seeds
        (['mixture:5', 'normal'], 2)
    """
    plan, numbers = grid(settings, one_at_a_time=one_at_a_time), _numbers(seeds)
    if len(plan.combinations) < 2:
        raise InputError("a sweep compares at least two combinations: give a list, as in prior=['normal', 'mixture']")
    run = _Sweep(data, out, {"num_particles": num_particles, "method": method}, data_dir, device, progress)
    todo = [(combination, seed) for combination in plan.combinations for seed in numbers]
    try:
        for place, (combination, seed) in enumerate(todo):
            run.one(combination, seed, f"{place + 1}/{len(todo)}")
    except KeyboardInterrupt as stop:
        done = run.table(plan.left_out) if len(run.measured) > 1 else None
        raise Interrupted(done) from stop
    return run.table(plan.left_out)


def _numbers(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int):
        check_at_least_one(seeds=seeds)
        return list(range(seeds))
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds is a number of them, or the seeds, each once; got {seeds!r}")
    return list(seeds)


class _Sweep:
    """A sweep while it is made."""

    def __init__(
        self,
        data: str | Path | Dataset,
        out: str | Path | None,
        evaluation: dict[str, Any],
        data_dir: str | Path | None,
        device: str,
        progress: bool,
    ) -> None:
        if isinstance(data, Dataset) and out is not None:
            raise InputError("out keeps runs that can be brought back with their data: give the data's name or path")
        self.data, self.evaluation, self.data_dir, self.device = data, evaluation, data_dir, device
        self.out = None if out is None else Path(out)
        self.say: Callable[[str], None] = _to_stderr if progress else lambda line: None
        self.measured: dict[str, list[Measured]] = {}
        self.failed: list[str] = []
        self._dataset = data if isinstance(data, Dataset) else None

    def one(self, combination: Combination, seed: int, place: str) -> None:
        """Fits and measures one combination from one seed; what diverges is noted."""
        source = {} if isinstance(self.data, Dataset) else {"data": str(self.data)}
        record = fit.record(**{**combination.settings, **source, "seed": seed})
        begun = time.perf_counter()
        try:
            found = self._measure(record, combination.name, seed)
        except FloatingPointError as error:
            self.failed.append(f"{combination.name}, seed {seed}: {error}")
            self.say(f"[{place}] {self.failed[-1]}")
            return
        self.measured.setdefault(combination.name, []).append(found)
        report: Any = found.report
        self.say(
            f"[{place}] {combination.name}, seed {seed}: log p(x) {source_evidence(report).mean():.3f}, "
            f"{report.fraction_unreliable:.1%} unreliable; "
            f"{time.perf_counter() - begun:.0f} s"
        )

    def table(self, left_out: Mapping[str, str]) -> OverSeeds:
        """What was measured so far."""
        notes = [f"left out: {name}: {reason}" for name, reason in left_out.items()]
        notes += [f"diverged: {line}" for line in self.failed]
        beside = {
            "active units": {name: [one.active_units for one in found] for name, found in self.measured.items()},
            "fit, s": {name: [one.seconds for one in found] for name, found in self.measured.items()},
        }
        if len(self.measured) < 2:
            raise InputError("fewer than two combinations were fitted to the end: " + "; ".join(notes))
        reports: dict[str, list[Any]] = {name: [one.report for one in found] for name, found in self.measured.items()}
        return compare_seeds(reports, beside=beside, notes=notes)

    def _dataset_of(self, record: dict[str, Any]) -> Dataset:
        if self._dataset is None:  # one for all: what decides on it cannot be swapped
            self._dataset = loading.dataset_of(record, self.data_dir)
        return self._dataset

    def _measure(self, record: dict[str, Any], name: str, seed: int) -> Measured:
        dataset = self._dataset_of(record)
        model, guide, record = loading.pair_of(record, dataset, None)
        folder = None if self.out is None else self.out / folder_of(name) / f"seed-{seed}"
        _check_same(folder, record)
        fitted, test = self._fitted(model, guide, record, folder), loading.split_of(dataset, "test", record)
        report = self._report(fitted, test, folder)
        return Measured(report, _active_units(fitted, test), sum(row["seconds"] for row in fitted.history))

    def _fitted(self, model: Program, guide: Program, record: dict[str, Any], folder: Path | None) -> pv.Fit:
        if folder is not None and storage.holds_run(folder):
            progress = runs.describe(folder)["progress"]
            if progress["stopped"] or progress["epoch"] >= record["epochs"]:
                return runs.load(folder, model, guide)  # a resumed fit would forget its reports
        train, valid = (loading.split_of(self._dataset_of(record), part, record) for part in ("train", "valid"))
        fitted = pv.fit(
            model,
            guide,
            train,
            valid=valid,
            **fit.training(record),
            device=self.device,
            out=folder,
            resume=folder is not None,
            record=None if isinstance(self.data, Dataset) else record,
            progress=False,
        )
        if fitted.interrupted:
            raise KeyboardInterrupt
        return fitted

    def _report(self, fitted: pv.Fit, test: Any, folder: Path | None) -> Report:
        wanted = self.evaluation["method"], self.evaluation["num_particles"]
        if folder is not None:
            for kept in runs.reports(folder).values():
                if (kept.method, kept.num_particles) == wanted:
                    return kept
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrustedEvidence)  # the table has a column for it
            report = pv.evaluate(fitted.model, fitted.guide, test, **self.evaluation, progress=False)
        if folder is not None:
            runs.save_report(folder, report)
        return report


def folder_of(name: str) -> str:
    """A folder for a combination.

    Example:
        >>> folder_of("mixture:20, beta-binomial")
        'mixture-20+beta-binomial'
    """
    return name.replace(", ", "+").replace(":", "-").replace(",", "-").replace(" ", "-")


def _check_same(folder: Path | None, record: Mapping[str, Any]) -> None:
    """Raises InputError where a folder holds a fit with other settings."""
    if folder is None or not storage.holds_run(folder):
        return
    stored = runs.recorded(folder)
    for name, value in record.items():
        if name not in RESUMABLE and stored.get(name) != value:
            raise InputError(
                f"{folder}: was begun with {name} {stored.get(name)}, not {value}; use another out, or the same "
                "settings"
            )


def _active_units(fitted: pv.Fit, test: Any) -> float:
    """Dimensions that the code uses (Burda et al. 2016); NaN where latents have no mean, or it cannot be told."""
    try:
        anatomy = pv.surgery(fitted.model, fitted.guide, test, num_queries=min(QUERIES, len(test)), progress=False)
    except (InputError, FloatingPointError):
        return math.nan
    return math.nan if all(math.isnan(one.mean_variance) for one in anatomy.dimensions) else anatomy.active_units


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
