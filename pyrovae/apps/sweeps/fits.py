"""One fit of a sweep: made, measured and kept as a run; one that is there already is read."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyrovae as pv
from pyrovae.apps import fit, loading, runs
from pyrovae.apps.sweeps.baselines import baseline, is_seeded
from pyrovae.apps.sweeps.grid import Combination
from pyrovae.base import storage
from pyrovae.base.errors import InputError, UntrustedEvidence
from pyrovae.data.split import Dataset, Split
from pyrovae.evidence.report import Report
from pyrovae.pairs.traces import Program

QUERIES = 500  # data by which active units are told
EQUAL = 25  # particles of a baseline, whose weights are one and the same


class StaleRun(InputError):
    """A folder of a sweep holds another fit."""


class Measured(NamedTuple):
    """What a fit is worth."""

    report: Report
    active_units: float  # NaN where latents have no mean, such as classes
    seconds: float  # of its training
    about: str = ""  # of a baseline, what it is


class Fits:
    """How the fits of a sweep are made.

    Args:
        data: name of a set, a path, or what ``data.load`` gave.
        out: folder of the sweep, or None.
        evaluation: ``num_particles`` and ``method`` of :func:`pyrovae.evaluate`.
        data_dir: where the files of named data sets lie.
        device: of the fits.
        num_seeds: how many fits of each combination there are: they share what is compiled.

    Raises:
        InputError: if runs are to be kept of data that no name or path brings back.
    """

    def __init__(
        self,
        data: str | Path | Dataset,
        out: str | Path | None,
        evaluation: dict[str, Any],
        data_dir: str | Path | None,
        device: str,
        num_seeds: int = 1,
    ) -> None:
        if isinstance(data, Dataset) and out is not None:
            raise InputError("out keeps runs that can be brought back with their data: give the data's name or path")
        self.data, self.evaluation, self.data_dir, self.device = data, evaluation, data_dir, device
        self.num_seeds = num_seeds
        self.out = None if out is None else Path(out)
        self._dataset = data if isinstance(data, Dataset) else None

    def measure(self, combination: Combination, seed: int) -> Measured:
        """Fits a combination from a seed and measures it on the test split.

        Raises:
            StaleRun: if its folder holds a run with other settings or of other rows.
            InputError: if the pair, or the objective with it, cannot be fitted.
            FloatingPointError: if it diverges.
            KeyboardInterrupt: after Ctrl-C; the run is kept.
        """
        record = self._record(combination, seed)
        dataset, folder = self._dataset_of(record), self.folder(combination, seed)
        model, guide, record = loading.pair_of(record, dataset, None)
        held = storage.read(folder) if folder is not None and storage.holds_run(folder) else None
        if folder is not None and held is not None:
            _check_same(folder, held, record, loading.train_of(dataset, record))
        fitted = self._fitted(model, guide, record, folder, held)
        test, kept = loading.split_of(dataset, "test", record), self._kept(folder, held)
        report = kept or self._report(fitted, test, folder)
        return Measured(report, _active_units(fitted, test), sum(row["seconds"] for row in fitted.history))

    def baseline(self, name: str, beside: Combination, seeds: Sequence[int]) -> list[Measured]:
        """A baseline from every seed, measured as the fits are: one fit stands for all where seeds change nothing.

        Args:
            name: a key of ``BASELINES``, alone or with its size.
            beside: a combination of the sweep, whose data set it is fitted to.
            seeds: of the sweep.

        Raises:
            InputError: for data that it cannot serve.
        """
        record = self._record(beside, seeds[0])
        dataset = self._dataset_of(record)
        test, untold = loading.split_of(dataset, "test", record), "; not told the covariates" * bool(dataset.covariates)

        def measured(seed: int) -> Measured:
            begun = time.perf_counter()
            pair = baseline(name, dataset, seed=seed)
            seconds, options = time.perf_counter() - begun, {"num_particles": EQUAL, "method": "importance"}
            report = pv.evaluate(pair.model, pair.guide, test, **options, progress=False)
            return Measured(report, math.nan, seconds, pair.about + untold)

        return [measured(seed) for seed in seeds] if is_seeded(name) else [measured(seeds[0])] * len(seeds)

    def folder(self, combination: Combination, seed: int) -> Path | None:
        """Where a fit is kept."""
        return None if self.out is None else self.out / folder_of(combination.name) / f"seed-{seed}"

    def is_done(self, combination: Combination, seed: int) -> bool:
        """Whether a fit is kept to its end, with the report that is wanted."""
        folder = self.folder(combination, seed)
        if folder is None or not storage.holds_run(folder):
            return False
        return self._kept(folder, storage.read(folder)) is not None

    def _record(self, combination: Combination, seed: int) -> dict[str, Any]:
        source = {} if isinstance(self.data, Dataset) else {"data": str(self.data)}
        return fit.record(**{**combination.settings, **source, "seed": seed})

    def _dataset_of(self, record: dict[str, Any]) -> Dataset:
        if self._dataset is None:  # one for all: what decides on it cannot be swapped
            self._dataset = loading.dataset_of(record, self.data_dir)
        return self._dataset

    def _fitted(
        self, model: Program, guide: Program, record: dict[str, Any], folder: Path | None, held: storage.Held | None
    ) -> pv.Fit:
        if folder is not None and held is not None:
            progress = held[0]["progress"]
            if progress["stopped"] or progress["epoch"] >= record["epochs"]:
                return runs.restored(folder, model, guide, held)  # a resumed fit would forget its reports
        dataset = self._dataset_of(record)
        train = loading.train_of(dataset, record)
        fitted = pv.fit(
            model,
            guide,
            train,
            valid=loading.split_of(dataset, "valid", record),
            **fit.training(record, train),
            device=self.device,
            num_fits=self.num_seeds,
            out=folder,
            resume=folder is not None,
            record=None if isinstance(self.data, Dataset) else record,
            progress=False,
        )
        if fitted.interrupted:
            raise KeyboardInterrupt
        return fitted

    def _report(self, fitted: pv.Fit, test: Split, folder: Path | None) -> Report:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrustedEvidence)  # the table has a column for it
            report = pv.evaluate(fitted.model, fitted.guide, test, **self.evaluation, progress=False)
        if folder is not None:
            runs.save_report(folder, report)
        return report

    def _kept(self, folder: Path | None, held: storage.Held | None) -> Report | None:
        """The report in what was read of a run, if it was made as this sweep makes it."""
        if folder is None or held is None:
            return None
        wanted = self.evaluation["method"], self.evaluation["num_particles"]
        kept = (one for one in runs.reports_in(folder, held[1]).values() if isinstance(one, Report))
        return next((report for report in kept if (report.method, report.num_particles) == wanted), None)


def folder_of(name: str) -> str:
    """A folder for a combination.

    Example:
        >>> folder_of("mixture:20, beta-binomial")
        'mixture-20+beta-binomial'
    """
    return name.replace(", ", "+").replace(":", "-").replace(",", "-").replace(" ", "-")


def _check_same(folder: Path, held: storage.Held, record: Mapping[str, Any], train: Split) -> None:
    """Raises StaleRun where a folder holds a fit with other settings, or to other rows."""
    stored = runs.record_of(folder, held[0])
    for name, value in record.items():
        if name != "data_at" and stored.get(name) != value:  # rows are told by their hash, below
            was = f"was begun with {name} {stored.get(name)}, not {value}"
            raise StaleRun(f"{folder}: {was}; use another out, or the same settings")
    if held[0]["settings"]["protocol"]["sha256"] != train.protocol.sha256:
        raise StaleRun(f"{folder}: was fitted to other rows of {train.protocol.dataset}; use another out")


def _active_units(fitted: pv.Fit, test: Split) -> float:
    """Dimensions that the code uses (Burda et al. 2016); NaN where latents have no mean, or it cannot be told."""
    try:
        anatomy = pv.surgery(fitted.model, fitted.guide, test, num_queries=min(QUERIES, len(test)), progress=False)
    except (InputError, FloatingPointError):
        return math.nan
    return math.nan if all(math.isnan(one.mean_variance) for one in anatomy.dimensions) else anatomy.active_units
