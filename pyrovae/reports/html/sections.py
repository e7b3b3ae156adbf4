"""Sections: how each kind of record is shown in a page: a title, what it tells, its figures, its account.

``SECTIONS`` lists them by the type of the record, in the order of a page; a record of another type, such as a new
measurement's, has the section of its class's name and docstring.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record
from pyrovae.diagnostics.calibration import Calibration
from pyrovae.diagnostics.classes.classification import Classification
from pyrovae.diagnostics.classes.diversity import Diversity
from pyrovae.diagnostics.gaps import Gaps
from pyrovae.diagnostics.predictive_check import PredictiveCheck
from pyrovae.diagnostics.surgery import Surgery
from pyrovae.evidence.annealing.ais import Annealed
from pyrovae.evidence.annealing.bdmc import Bidirectional
from pyrovae.evidence.comparisons.paired import Comparison
from pyrovae.evidence.comparisons.seeds import OverSeeds
from pyrovae.evidence.convergence import Convergence
from pyrovae.evidence.report import Report
from pyrovae.posteriors.missing.completion import Completion
from pyrovae.posteriors.missing.questions import Information
from pyrovae.posteriors.reference import PosteriorDraws
from pyrovae.posteriors.restoring.restoration import Restoration
from pyrovae.reports import figures
from pyrovae.reports.html.svg import inline
from pyrovae.training.fit import Fit


class Kind(NamedTuple):
    """What a section of one kind of record is called, and what it tells."""

    key: str
    title: str
    about: str


SECTIONS: dict[type, Kind] = {
    Comparison: Kind("comparison", "Comparison", "Differences in log p(x) are paired, row by row of the same data."),
    OverSeeds: Kind("seeds", "Over seeds", "Differences with their errors over data and over refits."),
    Fit: Kind("fit", "The fit", "What was optimized, in nats per datum, epoch by epoch."),
    Report: Kind(
        "account", "The account of log p(x)", "log p(x) = reconstruction − KL(q ‖ prior) + KL(q ‖ posterior)."
    ),
    Convergence: Kind("convergence", "Convergence in K", "How importance-sampled log p(x) rises with the draws."),
    Annealed: Kind("annealed", "Annealed evidence", "log p(x) by annealed importance sampling, from another start."),
    Bidirectional: Kind("bounds", "Bounds from both sides", "log p(x) of data that the model itself makes."),
    Gaps: Kind("gaps", "Gaps of inference", "log p(x) − ELBO: the family's fault, or the encoder's?"),
    Surgery: Kind("surgery", "ELBO surgery", "KL(q ‖ prior) taken apart, and which latent dimensions are used."),
    Calibration: Kind("calibration", "Calibration", "Is the guide the posterior, on data like the model's own?"),
    PosteriorDraws: Kind("posterior", "One posterior", "The posterior of one datum as it is, and the guide's draws."),
    PredictiveCheck: Kind("check", "Predictive check", "Does the model make data like these?"),
    Classification: Kind("classification", "Classification", "How often classes are right, and how sure."),
    Diversity: Kind("diversity", "Diversity", "Whether what the model makes is as varied as the data."),
    Restoration: Kind("completion", "Completions", "What is hidden, drawn given what is not; * where nothing vouches."),
    Completion: Kind("completion", "Completions", "What is missing, drawn given what is not; * where nothing vouches."),
    Information: Kind("information", "The next question", "What each entry that is not known would tell of others."),
}


class Picture(NamedTuple):
    """A figure in a page."""

    svg: Markup
    caption: str


class Section(NamedTuple):
    """A part of a page."""

    key: str  # what its address ends in
    title: str
    about: str
    pictures: Sequence[Picture] = ()
    blocks: Sequence[str | TextTable] = ()  # lines and tables, in their order


def kind_of(record: Any) -> Kind:
    """How a record is shown; one of a type that is not listed by its class's name and first sentence."""
    if (kind := SECTIONS.get(type(record))) is not None:
        return kind
    name = type(record).__name__
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return Kind(words.lower().replace(" ", "-"), words.capitalize(), first_paragraph(type(record).__doc__))


def section_of(record: Any, name: str) -> Section:
    """The section of a record.

    Args:
        record: a :class:`~pyrovae.Record`, or a :class:`~pyrovae.Fit`.
        name: what the ids of its figures begin with.
    """
    kind = kind_of(record)
    drawn = _drawn(record)
    pictures = [picture(figure, f"{name}-{kind.key}-{place}", *told) for place, (figure, *told) in enumerate(drawn)]
    blocks = tuple(joined(record.lines())) if isinstance(record, Record) else ()
    return Section(kind.key, kind.title, kind.about, pictures, blocks)


def picture(figure: Figure, name: str, title: str, about: str) -> Picture:
    """A figure with its caption, which is its text alternative too."""
    return Picture(inline(figure, name=name, title=title, about=about), about)


def drawings(named: Mapping[str, Figure], name: str) -> list[Picture]:
    """Figures that are there already, by the name of the function that drew each."""
    return [picture(figure, f"{name}-{key}", *_told(getattr(figures, key))) for key, figure in named.items()]


def joined(lines: Iterable[str | TextTable]) -> list[str | TextTable]:
    """Lines between two tables as one text."""
    blocks: list[str | TextTable] = []
    for line in lines:
        if isinstance(line, str) and blocks and isinstance(blocks[-1], str):
            blocks[-1] += f"\n{line}"
        else:
            blocks.append(line)
    return [block.strip("\n") if isinstance(block, str) else block for block in blocks if block]


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring on one line, without the marks of its references.

    Example:
        >>> first_paragraph("What :func:`~pyrovae.gaps` found,\\n    in ``nats``.\\n\\n    More.")
        'What gaps found, in nats.'
    """
    text = " ".join((docstring or "").strip().partition("\n\n")[0].split())
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?([^`]+)`", r"\1", text)
    return text.replace("``", "").replace("`", "")


def _drawn(record: Any) -> list[tuple[Figure, str, str]]:
    """The figures of a record, each with its title and what it shows; none where there is none, or no place for it."""
    found = []
    for function, call in _figures_of(record):
        try:
            found.append((call(), *_told(function)))
        except InputError:  # a mean that is not finite, data that are no images, a record that has no figure
            continue
    return found


def _figures_of(record: Any) -> list[tuple[Callable[..., Figure], Callable[[], Figure]]]:
    """What draws a record: each function, and its call."""
    if isinstance(record, Fit):
        curves = figures.training_curves
        return [(curves, partial(curves, record.history, best_epoch=record.best_epoch))]
    calls: list[tuple[Callable[..., Figure], Callable[[], Figure]]]
    calls = [(figures.draw.dispatch(type(record)), partial(figures.draw, record))]
    if isinstance(record, Report):
        more = (figures.evidence_histogram, figures.routes)
        calls += [(function, partial(function, record)) for function in more]
    return calls


def _told(function: Callable[..., Figure]) -> tuple[str, str]:
    """A title and a sentence from a function's name and docstring."""
    return function.__name__.replace("_", " "), first_paragraph(function.__doc__)
