"""A waterfall: every part of a number is a bar that starts where another ends, so that the parts are seen to add up.

Three panels side by side: what each row is, its bar, its numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pyrovae.base.errors import InputError
from pyrovae.reports.figures.style import FAINT, QUIET, new_figure, number

ROW, GAP = 0.24, 1.5  # height of a row in inches, and rows from one group to the next
CUT_BELOW = 0.15  # of the axis from 0: where all ends differ by less, 0 is cut off
TITLES = {"mean": "mean", "mc_se": "MC SE", "data_se": "data SE"}


class Part(NamedTuple):
    """One row: a quantity by its name in an account, as a bar between two sums; without length it is a sum itself."""

    label: str
    quantity: str
    start: float
    end: float
    color: str
    thin: bool = False  # beside the sum that the others make
    hatched: bool = False  # not known, but as a bound


class Group(NamedTuple):
    """The parts of one record, under its name."""

    name: str
    about: str
    parts: Sequence[Part]
    account: Mapping[str, Any]  # quantity -> column -> number


def means_of(account: Mapping[str, Any], quantities: Iterable[str], whose: str) -> dict[str, float]:
    """The means of some quantities; InputError, naming it, for one that is not finite and so has no bar."""
    means = {quantity: account[quantity]["mean"] for quantity in quantities}
    for quantity, mean in means.items():
        if mean is None:
            raise InputError(f"{whose}: the mean of {quantity} is not finite; look at its table for the data")
    return means


def waterfall(groups: Sequence[Group], digits: Mapping[str, int], xlabel: str, *, cut: bool = False) -> Figure:
    """The figure of some groups, one below the other; as :func:`draw_groups` draws them."""
    rows = sum(len(group.parts) + GAP for group in groups)
    figure, panels = new_figure(8.6, 0.75 + ROW * rows, columns=3, width_ratios=(1.5, 4, 1.8))
    draw_groups(panels, groups, digits, xlabel, cut=cut)
    return figure


def draw_groups(
    panels: Sequence[Axes], groups: Sequence[Group], digits: Mapping[str, int], xlabel: str, *, cut: bool = False
) -> None:
    """Draws groups into three panels, with the columns of ``digits``; ``cut`` leaves 0 out where it is far away."""
    labels, bars, numbers = panels
    edges = {column: (i + 1) / len(digits) for i, column in enumerate(digits)}
    for column, x in edges.items():
        numbers.text(x, -0.9, TITLES[column], va="center", ha="right", fontsize=8, color=QUIET)
    top = 0.0
    for name, about, parts, account in groups:
        short = name if len(name) <= 50 else f"{name[:49]}…"
        labels.text(0, top, short, va="center", weight="bold", in_layout=False, parse_math=False)
        numbers.text(1, top, about, va="center", ha="right", fontsize=8, color=QUIET, in_layout=False)
        for y, part in enumerate(parts, start=1):
            labels.text(0, top + y, part.label, va="center")
            _draw_bar(bars, top + y, part, gid=f"{name}/{part.quantity}")
            for column, x in edges.items():
                written = number(account[part.quantity][column], digits[column])
                numbers.text(x, top + y, written, va="center", ha="right", fontsize=8)
        for x in {part.end for part in parts if not part.thin}:
            bars.plot([x, x], [top + 0.6, top + len(parts) + 0.4], color=FAINT, linewidth=0.8, zorder=0)
        top += len(parts) + GAP
    for side in panels:
        side.set_ylim(top - 0.9, -1.4)
    labels.set_axis_off()
    numbers.set_axis_off()
    bars.patch.set_visible(False)  # names in the panel beside it may run into its empty rows
    bars.tick_params(axis="y", length=0, labelleft=False)
    bars.spines["left"].set_visible(False)
    _fit_axis(bars, [part for group in groups for part in group.parts], xlabel, cut)


def _draw_bar(axes: Axes, y: float, part: Part, gid: str) -> None:
    (bar,) = axes.barh(y, part.end - part.start, left=part.start, height=0.34 if part.thin else 0.62, gid=gid)
    # An edge of its own colour, so that 0 nats are seen too; a sum is a line.
    bar.set(color=part.color, linewidth=1.8 if part.start == part.end else 0.8, zorder=2)
    if part.hatched:
        bar.set(facecolor="none", edgecolor=part.color, hatch="////")


def _fit_axis(axes: Axes, parts: Sequence[Part], xlabel: str, cut: bool) -> None:
    """From 0; or cut short of it, if that may be, where the sums lie close together and far away from it."""
    ends = [part.end for part in parts]
    low, high = min(ends), max(ends)
    if not cut or high - low >= CUT_BELOW * (max(high, 0.0) - min(low, 0.0)):
        every = [0.0, *chain.from_iterable((part.start, part.end) for part in parts)]
        pad = 0.03 * (max(every) - min(every)) or 1.0
        axes.set_xlim(min(every) - pad, max(every) + pad)
        axes.set_xlabel(xlabel)
        return
    pad = 0.25 * (high - low) or 1.0
    axes.set_xlim(low - pad, high + pad)
    edge, side_of_zero = (1.0, "right") if high < 0 else (0.0, "left")
    _break_marks(axes, edge)
    axes.set_xlabel(f"{xlabel} (cut: the long bars start at 0, beyond the {side_of_zero} edge)")


def _break_marks(axes: Axes, edge: float) -> None:
    """Two white slashes through every bar that starts at 0, near the edge where it is cut."""
    long = [bar for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_x() == 0]
    centres = [bar.get_y() + bar.get_height() / 2 for bar in long]
    slash: Any = [(-0.4, -1.0), (0.4, 1.0)]
    for inset in (0.025, 0.04):
        x, across = [abs(edge - inset)] * len(long), axes.get_yaxis_transform()
        axes.plot(x, centres, marker=slash, ms=15, mec="white", mew=1.5, linestyle="", transform=across, zorder=4)
