"""The benchmarks' figures, in the look of pyrovae's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pyrovae.reports.figures.style import BLUE, INK, QUIET, RED, new_figure, styled
from side_by_side.alternating import Middle, Outcome
from side_by_side.results import Unit, number, seconds_text
from side_by_side.series import Series


@styled
def bars(panels: Mapping[str, Mapping[str, Outcome]], unit: Unit, own: Sequence[str]) -> Any:
    """A panel for each problem: medians as bars, the middle half as whiskers; ``own`` contenders in blue."""
    names = list(dict.fromkeys(name for outcomes in panels.values() for name in outcomes))
    figure, axes = new_figure(2.4 + 2.6 * len(panels), 0.9 + 0.26 * len(names), columns=len(panels), sharey=True)
    for panel, (title, outcomes) in zip(axes, panels.items(), strict=True):
        for y, name in enumerate(names):
            if name in outcomes and not outcomes[name].absent:
                _bar(panel, y, outcomes[name], unit, BLUE if name in own else QUIET)
        panel.set_title(title)
        panel.set_xlabel(unit.name)
        panel.margins(x=0.25)
        panel.set_xlim(left=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _bar(axes: Any, y: int, outcome: Outcome, unit: Unit, color: str) -> None:
    low, median, high = (value * unit.per_second for value in Middle.of(outcome.seconds))
    axes.barh(y, median, height=0.65, color=color, alpha=0.75)
    axes.plot([low, high], [y, y], color=INK, linewidth=1.2)
    axes.annotate(number(median), (high, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)


@styled
def ratios(rows: Mapping[str, Mapping[str, Outcome]], own: str, others: Sequence[str]) -> Any:
    """A row for each problem: the time of ``own`` over that of each of the others, medians and the middle half."""
    figure, (axes,) = new_figure(6.0, 1.2 + 0.24 * len(rows))
    for place, (other, color) in enumerate(zip(others, (BLUE, RED), strict=False)):
        for y, outcomes in enumerate(rows.values()):
            if ratio := outcomes[own].over(outcomes[other]):
                height = y + 0.25 * (place - 0.5)
                axes.plot([ratio.low, ratio.high], [height, height], color=color, linewidth=1.2)
                axes.plot(ratio.median, height, "o", color=color, markersize=4, label=other if y == 0 else None)
    axes.axvline(1, color=QUIET, linewidth=0.9, zorder=0)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"time of a step: {own} over by hand")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=7)
    return figure


@styled
def scaling(series: Sequence[Series]) -> Any:
    """Log-log panels: what was measured, and the fixed cost plus so much for each unit of size that fits it."""
    figure, axes = new_figure(2.5 * len(series), 2.7, columns=len(series))
    for panel, one in zip(axes, series, strict=True):
        low, median, high = (np.array(values) for values in zip(*one.seconds, strict=True))
        panel.errorbar(one.sizes, median, yerr=[median - low, high - median], fmt="o", color=BLUE, markersize=4)
        sizes, (fixed, each) = np.geomspace(one.sizes[0], one.sizes[-1]), one.line
        panel.plot(sizes, fixed + each * sizes, color=QUIET, linestyle="--", linewidth=0.9, zorder=0)
        panel.set(xscale="log", yscale="log", xlabel=one.size, ylabel=one.what)
        panel.set_xticks(one.sizes, map(str, one.sizes), fontsize=7)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: seconds_text(seconds)))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_formatter(NullFormatter())
        panel.set_title(f"{seconds_text(fixed)} + {seconds_text(each)} each", fontsize=9)
    return figure
