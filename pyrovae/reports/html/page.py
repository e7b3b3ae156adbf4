"""The report: records of one pair or of several as one HTML page that needs nothing beside it.

No script, no request: style and figures are in the page. Findings stand first, the one of the largest consequence in
nats above the others, and each leads to the section that shows it.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from pyrovae import __version__
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable, text
from pyrovae.base.records import Record
from pyrovae.base.storage import write_whole
from pyrovae.evidence.comparisons.paired import compare
from pyrovae.evidence.report import Report
from pyrovae.reports.figures import account
from pyrovae.reports.html.findings import Finding, TrainAndTest, nats, ranked
from pyrovae.reports.html.sections import SECTIONS, Section, drawings, picture, section_of
from pyrovae.training.fit import Fit

LARGEST = 3_000_000  # bytes of a page that is still sent by mail


class Subject(NamedTuple):
    """What a chapter is about: a run, or records that belong together."""

    name: str
    records: Sequence[Any]  # records, and the fit where there is one
    figures: Mapping[str, Figure] = {}  # of the pair itself, by the name of what drew each
    facts: Mapping[str, str] = {}  # its data, its programs, how it was fitted
    commands: Sequence[str] = ()  # that make it again
    missing: Mapping[str, str] = {}  # what was not computed -> the command that does


class Chapter(NamedTuple):
    """A subject, ready to be written."""

    key: str
    name: str
    headline: str
    findings: Sequence[Finding]
    sections: Sequence[Section]
    subject: Subject


def report(
    records: Record | Fit | Sequence[Record | Fit] | Mapping[str, Record | Fit | Sequence[Record | Fit]],
    path: str | Path,
    *,
    title: str | None = None,
) -> None:
    """Writes one HTML page of records: findings ranked by their consequence in nats, accounts, figures.

    Args:
        records: a record or a fit, several of one pair, or name -> those of each pair: then pairs whose reports are of
            the same rows are compared.
        path: of the page, ``.html``; its folder is made if it is not there.
        title: of the page.

    Raises:
        InputError: for no record, or what is none; for a path that does not end in ``.html``.
        OSError: if it cannot be written.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> found = pv.evaluate(oracle.model, oracle.guide, oracle.draw(40, seed=0)[0], num_particles=50)
        >>> report(found, "page.html")  # doctest: +SKIP
    """
    write(page_of(records, title=title), path)


def page_of(records: Any, *, title: str | None = None) -> str:
    """What :func:`report` writes, as text."""
    named = records if isinstance(records, Mapping) else {"": records}
    return page([Subject(name, _listed(each)) for name, each in named.items()], title=title)


def write(text: str, path: str | Path) -> None:
    """Writes a page whole or not at all.

    Raises:
        InputError: for a path that does not end in ``.html``.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: a page has a name that ends in .html; give one")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def page(subjects: Sequence[Subject], *, title: str | None = None) -> str:
    """The page of some subjects as text; where several have reports of the same rows, their comparison comes first."""
    if not subjects:
        raise InputError("a page needs a record; give what evaluate(), gaps() or another measurement returned")
    chapters = [_chapter(subject, f"p{place}") for place, subject in enumerate(subjects, 1)]
    names = ", ".join(subject.name for subject in subjects if subject.name)
    return rendered(
        "report.html",
        title=title or (f"Report on {names}" if names else "Report"),
        chapters=chapters,
        together=_together(subjects) if len(subjects) > 1 else None,
    )


def rendered(template: str, **values: Any) -> str:
    """A template of this folder, filled in."""
    return _environment().get_template(template).render(version=__version__, **values)


@cache
def _environment() -> Environment:
    loader = PackageLoader("pyrovae.reports.html", "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"nats": nats, "cells": _cells}
    made.tests["text"] = lambda block: isinstance(block, str)
    return made


def _listed(records: Any) -> list[Any]:
    """Records as a list; InputError for what is none."""
    found = [records] if isinstance(records, (Record, Fit)) else list(records)
    for one in found:
        if not isinstance(one, (Record, Fit)):
            raise InputError(f"expected records or a fit, got a {type(one).__name__}; give what a measurement returned")
    if not found:
        raise InputError("expected at least one record, got none")
    return found


def _chapter(subject: Subject, key: str) -> Chapter:
    records = in_order(subject.records)
    shown = _shown(records)
    sections = [section_of(record, f"{key}-{place}") for place, record in enumerate(shown)]
    if subject.figures:
        about = "Data and what the pair makes of them: means of p(x|z) unless a figure says draws."
        made = Section("programs", "What the pair makes", about, drawings(subject.figures, key))
        place = next((i for i, one in enumerate(sections, 1) if one.key == "account"), len(sections))
        sections.insert(place, made)
    pairs = _train_and_test(records)
    return Chapter(key, subject.name, _headline(records), ranked([*shown, *pairs]), _unique(sections), subject)


def in_order(records: Iterable[Any]) -> list[Any]:
    """Records as their sections stand in a page, those of other types last."""
    order = list(SECTIONS)
    return sorted(records, key=lambda one: order.index(type(one)) if type(one) in order else len(order))


def _shown(records: Sequence[Any]) -> list[Any]:
    """All records; of several reports the best on test data, as the others say less of the same."""
    reports = [one for one in records if isinstance(one, Report)]
    best = best_of(reports)
    return [one for one in records if not isinstance(one, Report) or one is best]


def best_of(reports: Iterable[Report]) -> Report | None:
    """Of the fewest unreliable rows, then of the smallest error; on test data where there are any."""
    kept = list(reports)
    of_test = [one for one in kept if one.protocol is not None and one.protocol.split != "train"]
    return min(of_test or kept, key=lambda one: one.doubt, default=None)


def _train_and_test(records: Sequence[Any]) -> list[TrainAndTest]:
    """The reports on training and on test data, where a pair has both."""
    by_split: dict[str, list[Report]] = {"train": [], "test": []}
    for one in records:
        if isinstance(one, Report) and one.protocol is not None and one.protocol.split in by_split:
            by_split[one.protocol.split].append(one)
    train, test = (best_of(each) for each in by_split.values())
    return [TrainAndTest(train, test)] if train and test else []


def _unique(sections: Sequence[Section]) -> list[Section]:
    """Sections with keys of their own: the second of a kind has a number behind it."""
    seen: dict[str, int] = {}
    found = []
    for section in sections:
        seen[section.key] = count = seen.get(section.key, 0) + 1
        found.append(section if count == 1 else section._replace(key=f"{section.key}-{count}"))
    return found


def _headline(records: Sequence[Any]) -> str:
    """log p(x) with its errors, in a line."""
    report = best_of(one for one in records if isinstance(one, Report))
    if report is None:
        return ""
    evidence = report.numbers()["log_evidence"]
    mean, data_se, mc_se = (text(evidence[key], form) for key, form in _ERRORS.items())
    on = f" on {report.protocol.dataset} {report.protocol.split}" if report.protocol else ""
    return f"log p(x) = {mean} nats per datum{on} (N = {len(report):,}; data SE {data_se}, MC SE {mc_se})"


_ERRORS = {"mean": ".3f", "data_se": ".3f", "mc_se": ".4f"}
_QUANTITIES = {
    "log_evidence": "log p(x)",
    "elbo": "ELBO",
    "reconstruction": "reconstruction",
    "kl_prior": "KL(q ‖ prior)",
    "kl_posterior": "KL(q ‖ posterior)",
}


def _together(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Several pairs side by side: their numbers, and paired differences where rows and measures are alike."""
    reports = {subject.name: best_of(one for one in subject.records if isinstance(one, Report)) for subject in subjects}
    kept: dict[str, Any] = {name: one for name, one in reports.items() if one is not None}
    refused, table = "", None
    try:
        table = compare(kept)
    except InputError as error:
        refused = str(error)
    sections = []
    if table is not None:
        sections.append(section_of(table, "all"))
        both = picture(account(kept), "all-account", "accounts", "How log p(x) of each comes about.")
        sections[0] = sections[0]._replace(pictures=[*sections[0].pictures, both])
    return {
        "table": _side_by_side(kept),
        "findings": ranked([table] if table else []),
        "sections": sections,
        "refused": refused,
    }


def _side_by_side(reports: Mapping[str, Any]) -> TextTable:
    """Quantities in rows, pairs in columns."""
    accounts = {name: report.numbers() for name, report in reports.items()}
    columns = [("nats per datum", "<20", ""), *((name, ">12", ".3f") for name in accounts)]
    rows: list[Any] = [
        (label, *(account[name]["mean"] for account in accounts.values())) for name, label in _QUANTITIES.items()
    ]
    rows += [("unreliable rows", *(f"{report.fraction_unreliable:.1%}" for report in reports.values()))]
    return TextTable(columns, rows)


def _cells(table: TextTable) -> list[list[tuple[str, str]]]:
    """Rows of (text, class): numbers stand to the right, one text over all columns is a note."""
    sides = ["n" if ">" in pad else "" for _, pad, _ in table.columns]
    rows = []
    for cells in table.cells():
        classes = ["note"] if len(cells) == 1 else [*sides, *["remark"] * (len(cells) - len(sides))]
        rows.append(list(zip(cells, classes, strict=False)))  # a row may end early
    return rows
