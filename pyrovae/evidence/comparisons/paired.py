"""compare(): which pair gives the same data more evidence, by paired differences datum by datum."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record
from pyrovae.data import protocol as data_protocol
from pyrovae.evidence import estimators
from pyrovae.evidence.reliability import UNRELIABLE, UNRELIABLE_FRACTION
from pyrovae.evidence.report import BY_GUIDE, EXACT


@runtime_checkable
class Evidence(Protocol):
    """What can be compared: a report, annealed evidence, gaps."""

    log_evidence: Tensor  # (N,), nats
    mc_se_log_evidence: Tensor
    measure: dict[str, str]  # observed site -> "mass" or "density"
    protocol: data_protocol.Protocol | None

    @property
    def found_by(self) -> str:
        """By what the evidence was found, and by how many draws."""

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data whose evidence nothing vouches for."""


class Row(NamedTuple):
    """One pair against the best one; nats per datum."""

    name: str
    log_evidence: float  # mean over data
    data_se: float
    difference: float  # mean over data of log p(x) minus that of the best
    difference_se: float  # sd of the paired differences / sqrt(N)
    difference_mc_error: float  # its Monte-Carlo error: standard error and bias together
    found_by: str
    fraction_unreliable: float  # of data whose evidence nothing vouches for

    @property
    def within_error(self) -> bool:
        """Whether the difference from the best is at most two of its standard errors."""
        return abs(self.difference) <= 2 * self.difference_se


@dataclass(frozen=True, repr=False)
class Comparison(Record):
    """Pairs sorted by evidence, best first."""

    rows: tuple[Row, ...]
    num_data: int
    data: str  # the set and split, and the unit of densities
    by_guides: tuple[str, ...] = ()  # the order by the guides' own draws, where that is known
    bounds: tuple[str, ...] = ()  # those whose density of dequantized rows bounds a mass from below, beside masses

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Comparison(N={self.num_data}, best first: {', '.join(self.row_names())})"

    def row_names(self) -> list[str]:
        return [row.name for row in self.rows]

    def table(self) -> dict[str, Tensor]:
        """What the rows hold beside their names, a column each, one row for each pair."""
        columns = dict(zip(Row._fields, zip(*self.rows, strict=True), strict=True))
        return {n: torch.tensor(column).double() for n, column in columns.items() if n not in ("name", "found_by")}

    def lines(self) -> list[str | TextTable]:
        width = max(map(len, self.row_names())) + 2
        found_by = max(len(row.found_by) for row in self.rows) + 2
        columns = [("", f"<{width}", ""), ("log p(x)", ">10", ".3f"), ("data SE", ">9", ".3f")]
        columns += [
            ("found by", f">{max(found_by, 10)}", ""),
            ("unreliable", ">12", ".0%"),
            ("difference", ">12", ".3f"),
            ("SE", ">8", ".3f"),
            ("MC error", ">10", ".4f"),
        ]
        cells = [
            (r.name, r.log_evidence, r.data_se, r.found_by, r.fraction_unreliable)
            + ((r.difference, r.difference_se, r.difference_mc_error) if i else ("highest",))
            + (("  within its error",) if i and r.within_error else ())
            for i, r in enumerate(self.rows)
        ]
        note = f"{self.data}; N = {self.num_data}, nats per datum; differences are paired, given these fits"
        note += "; within its error: at most 2 SE" if any(row.within_error for row in self.rows[1:]) else ""
        return [TextTable(columns, cells), note, *self.warnings()]

    def warnings(self) -> list[str]:
        """What keeps the differences from being differences between models, a line each."""
        lines = []
        if self.by_guides and list(self.by_guides) != self.row_names():
            lines += [f"by the guides' own draws alone the order would be {', '.join(self.by_guides)}"]
        if len({row.found_by for row in self.rows} - {EXACT}) > 1 and any(
            row.fraction_unreliable > 0 for row in self.rows
        ):
            lines += ["unreliable evidence rises with what was spent on it: find all of it by the same means"]
        if any(row.fraction_unreliable > UNRELIABLE_FRACTION for row in self.rows):
            lines += [UNRELIABLE]
        return lines + ([bounds_told(self.bounds)] if self.bounds else [])


@checked
def compare(reports: Mapping[str, Evidence]) -> Comparison:
    """Paired differences in log p(x) between pairs measured on the same data.

    Args:
        reports: name -> what holds an evidence for each datum, at least two, on the same rows in the same order: a
            :class:`~pyrovae.Report`, :class:`~pyrovae.Annealed` or :class:`~pyrovae.Gaps`.

    Returns:
        A :class:`Comparison`; where rows were rescaled, densities are brought back to the source's unit. Beside masses
        stand densities of dequantized rows, and are told to be lower bounds.

    Raises:
        InputError: if the reports are of unlike rows, or a density of what was not dequantized would be compared
            with a mass.
    """
    if not isinstance(reports, Mapping) or not all(isinstance(report, Evidence) for report in reports.values()):
        raise InputError(
            "a comparison needs reports, annealed evidence or gaps by name, "
            'compare({"normal": report, "mixture": other})'
        )
    if len(reports) < 2:
        raise InputError(f"a comparison needs at least two reports, got {len(reports)}")
    (first_name, first), *others = reports.items()
    for name, report in others:
        check_alike(first_name, first, name, report)
    evidence = {name: source_evidence(report) for name, report in reports.items()}
    best = max(evidence, key=lambda name: evidence[name].mean().item())
    rows = [_row(name, evidence, best, reports) for name in reports]
    ranked = tuple(sorted(rows, key=lambda row: -row.log_evidence))
    return Comparison(ranked, len(first.log_evidence), data_of(reports), _by_guides(reports), bounds_of(reports))


def _by_guides(reports: Mapping[str, Evidence]) -> tuple[str, ...]:
    """The names by log p(x) of the guides' own draws, the highest first; none where that is not known of all."""
    of_each = {name: getattr(report, "columns", {}).get(BY_GUIDE) for name, report in reports.items()}
    means = {n: float(column.mean()) + log_jacobian(reports[n]) for n, column in of_each.items() if column is not None}
    return tuple(sorted(means, key=lambda name: -means[name])) if len(means) == len(reports) else ()


def bounds_of(reports: Mapping[str, Evidence]) -> tuple[str, ...]:
    """The names whose density of dequantized rows stands for a mass, where others are masses."""
    bounds = tuple(name for name, report in reports.items() if _is_dequantized(report))
    return bounds if len(bounds) < len(reports) else ()


def bounds_told(names: Sequence[str]) -> str:
    """What such a density is, in a line."""
    return (
        f"{', '.join(names)}: densities of dequantized rows, in expectation lower bounds on the log mass (Theis et al. "
        "2016): a mass may be above them by the bound alone"
    )


def _is_dequantized(report: Evidence) -> bool:
    return report.protocol is not None and report.protocol.dequantized != "none"


def source_evidence(report: Evidence) -> Tensor:
    """log p(x) in the unit of the source rows, (N,) nats: rescaled densities get their log Jacobian, row by row."""
    of_rows = getattr(report, "columns", {}).get("log_jacobian")
    if of_rows is not None and "density" in report.measure.values():
        return report.log_evidence + of_rows
    return report.log_evidence + log_jacobian(report)


def log_jacobian(report: Evidence) -> float:
    """What is added to log p(x) of a density to have it in the unit of the source rows: the mean, nats per datum."""
    return report.protocol.log_jacobian if report.protocol and "density" in report.measure.values() else 0.0


def _row(name: str, evidence: dict[str, Tensor], best: str, reports: Mapping[str, Evidence]) -> Row:
    values, difference = evidence[name], evidence[name] - evidence[best]
    return Row(
        name,
        values.mean().item(),
        estimators.mean_se(values).item(),
        difference.mean().item(),
        estimators.mean_se(difference).item(),
        difference_mc_error([reports[name]], [reports[best]]) if name != best else 0.0,
        reports[name].found_by,
        reports[name].fraction_unreliable,
    )


def difference_mc_error(reports: Sequence[Evidence], others: Sequence[Evidence]) -> float:
    """Monte-Carlo error of a difference of means over data and fits: standard error and bias together."""
    return math.hypot(_mc_se(reports), _mc_se(others), _bias(reports) - _bias(others))


def _mc_se(reports: Sequence[Evidence]) -> float:
    """Monte-Carlo standard error of the mean over data and fits."""
    squares = sum(float(report.mc_se_log_evidence.square().sum()) for report in reports)
    return math.sqrt(squares) / (len(reports) * len(reports[0].log_evidence))


def _bias(reports: Sequence[Evidence]) -> float:
    errors = torch.stack([report.mc_se_log_evidence for report in reports])
    return float(estimators.log_evidence_bias(errors).mean())


def _split_of(report: Evidence) -> str:
    return f"{report.protocol.dataset} {report.protocol.split}" if report.protocol else "unknown rows"


def data_of(reports: Mapping[str, Evidence]) -> str:
    """The rows that were evaluated, in words."""
    unit = ", densities in the unit of the source rows" if any(map(log_jacobian, reports.values())) else ""
    return f"{_split_of(next(iter(reports.values())))}{unit}"


def _rescaled(protocol: data_protocol.Protocol) -> list[bool] | None:
    """Which columns of a table are rescaled, and so densities; None where none is."""
    found = [scale != 1.0 for scale in protocol.scale]
    return found if any(found) else None


def _measures(report: Evidence) -> list[str]:
    """The base measures of what is observed; parts of one observation, x.real and x.ordinal5, count together.

    Where these parts are masses and densities, how many there are of each counts too.
    """
    found: dict[str, list[str]] = {}
    for site, measure in report.measure.items():
        found.setdefault(site.partition(".")[0], []).append(measure)
    parts = [sorted(each if len(set(each)) > 1 else set(each)) for each in found.values()]
    return sorted(" and a ".join(each) for each in parts)


def _in_words(measures: Sequence[str]) -> str:
    """A density and 3 masses."""
    count, plural = Counter(" and a ".join(measures).split(" and a ")), {"mass": "masses", "density": "densities"}
    of_each = [(number, one) for one, number in sorted(count.items())]
    return " and ".join(f"a {one}" if number == 1 else f"{number} {plural.get(one, one)}" for number, one in of_each)


def _is_bounded(mass: Evidence, density: Evidence) -> bool:
    """Whether one is of a mass, and the other a density of the same whole numbers with noise: a lower bound on one."""
    return set(mass.measure.values()) == {"mass"} and _is_dequantized(density)


def check_alike(name: str, report: Evidence, other_name: str, other: Evidence) -> None:
    """Raises InputError, naming both, unless their evidence is of the same rows and of one kind of measure."""
    pair = f"'{name}' and '{other_name}' cannot be compared"
    sizes = len(report.log_evidence), len(other.log_evidence)
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{pair}: they were evaluated on {sizes[0]} and {sizes[1]} data "
            f"({_split_of(report)}; {_split_of(other)}); evaluate both on the same split"
        )
    measures = _measures(report), _measures(other)
    if measures[0] != measures[1] and not _is_bounded(report, other) and not _is_bounded(other, report):
        raise InputError(
            f"{pair}: the likelihood of one is {_in_words(measures[0])}, of the other {_in_words(measures[1])}; log "
            "densities of unlike base measures have no difference"
        )
    a, b = report.protocol, other.protocol
    if a is None or b is None:
        raise InputError(f"{pair}: a report without a data protocol says nothing of its rows")
    if len(set(report.measure.values())) > 1 and _rescaled(a) != _rescaled(b):
        raise InputError(
            f"{pair}: other columns are rescaled in one than in the other, so that a column may be a mass in one and a "
            "density in the other; declare the kinds of both alike"
        )
    if measures[0] == measures[1] and _is_dequantized(report) != _is_dequantized(other):
        raise InputError(
            f"{pair}: whole numbers are dequantized in one and as found in the other, where a density has no bound; "
            "dequantize both, or neither"
        )
    if a.binarization != b.binarization:
        raise InputError(f"{pair}: binarization is '{a.binarization}' in one and '{b.binarization}' in the other")
    same = a.source_sha256 == b.source_sha256 if a.binarization == "none" else a.sha256 == b.sha256
    if not same:
        raise InputError(f"{pair}: their rows differ ({a}; {b}); evaluate both on the same data")
