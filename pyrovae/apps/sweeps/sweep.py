"""sweep(): what a prior, a likelihood, a guide, or anything else that can be swapped does to log p(x), in one table."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pyrovae.apps.recipes import choose
from pyrovae.apps.sweeps.fits import Fits, Measured, StaleRun
from pyrovae.apps.sweeps.grid import Combination, grid
from pyrovae.apps.sweeps.workers import in_processes
from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, Interrupted, check_at_least_one
from pyrovae.data.split import Dataset
from pyrovae.evidence.comparisons.paired import check_alike, source_evidence
from pyrovae.evidence.comparisons.seeds import OverSeeds, compare_seeds


@checked
def sweep(
    data: str | Path | Dataset = "digits",
    *,
    seeds: int | Sequence[int] = 5,
    out: str | Path | None = None,
    num_particles: int = 1000,
    method: str = "auto",
    one_at_a_time: bool = False,
    baselines: Sequence[str] | str = (),
    workers: int = 1,
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
        baselines: models without a network beside them, fitted to the same rows: names of ``BASELINES``, alone or with
            their sizes, such as "mixture:20" (see :func:`pyrovae.baseline`).
        workers: processes that fit side by side, with one thread each; more than one keep their fits in ``out``.
        data_dir: where the files of named data sets lie; PYROVAE_DATA when None.
        device: "auto" is CUDA when there is one.
        progress: a line to stderr for each fit.
        settings: of the command ``fit`` (prior, likelihood, guide, network, objective, latent, hidden, epochs, lr and
            others), each a value or a list of values to swap.

    Returns:
        An :class:`OverSeeds`: log p(x) of the test split, ELBO, both KLs, active units, unreliable data and seconds of
        each combination, paired differences with their standard errors over data and their spread over seeds; and of
        each baseline, whose evidence is exact, what it has of these.
        What cannot be fitted (a prior and a guide over unlike latents, a guide that an objective refuses) is left out,
        a fit that diverges is counted out, and a baseline that the data or the likelihoods are not for is left out;
        all of this is said below the table.

    Raises:
        InputError: before anything is fitted, for a setting or a name that is not there; if ``out`` holds a run with
            other settings or of other rows; if fewer than two combinations and baselines are left.
        Interrupted: after Ctrl-C, with the table of what was done as ``partial`` if it has two rows.

    Example:
        >>> import pyrovae as pv
        >>> table = pv.sweep("digits", prior=["normal", "mixture:5"], seeds=2, epochs=1, num_particles=30,
        ...                  method="importance", progress=False)
        >>> sorted(table.row_names()), table.rows[0].num_seeds
        (['mixture:5', 'normal'], 2)
    """
    plan, numbers = grid(settings, one_at_a_time=one_at_a_time), _numbers(seeds)
    check_at_least_one(workers=workers)
    if workers > 1 and out is None:
        raise InputError("several workers keep their fits as runs: give out, a folder for them")
    names = [choose("baseline", name) for name in ([baselines] if isinstance(baselines, str) else baselines)]
    if len(plan.combinations) + len(names) < 2:
        why = "".join(f"; left out: {name}: {reason}" for name, reason in plan.left_out.items())
        raise InputError(f"a sweep compares at least two combinations, of two priors for one{why}")
    fits = Fits(data, out, {"num_particles": num_particles, "method": method}, data_dir, device, len(numbers))
    tally = _Tally(fits, _to_stderr if progress else lambda line: None)
    todo = [(combination, seed) for combination in plan.combinations for seed in numbers]
    try:
        for name in names:
            tally.add_baseline(name, plan.combinations[0], numbers)
        if workers > 1:
            in_processes(fits, todo, workers, tally.say)
        for place, (combination, seed) in enumerate(todo):
            if combination.name not in tally.refused:
                tally.add(combination, seed, f"{place + 1}/{len(todo)}")
    except KeyboardInterrupt as stop:
        if workers > 1:
            for combination, seed in (each for each in todo if fits.is_done(*each)):
                tally.add(combination, seed, "kept")
        raise Interrupted(tally.table(plan.left_out) if len(tally.alike()) > 1 else None) from stop
    return tally.table(plan.left_out)


def _numbers(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int):
        check_at_least_one(seeds=seeds)
        return list(range(seeds))
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds is a number of them, or the seeds, each once; got {seeds!r}")
    return list(seeds)


class _Tally:
    """The fits of a sweep that were measured, and those that diverged."""

    def __init__(self, fits: Fits, say: Callable[[str], None]) -> None:
        self.fits, self.say = fits, say
        self.measured: dict[str, list[Measured]] = {}
        self.baselines: dict[str, list[Measured]] = {}
        self.failed: list[str] = []
        self.refused: dict[str, str] = {}  # combination -> why

    def add(self, combination: Combination, seed: int, place: str) -> None:
        """Fits and measures one combination from one seed, or reads what is kept of it; what diverges is noted."""
        begun, label = time.perf_counter(), f"{combination.name}, seed {seed}"
        try:
            found = self.fits.measure(combination, seed)
        except StaleRun:
            raise
        except InputError as error:
            self.refused[combination.name] = str(error)
            self.say(f"[{place}] {combination.name} is left out: {error}")
            return
        except FloatingPointError as error:
            self.failed.append(f"{label}: {error}")
            self.say(f"[{place}] {self.failed[-1]}")
            return
        report: Any = found.report
        for name, (first, *_) in list(self.measured.items())[:1]:
            check_alike(name, cast(Any, first.report), combination.name, report)  # before more is fitted in vain
        self.measured.setdefault(combination.name, []).append(found)
        evidence = f"log p(x) {source_evidence(report).mean():.3f}, {report.fraction_unreliable:.1%} unreliable"
        self.say(f"[{place}] {label}: {evidence}; {time.perf_counter() - begun:.0f} s")

    def add_baseline(self, name: str, beside: Combination, seeds: Sequence[int]) -> None:
        """Fits and measures a baseline on the data of a combination; what it is not for is noted."""
        label = f"baseline {name}"
        try:
            found = self.fits.baseline(name, beside, seeds)
        except InputError as error:
            self.refused[label] = str(error)
            self.say(f"{label} is left out: {error}")
            return
        self.baselines[label] = found
        evidence = sum(float(source_evidence(cast(Any, one.report)).mean()) for one in found) / len(found)
        self.say(f"{label}: log p(x) {evidence:.3f}, exact; {found[0].about}")

    def alike(self) -> dict[str, list[Measured]]:
        """What was measured so far: the fits, and the baselines that can be compared with them."""
        kept = dict(self.measured)
        for name, found in self.baselines.items():
            try:
                for first_name, (first, *_) in list(kept.items())[:1]:
                    check_alike(first_name, cast(Any, first.report), name, cast(Any, found[0].report))
                kept[name] = found
            except InputError as error:
                self.refused[name] = str(error)
        return kept

    def table(self, left_out: Mapping[str, str]) -> OverSeeds:
        """What was measured so far."""
        kept = self.alike()
        notes = [f"left out: {name}: {reason}" for name, reason in {**left_out, **self.refused}.items()]
        notes += [f"diverged: {line}" for line in self.failed]
        for name in (name for name in self.baselines if name in kept):
            notes.append(f"{name}: exact; {' / '.join(dict.fromkeys(one.about for one in kept[name]))}")
        if len(kept) < 2:
            raise InputError("fewer than two combinations were fitted to the end: " + "; ".join(notes))
        beside = {
            "active units": {name: [one.active_units for one in found] for name, found in kept.items()},
            "fit, s": {name: [one.seconds for one in found] for name, found in kept.items()},
        }
        reports: dict[str, list[Any]] = {name: [one.report for one in found] for name, found in kept.items()}
        return compare_seeds(reports, beside=beside, notes=notes)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
