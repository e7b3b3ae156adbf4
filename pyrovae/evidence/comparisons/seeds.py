"""compare_seeds(): which pair gives the same data more evidence, and whether a refit would turn that around."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record
from pyrovae.evidence import estimators
from pyrovae.evidence.comparisons.paired import (
    Evidence,
    bounds_of,
    bounds_told,
    check_alike,
    data_of,
    difference_mc_error,
    log_jacobian,
    source_evidence,
)
from pyrovae.evidence.comparisons.stacking import stacking_weights
from pyrovae.evidence.reliability import UNRELIABLE, UNRELIABLE_FRACTION

MEANS = ("elbo", "kl_prior", "kl_posterior")  # of a report, shown beside its evidence


class Row(NamedTuple):
    """The fits of one kind against those of the best one; nats per datum."""

    name: str
    num_seeds: int
    log_evidence: float  # mean over data and seeds
    data_se: float  # of the mean over seeds
    seed_sd: float  # of the mean over data of one fit; NaN for one seed
    elbo: float  # NaN where a record holds none
    kl_prior: float
    kl_posterior: float
    fraction_unreliable: float
    difference: float  # of the mean from that of the best
    difference_se: float  # sd of the paired differences / sqrt(N)
    difference_mc_error: float  # its Monte-Carlo error: standard error and bias together
    difference_spread: float  # sd over seeds of the difference between one fit of each; NaN for one seed
    stacking: float  # weight in the mixture of all rows
    is_reliable: bool  # whether the evidence of at least 95 % of the data is vouched for, its own and the best one's

    @property
    def is_clear(self) -> bool:
        """Whether the difference is above 3 of its standard errors, of either kind, and twice its spread over seeds.

        Between reliable evidence alone: where nothing vouches for more than 5 % of the data of either, it is not.
        """
        error = max(self.difference_se, self.difference_mc_error)
        distance = abs(self.difference)
        return self.is_reliable and distance > 3 * error and distance > 2 * self.difference_spread

    @property
    def is_noise(self) -> bool:
        """Whether the difference is within two of its standard errors, of either kind, or within its spread."""
        error = max(self.difference_se, self.difference_mc_error)
        return abs(self.difference) <= 2 * error or abs(self.difference) <= self.difference_spread

    @property
    def verdict(self) -> str:
        """What the difference is worth, in a word: "clear", "noise", or nothing in between."""
        return "clear" if self.is_clear else "noise" if self.is_noise else ""


@dataclass(frozen=True, repr=False)
class OverSeeds(Record):
    """Kinds of fits by their evidence, best first, each fitted from several seeds."""

    rows: tuple[Row, ...]
    by_seed: dict[str, tuple[float, ...]]  # name -> mean log p(x) of each of its fits
    beside: dict[str, tuple[float, ...]]  # further column -> mean over the seeds of each row
    num_data: int
    data: str  # the set and split, and the unit of densities
    notes: tuple[str, ...] = ()  # what else a reader has to know

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"OverSeeds(N={self.num_data}, best first: {', '.join(self.row_names())})"

    def row_names(self) -> list[str]:
        return [row.name for row in self.rows]

    def table(self) -> dict[str, Tensor]:
        """What the rows hold beside their names, a column each, one row for each kind of fit."""
        columns = dict(zip(Row._fields, zip(*self.rows, strict=True), strict=True))
        columns = {name: column for name, column in columns.items() if name != "name"} | self.beside
        return {name: torch.tensor(column).double() for name, column in columns.items()}

    def numbers(self) -> dict[str, Any]:
        """The verdict on each difference."""
        return {"unit": "nats per datum", "verdicts": {row.name: row.verdict for row in self.rows[1:]}}

    def lines(self) -> list[str | TextTable]:
        return [self._account(), "", self._differences(), *self._explained(), *self.warnings(), *self.notes]

    def warnings(self) -> list[str]:
        """What keeps the differences from being differences between models, a line each."""
        if any(row.fraction_unreliable > UNRELIABLE_FRACTION for row in self.rows):
            return [UNRELIABLE]
        return []

    def _account(self) -> TextTable:
        width = max(map(len, self.row_names())) + 2
        columns = [("", f"<{width}", ""), ("fits", ">4", ""), ("log p(x)", ">11", ".3f"), ("sd of fits", ">12", ".3f")]
        columns += [("ELBO", ">11", ".3f"), ("KL prior", ">10", "z.3f"), ("KL post.", ">10", "z.3f")]
        columns += [("unreliable", ">12", ".1%"), *((name, f">{len(name) + 2}", ".1f") for name in self.beside)]
        shown = ("name", "num_seeds", "log_evidence", "seed_sd", *MEANS, "fraction_unreliable")
        beside = zip(*self.beside.values(), strict=True) if self.beside else [()] * len(self.rows)
        of_rows = zip(self.rows, beside, strict=True)
        return TextTable(columns, [[*(getattr(row, name) for name in shown), *further] for row, further in of_rows])

    def _differences(self) -> TextTable:
        width = max(map(len, self.row_names())) + 2
        columns = [("", f"<{width}", ""), ("stacking", ">8", ".2f"), ("difference", ">12", ".3f"), ("SE", ">8", ".3f")]
        columns += [("MC error", ">10", ".4f"), ("spread", ">9", ".3f"), ("", "<8", "")]
        shown = ("difference", "difference_se", "difference_mc_error", "difference_spread")
        cells = [[r.name, r.stacking, *(getattr(r, name) for name in shown), f"  {r.verdict}"] for r in self.rows]
        return TextTable(columns, [[*cells[0][:2], "highest"], *cells[1:]])

    def _explained(self) -> list[str]:
        lines = [f"{self.data}; N = {self.num_data}, nats per datum; differences are paired, of means over the fits"]
        if all(math.isnan(row.seed_sd) for row in self.rows):
            return [*lines, "one fit of each: how far a fit from another seed would move these numbers is not known"]
        lines += ["spread: sd over seeds of the difference between one fit of each"]
        lines += ["clear: above 3 SE, 3 MC errors and twice the spread; noise: within 2 of either error, or the spread"]
        lines += ["without a word: in between"]
        return lines


@checked
def compare_seeds(
    reports: Mapping[str, Sequence[Evidence]],
    *,
    beside: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    notes: Sequence[str] = (),
) -> OverSeeds:
    """Differences in log p(x) between kinds of fits, each fitted from several seeds and measured on the same data.

    The difference of two means over seeds has two errors, and a claim must stand against both: that of the data, from
    differences paired datum by datum, and what a refit would change, from the fits of each kind.

    Args:
        reports: name -> records that hold an evidence for each datum (:class:`~pyrovae.Report` and others), one for
            each fit; at least two names, all on the same rows in the same order.
        beside: further column -> name -> a number for each fit, whose mean is shown.
        notes: lines below the table.

    Returns:
        An :class:`OverSeeds`; where rows were rescaled, densities are brought back to the source's unit. Its stacking
        weights are of mixtures over the fits of each kind, and fitted on these very data.

    Raises:
        InputError: if there are fewer than two names or a name has no report, if the reports are of unlike rows, or a
            density would be compared with a mass.

    References:
        Bouthillier et al. (2021), Accounting for variance in machine learning benchmarks, arXiv:2103.03098 (seeds).
        Yao, Vehtari, Simpson and Gelman (2018), Using stacking to average Bayesian predictive distributions.
    """
    _check(reports)
    kept = {name: list(found) for name, found in reports.items()}
    evidence = {name: torch.stack([source_evidence(report) for report in found]) for name, found in kept.items()}
    best = max(evidence, key=lambda name: evidence[name].mean().item())
    pooled = torch.stack([table.logsumexp(0) - math.log(len(table)) for table in evidence.values()])
    stacking = dict(zip(evidence, stacking_weights(pooled).tolist(), strict=True))
    rows = [_row(name, best, evidence, kept, stacking[name]) for name in kept]
    rows.sort(key=lambda row: -row.log_evidence)
    means = {
        column: tuple(float(torch.tensor(of_each[row.name]).double().mean()) for row in rows)
        for column, of_each in (beside or {}).items()
    }
    by_seed = {row.name: tuple(evidence[row.name].mean(1).tolist()) for row in rows}
    first = next(iter(kept.values()))[0]
    named = {name: found[0] for name, found in kept.items()}
    told = [*notes, *([bounds_told(bounds)] if (bounds := bounds_of(named)) else [])]
    return OverSeeds(tuple(rows), by_seed, means, len(first.log_evidence), data_of(named), tuple(told))


def _check(reports: Mapping[str, Sequence[Evidence]]) -> None:
    if len(reports) < 2:
        raise InputError(f"a comparison needs at least two kinds of fits, got {len(reports)}")
    for name, found in reports.items():
        if (
            not isinstance(found, list | tuple)
            or not found
            or not all(isinstance(report, Evidence) for report in found)
        ):
            raise InputError(f"'{name}': give a list of reports, one for each fit, got {found!r:.60}")
    (first_name, (first, *_)), *_ = reports.items()
    for name, found in reports.items():
        for report in found:
            check_alike(first_name, first, name, report)


def _row(
    name: str,
    best: str,
    evidence: Mapping[str, Tensor],
    reports: Mapping[str, Sequence[Evidence]],
    stacking: float,
) -> Row:
    table, highest = evidence[name], evidence[best]
    paired = table.mean(0) - highest.mean(0)
    spreads, others = _seed_sd(table), _seed_sd(highest)
    return Row(
        name,
        len(table),
        table.mean().item(),
        estimators.mean_se(table.mean(0)).item(),
        spreads,
        _mean(reports[name], "elbo") + log_jacobian(reports[name][0]),
        _mean(reports[name], "kl_prior"),
        _mean(reports[name], "kl_posterior"),
        _unreliable(reports[name]),
        paired.mean().item(),
        estimators.mean_se(paired).item(),
        difference_mc_error(reports[name], reports[best]) if name != best else 0.0,
        math.hypot(spreads, others) if name != best else 0.0,
        stacking,
        all(_unreliable(reports[each]) <= UNRELIABLE_FRACTION for each in (name, best)),
    )


def _seed_sd(table: Tensor) -> float:
    """Sd of the mean over data, over fits (S, N); NaN for one fit."""
    return float(table.mean(1).std()) if len(table) > 1 else math.nan


def _mean(reports: Sequence[Evidence], column: str) -> float:
    found = [getattr(report, column, None) for report in reports]
    known = [float(values.mean()) for values in found if isinstance(values, Tensor)]
    return sum(known) / len(known) if known else math.nan


def _unreliable(reports: Sequence[Evidence]) -> float:
    return sum(report.fraction_unreliable for report in reports) / len(reports)
