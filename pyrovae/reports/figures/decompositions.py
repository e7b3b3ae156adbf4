"""Figures of what a number consists of: the gap between evidence and ELBO, and the KL to the prior, each taken apart.

Every part is a bar that starts where the part before it ends, so that the parts are seen to add up.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrovae.base.errors import InputError
from pyrovae.diagnostics.gaps import Gaps
from pyrovae.diagnostics.surgery import COLLAPSED, Dimension, Surgery
from pyrovae.reports.figures.bounds import plainly, source
from pyrovae.reports.figures.style import BLUE, FAINT, GREEN, INK, QUIET, RED, UNIT, new_figure, number, styled

PALE = "#eaa776"  # of the parts of what is RED


# ------------------------------------------------------------------------------------------------------ the gap


class Part(NamedTuple):
    """One row: a quantity by its name in the record, as a bar between two sums; of no length if it is a sum."""

    label: str
    quantity: str
    start: float
    end: float
    color: str


COLUMNS = {"mean": ("mean", 0.34, 3), "mc_se": ("MC SE", 0.67, 4), "data_se": ("data SE", 1.0, 3)}  # right edge, digits


@styled
def gaps(records: Gaps | Mapping[str, Gaps]) -> Figure:
    """What lies between ELBO and log p(x), a waterfall: L[q], + amortization gap, + approximation gap = log p(x).

    Below it, what the best members of richer families would buy, from where the guide's own family ends.

    Args:
        records: what :func:`~pyrovae.gaps` returned, or name -> that, such as training and test data or two guides;
            all are drawn from their own log p(x).

    Raises:
        InputError: for no record, or a mean that is not finite.
    """
    named = {source(records.protocol): records} if isinstance(records, Gaps) else dict(records)
    if not named:
        raise InputError("expected a record of gaps() or a dict of them, got an empty one")
    tables = {name: _parts(name, record.to_dict()) for name, record in named.items()}
    num_rows = sum(len(parts) + 1.5 for parts in tables.values())
    figure, panels = new_figure(8.6, 0.75 + 0.24 * num_rows, columns=3, sharey=True, width_ratios=(1.45, 4, 1.9))
    top = 0.0
    for name, parts in tables.items():
        _draw_gaps(panels, top, name, named[name], parts)
        top += len(parts) + 1.5
    _fit_gap_axes(panels, top)
    return figure


def _parts(name: str, account: Mapping[str, Any]) -> list[Part]:
    """The rows of one record, at distances from log p(x)."""
    ends = {name: account[name]["mean"] for name in account if name.startswith(("elbo_", "log_evidence"))}
    for quantity, mean in ends.items():
        if mean is None:
            raise InputError(f"gaps '{name}': the mean of {quantity} is not finite; look at its table for the data")
    at = {quantity: mean - ends["log_evidence"] for quantity, mean in ends.items()}
    first = Part("L[q] of the guide", "elbo_guide", at["elbo_guide"], at["elbo_guide"], QUIET)
    parts = [Part("+ gap, KL(q ‖ posterior)", "gap", at["elbo_guide"], 0.0, GREEN)]
    if "own" in account["families"]:
        amortization = Part("+ amortization gap", "amortization", at["elbo_guide"], at["elbo_own"], RED)
        parts = [amortization, Part("+ approximation gap", "approximation", at["elbo_own"], 0.0, BLUE)]
    last = Part("= log p(x)", "log_evidence", 0.0, 0.0, INK)
    reached = at.get("elbo_own", at["elbo_guide"])
    families = {family: family.replace(" ", "_") for family in account["families"] if family != "own"}
    richer = [
        Part(f"a {family} would buy", f"gain_{key}", reached, at[f"elbo_{key}"], GREEN)
        for family, key in families.items()
    ]
    return [first, *parts, last, *richer]


def _draw_gaps(panels: Sequence[Axes], top: float, name: str, record: Gaps, parts: Sequence[Part]) -> None:
    labels, bars, numbers = panels
    account = record.to_dict()
    about = f"N = {len(record):,}, K = {record.num_particles:,}, k-hat bad for {record.fraction_unreliable:.0%}"
    short = name if len(name) <= 50 else f"{name[:49]}…"
    labels.text(0, top, short, va="center", weight="bold", in_layout=False, parse_math=False)
    numbers.text(1, top, about, va="center", ha="right", fontsize=8, color=QUIET, in_layout=False)
    for y, part in enumerate(parts, start=1):
        labels.text(0, top + y, part.label, va="center")
        _draw_part(bars, top + y, part, gid=f"{name}/{part.quantity}")
        for key, (_, x, digits) in COLUMNS.items():
            written = number(account[part.quantity][key], digits)
            numbers.text(x, top + y, written, va="center", ha="right", fontsize=8)
    for x in {part.end for part in parts if not part.quantity.startswith("gain")}:
        bars.plot([x, x], [top + 0.6, top + len(parts) + 0.4], color=FAINT, linewidth=0.8, zorder=0)


def _draw_part(axes: Axes, y: float, part: Part, gid: str) -> None:
    height = 0.34 if part.quantity.startswith("gain") else 0.62
    (bar,) = axes.barh(y, part.end - part.start, left=part.start, height=height, gid=gid)
    bar.set(color=part.color, linewidth=1.8 if part.start == part.end else 0.8, zorder=2)  # a sum is a line


def _fit_gap_axes(panels: Sequence[Axes], bottom: float) -> None:
    labels, bars, numbers = panels
    for title, x, _ in COLUMNS.values():
        numbers.text(x, -0.9, title, va="center", ha="right", fontsize=8, color=QUIET)
    for side in (labels, numbers):
        side.set_axis_off()
    bars.patch.set_visible(False)  # names in the panel beside it may run into its empty rows
    bars.tick_params(axis="y", length=0, labelleft=False)
    bars.spines["left"].set_visible(False)
    bars.set_ylim(bottom - 0.9, -1.4)
    bars.use_sticky_edges = False
    bars.margins(x=0.03)
    bars.set_xlabel(f"{UNIT}, from log p(x)")


# ---------------------------------------------------------------------------------------------- the KL to the prior

_SPLIT = {
    "kl_prior": ("rate, KL(q(z|x) ‖ p(z))", QUIET),
    "mutual_information": ("= mutual information", BLUE),
    "marginal_kl": ("+ marginal KL(q(z) ‖ p(z))", RED),
    "total_correlation": ("= total correlation", PALE),
    "dimension_wise_kl": ("+ dimension-wise KL", PALE),
}

_NAMED = 26  # dimensions that have room for their names


@styled
def anatomy(record: Surgery) -> Figure:
    """The KL to the prior taken apart, and how much of it each latent dimension holds.

    Dimensions are sorted by KL(q(z_j|x) ‖ p(z_j)), or by the variance of their posterior means where prior or guide
    does not factorise.

    Args:
        record: what :func:`~pyrovae.surgery` returned.
    """
    figure, (left, right) = new_figure(10.2, 3.6, columns=2, width_ratios=(1, 1.2))
    _draw_split(left, record)
    _draw_dimensions(right, record)
    notes = ["the mutual information is at its ceiling log N: take more data to see the true one"] * record.saturated
    notes += [f"not split further: {record.reason}"] if record.reason else []
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=8, color=RED if record.saturated else QUIET)
    return figure


def _draw_split(axes: Axes, record: Surgery) -> None:
    shown = {name: getattr(record, name) for name in _SPLIT if math.isfinite(getattr(record, name).mean)}
    ends = {name: estimate.mean for name, estimate in shown.items()}
    information = record.mutual_information.mean
    starts = {"marginal_kl": information, "total_correlation": information}
    starts["dimension_wise_kl"] = information + record.total_correlation.mean
    for y, (name, estimate) in enumerate(shown.items()):
        axes.barh(y, ends[name], left=starts.get(name, 0.0), height=0.62, color=_SPLIT[name][1], zorder=2, gid=name)
        written = f"{number(estimate.mean, 2)} (MC SE {number(estimate.mc_se, 3)})"
        ceiling = f"\nof at most log N = {number(record.log_num_data, 2)}" if name == "mutual_information" else ""
        axes.text(1.02, y, written + ceiling, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.plot([record.log_num_data] * 2, [0.6, 1.4], color=INK, linestyle="--", linewidth=1.2, zorder=3)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(shown)), [_SPLIT[name][0] for name in shown])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=UNIT)
    parts = f"rate {number(record.rate.mean, 2)} + distortion {number(record.distortion.mean, 2)}"
    axes.set_title(f"{source(record.protocol)}, N = {record.num_data:,}\n−ELBO = {parts}")


# ---------------------------------------------------------------------------------------------------- dimensions


def _draw_dimensions(axes: Axes, record: Surgery) -> None:
    """Every dimension by its KL, or where none is defined by the variance of its mean; linear below the threshold."""
    if record.reason:
        columns = [(d, d.mean_variance, 0.0) for d in record.dimensions]
        threshold, limit, label = record.threshold, "active above", "Var E[z_j|x]"
    else:
        columns = [(d, d.kl.mean, 2 * d.kl.mc_se) for d in record.dimensions]
        threshold, limit, label = COLLAPSED, "collapsed below", "KL(q(z_j|x) ‖ p(z_j)), nats ± 2 MC SE"
    columns.sort(key=lambda column: math.inf if math.isnan(column[1]) else -column[1])
    axes.set_yscale("symlog", linthresh=threshold, linscale=0.6)
    for kind, color in _KINDS.items():
        chosen = [(x, *rest) for x, (d, *rest) in enumerate(columns, start=1) if _kind(d) == kind]
        if chosen:
            x, y, error = zip(*chosen, strict=True)
            axes.errorbar(x, y, yerr=error, fmt="o", color=color, markersize=5, label=f"{kind}: {len(chosen)}")
    axes.axhline(threshold, color=INK, linestyle="--", linewidth=0.8, label=f"{limit} {threshold:g}")
    _fit_dimension_axes(axes, [d.name for d, *_ in columns], threshold)
    axes.set_ylabel(label)
    active = f"{record.active_units} of {len(columns)} dimensions are active"
    axes.set_title(f"{active}\n(Var E[z_j|x] > {record.threshold:g})")


_KINDS = {"active": BLUE, "inactive": RED, "collapsed": QUIET}


def _kind(dimension: Dimension) -> str:
    return "active" if dimension.active else "collapsed" if dimension.collapsed else "inactive"


def _fit_dimension_axes(axes: Axes, names: Sequence[str], threshold: float) -> None:
    if len(names) <= _NAMED:
        axes.set_xticks(range(1, len(names) + 1), names, rotation=90 if len(names) > 8 else 0, parse_math=False)
    else:
        axes.set_xlabel("rank of the dimension")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0) if low < -threshold / 5 else -threshold / 5, high)
    axes.yaxis.set_major_formatter(plainly)
    axes.legend(loc="best")
