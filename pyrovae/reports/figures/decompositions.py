"""Figures of what a number consists of: the gap between evidence and ELBO, and the KL to the prior, each taken apart.

Every part is a bar that starts where the part before it ends, so that the parts are seen to add up.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrovae.diagnostics.decomposition import COLLAPSED, Dimension
from pyrovae.diagnostics.gaps import Gaps
from pyrovae.diagnostics.surgery import Surgery
from pyrovae.reports.figures.style import (
    BLUE,
    GREEN,
    INK,
    PLAIN,
    QUIET,
    RED,
    UNIT,
    by_name,
    draws,
    new_figure,
    number,
    source,
)
from pyrovae.reports.figures.waterfall import Group, Part, draw_groups, means_of, waterfall

PALE = "#eaa776"  # of the parts of what is RED


@draws(Gaps)
def gaps(records: Gaps | Mapping[str, Gaps]) -> Figure:
    """What lies between ELBO and log p(x), a waterfall: L[q], + amortization gap, + approximation gap = log p(x).

    Below it, what the best members of richer families would buy, from where the guide's own family ends.

    Args:
        records: what :func:`~pyrovae.gaps` returned, or name -> that, such as training and test data or two guides;
            all are drawn from their own log p(x).

    Raises:
        InputError: for no record, or a mean that is not finite.
    """
    groups = []
    for name, record in by_name(records, Gaps, "a record of gaps()").items():
        account = record.to_dict()
        about = f"N = {len(record):,}, K = {record.num_particles:,}, k-hat bad for {record.fraction_unreliable:.0%}"
        groups.append(Group(name, about, _parts(name, account), account))
    return waterfall(groups, {"mean": 3, "mc_se": 4, "data_se": 3}, f"{UNIT}, from log p(x)")


def _parts(name: str, account: Mapping[str, Any]) -> list[Part]:
    """The rows of one record, at distances from log p(x)."""
    quantities = [quantity for quantity in account if quantity.startswith(("elbo_", "log_evidence"))]
    ends = means_of(account, quantities, f"gaps '{name}'")
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
        Part(f"a {family} would buy", f"gain_{key}", reached, at[f"elbo_{key}"], GREEN, thin=True)
        for family, key in families.items()
    ]
    return [first, *parts, last, *richer]


_LABELS = {
    "kl_prior": ("rate, KL(q(z|x) ‖ p(z))", QUIET),
    "mutual_information": ("= mutual information", BLUE),
    "marginal_kl": ("+ marginal KL(q(z) ‖ p(z))", RED),
    "total_correlation": ("= total correlation", PALE),
    "dimension_wise_kl": ("+ dimension-wise KL", PALE),
}
_NAMED = 26  # dimensions that have room for their names


@draws(Surgery)
def anatomy(record: Surgery) -> Figure:
    """The KL to the prior taken apart, and how much of it each latent dimension holds.

    Dimensions are sorted by KL(q(z_j|x) ‖ p(z_j)), or by the variance of the means of q where prior or guide
    does not factorise.

    Args:
        record: what :func:`~pyrovae.surgery` returned.
    """
    figure, (*panels, right) = new_figure(11.2, 3.6, columns=4, width_ratios=(0.9, 1.6, 0.7, 3))
    _draw_split(panels, record)
    _draw_dimensions(right, record)
    told = "hatched: the mutual information is at its ceiling log N, so that the split is not known: take more data"
    if math.isfinite(record.prior_gain.mean):
        told += f"\na mixture as prior would buy at least {number(record.prior_gain.mean, 2)} nats"
    notes = [told] * record.saturated
    notes += [f"not split further: {record.reason}"] if record.reason else []
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=8, color=RED if record.saturated else QUIET)
    return figure


def _draw_split(panels: Sequence[Axes], record: Surgery) -> None:
    shown = {name: getattr(record, name) for name in _LABELS if math.isfinite(getattr(record, name).mean)}
    starts = dict.fromkeys(("marginal_kl", "total_correlation"), record.mutual_information.mean)
    starts["dimension_wise_kl"] = record.mutual_information.mean + record.total_correlation.mean
    unknown = shown.keys() - {"kl_prior"} if record.saturated else set()  # how it is split, above the ceiling
    parts = [
        Part(
            label, name, starts.get(name, 0.0), starts.get(name, 0.0) + shown[name].mean, color, hatched=name in unknown
        )
        for name, (label, color) in _LABELS.items()
        if name in shown
    ]
    account = {name: estimate._asdict() for name, estimate in shown.items()}
    about = f"N = {record.num_data:,}, dashed: at most log N = {number(record.log_num_data, 2)}"
    group = Group(source(record.protocol), about, parts, account)
    draw_groups(panels, [group], {"mean": 2, "mc_se": 3}, UNIT)
    panels[1].plot([record.log_num_data] * 2, [1.6, 2.4], color=INK, linestyle="--", linewidth=1.2, zorder=3)
    panels[1].axvline(0, color=INK, linewidth=0.8)
    panels[1].set_xlim(right=max(panels[1].get_xlim()[1], 1.03 * record.log_num_data))
    rate, distortion = (number(value.mean, 2) for value in (record.rate, record.distortion))
    panels[1].set_title(f"−ELBO = rate {rate} + distortion {distortion}")


def _draw_dimensions(axes: Axes, record: Surgery) -> None:
    """Every dimension by its KL, or where none is defined by the variance of its mean; linear below the threshold."""
    if record.reason:
        columns = [(d, d.mean_variance, 0.0) for d in record.dimensions]
        threshold, limit, label = record.threshold, "active above", "Var E[z_j|x]"
    else:
        columns = [(d, d.kl.mean, 2 * d.kl.mc_se) for d in record.dimensions]
        threshold, limit, label = COLLAPSED, "collapsed below", "KL(q(z_j|x) ‖ p(z_j))\nnats ± 2 MC SE"
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
    axes.yaxis.set_major_formatter(PLAIN)
    axes.legend(loc="best")
