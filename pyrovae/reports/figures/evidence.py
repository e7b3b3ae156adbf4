"""A report's account and its per-datum evidence."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pyrovae.base.errors import InputError
from pyrovae.evidence import estimators
from pyrovae.evidence.comparisons.paired import Comparison
from pyrovae.evidence.comparisons.seeds import OverSeeds
from pyrovae.evidence.reliability import UNRELIABLE_FRACTION
from pyrovae.evidence.report import BY_GUIDE, Report
from pyrovae.reports.figures.style import (
    BLUE,
    GREEN,
    HUES,
    INK,
    PLAIN,
    QUIET,
    RED,
    UNIT,
    by_name,
    draws,
    new_figure,
    number,
    styled,
)
from pyrovae.reports.figures.waterfall import Group, Part, means_of, waterfall

LEDGER = {  # quantity -> its label, its label where defensive draws make q a mixture that is not the guide, its colour
    "reconstruction": ("reconstruction $\\mathrm{E}_q$ log p(x|z)", "reconstruction by mixture", BLUE),
    "kl_prior": ("− KL(q ‖ prior)", "− KL(mixture ‖ prior)", RED),
    "elbo": ("= ELBO", "= ELBO of the mixture", QUIET),
    "kl_posterior": ("+ KL(q ‖ posterior)", "+ KL(mixture ‖ posterior)", GREEN),
    "log_evidence": ("= log p(x)", "= log p(x)", INK),
}


@draws(Report)
def account(reports: Report | Mapping[str, Report]) -> Figure:
    """How log p(x) comes about, a waterfall: reconstruction - KL(q || prior) = ELBO, + KL(q || posterior).

    The sums are bars from 0, which is cut off where the KL terms would be too small to read beside it; each KL
    starts where the sum before it ends.

    Args:
        reports: a :class:`~pyrovae.Report`, or name -> report for one group of bars each.

    Raises:
        InputError: for no report, or a mean that is not finite.
    """
    named = by_name(reports, Report, "a report")
    groups = [_group(name, report.to_dict()) for name, report in named.items()]
    return waterfall(groups, {"mean": 2, "mc_se": 4, "data_se": 2}, UNIT, cut=True)


def _group(name: str, account: Mapping[str, Any]) -> Group:
    at = means_of(account, LEDGER, f"report '{name}'")
    spans = {quantity: (0.0, mean) for quantity, mean in at.items()}
    spans |= {"kl_prior": (at["reconstruction"], at["elbo"]), "kl_posterior": (at["elbo"], at["log_evidence"])}
    parts = [
        Part(mixture if account["defensive"] else label, quantity, *spans[quantity], color)
        for quantity, (label, mixture, color) in LEDGER.items()
    ]
    unreliable = account["pareto_k"]["fraction_above"] + account["pareto_k"]["fraction_undefined"]
    bias = number(account["log_evidence"]["bias"], 4) + " or worse" * (unreliable > UNRELIABLE_FRACTION)
    sizes = f"N = {account['num_data']:,}, K = {account['num_particles']:,}"
    return Group(name, f"{sizes}, k-hat bad for {unreliable:.0%}, bias {bias}", parts, account)


@styled
def evidence_histogram(report: Report) -> Figure:
    """How log p(x) and Pareto k-hat are distributed over the data.

    Args:
        report: a :class:`~pyrovae.Report`; data whose k-hat is exact or undefined are counted in the title.
    """
    figure, (left, right) = new_figure(8.2, 3.1, columns=2)
    values, evidence = report.log_evidence[report.log_evidence.isfinite()].numpy(), report.to_dict()["log_evidence"]
    left.hist(values, bins="auto" if len(values) < 1000 else 50, color=BLUE, alpha=0.75)
    if evidence["mean"] is not None:
        left.axvline(evidence["mean"], color=INK, linewidth=1.2)
    mean, data_se, mc_se, bias = (
        number(evidence[key], digits) for key, digits in (("mean", 2), ("data_se", 2), ("mc_se", 4), ("bias", 4))
    )
    left.set_title(f"log p(x): mean {mean}\ndata SE {data_se}, MC SE {mc_se}, bias {bias} or worse")
    left.set(xlabel=f"log p(x), {UNIT}", ylabel="number of data")
    _pareto_histogram(right, report)
    return figure


@styled
def routes(report: Report) -> Figure:
    """How far log p(x) by the guide's own draws falls short, and what it took to find better: a line for each route.

    A line starts at the guide's K draws, at the mean over the data of its route (whiskers: half of these data), and
    ends where their evidence was found.

    Args:
        report: a :class:`~pyrovae.Report`, evaluated with ``method`` other than "importance".

    Raises:
        InputError: if all data stayed at the encoder; for another record, which knows no routes.
    """
    if not isinstance(report, Report):
        raise InputError(f"routes are those of a report of evaluate(); {type(report).__name__} goes to figures.draw")
    taken = {name: found for name, found in report.routes().items() if name != "encoder" and found["num_data"]}
    if not taken:
        raise InputError("all data stayed at the encoder: there is no route to draw")
    short = report.log_evidence - report.columns[BY_GUIDE]
    figure, (axes,) = new_figure(7, 3.4)
    for color, (name, found) in zip(HUES, taken.items(), strict=False):
        of_route = short[torch.tensor([route == name for route in report.route])]
        low, middle, high = (float(of_route.quantile(level)) for level in (0.25, 0.5, 0.75))
        ends = [report.num_particles, found["cost"]]
        label = f"{name}: {found['num_data']:,} data, {found['num_unreliable']:,} unreliable"
        axes.plot(ends, [middle, 0.0], marker="o", color=color, label=label)
        axes.errorbar(ends[0], middle, yerr=[[middle - low], [high - middle]], color=color, capsize=3)
    axes.axhline(0, color=QUIET, linewidth=0.8, zorder=0)
    axes.set(xscale="log", xlabel="decoder passes per datum", ylabel=f"short of log p(x), {UNIT}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"what {report.num_particles:,} draws of the guide miss, and what it took to find it")
    axes.legend(loc="upper right")
    return figure


@draws(Comparison)
def comparison(table: Comparison) -> Figure:
    """Differences in log p(x) from the best pair, with whiskers of two paired standard errors, and what casts doubt.

    Args:
        table: what :func:`~pyrovae.compare` returned.
    """
    doubts = table.warnings()
    figure, (axes,) = new_figure(7, 0.9 + 0.3 * len(table.rows) + 0.18 * len(doubts))
    for y, row in enumerate(table.rows):
        color, face = (BLUE, BLUE) if y else (INK, "white")
        axes.errorbar(row.difference, y, xerr=2 * row.difference_se, fmt="o", color=color, mfc=face, capsize=3)
        text = f"{number(row.difference, 3)}  (SE {number(row.difference_se, 3)})" if y else "best"
        text += f"  unreliable {row.fraction_unreliable:.0%}" if row.fraction_unreliable > UNRELIABLE_FRACTION else ""
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(0, color=QUIET, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(table.rows)), [row.name for row in table.rows], parse_math=False)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    axes.set_xlabel(f"log p(x) minus that of the best, {UNIT} (N = {table.num_data:,}; whiskers: 2 paired SE)")
    if doubts:
        figure.supxlabel("\n".join(doubts), fontsize=8, color=RED)
    return figure


@draws(OverSeeds)
def over_seeds(table: OverSeeds) -> Figure:
    """The evidence of every fit, a dot for each seed, and the mean of each kind with twice its paired standard error.

    Args:
        table: what :func:`~pyrovae.sweep` or :func:`~pyrovae.compare_seeds` returned.
    """
    figure, (axes,) = new_figure(7, 1.0 + 0.32 * len(table.rows))
    for y, row in enumerate(table.rows):
        color = INK if y == 0 else GREEN if row.is_clear else QUIET if row.is_noise else BLUE
        fits = table.by_seed[row.name]
        axes.plot(fits, [y] * len(fits), "o", color=color, alpha=0.45, markersize=4)
        axes.errorbar(row.log_evidence, y, xerr=2 * row.difference_se, fmt="D", color=color, capsize=3, markersize=5)
        text = f"{number(row.difference, 3)}  {row.verdict}" if y else "highest"
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(table.rows[0].log_evidence, color=QUIET, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(table.rows)), table.row_names(), parse_math=False)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    seeds = ", ".join(str(number) for number in sorted({row.num_seeds for row in table.rows}))
    below = f"dots: fits ({seeds} of each), diamonds: their mean, whiskers: 2 SE of the paired difference"
    axes.set_xlabel(f"log p(x), {UNIT} (N = {table.num_data:,})\n{below}")
    return figure


def _pareto_histogram(axes: Axes, report: Report) -> None:
    """Draws how k-hat is distributed, with its threshold, and counts in the title what has no finite k-hat."""
    k, threshold = report.pareto_k, estimators.pareto_k_threshold(report.num_particles)
    axes.set(xlabel="Pareto k-hat of the importance weights", ylabel="number of data")
    above, exact, undefined = int((k > threshold).sum()), int((k == -math.inf).sum()), int(k.isnan().sum())
    limit = number(threshold, 2)
    axes.set_title(f"k-hat above {limit}: {above} of {len(report):,}\n{exact} exact, {undefined} undefined")
    if not k.isfinite().any():
        axes.text(0.5, 0.5, "no finite k-hat", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set(xticks=[], yticks=[])
        return
    axes.hist(k[k.isfinite()].numpy(), bins=30, color=GREEN, alpha=0.75)
    if math.isfinite(threshold):
        axes.axvline(threshold, color=RED, linestyle="--", label=f"threshold {limit}")
        axes.legend(loc="upper left")
