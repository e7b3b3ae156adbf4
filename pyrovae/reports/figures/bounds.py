"""Figures of how the evidence is approached: from below with particles or temperatures, from both sides on simulations.

Whiskers and bands are two standard errors to each side; every figure says of what: draws or data.
"""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.evidence import estimators
from pyrovae.evidence.annealing.ais import Annealed
from pyrovae.evidence.annealing.bdmc import CERTIFICATE, Bidirectional
from pyrovae.evidence.convergence import Convergence
from pyrovae.reports.figures.style import BLUE, GREEN, INK, PLAIN, QUIET, RED, UNIT, draws, new_figure, number, source

ROUNDING = 1e-9  # nats: what is smaller is nothing


def require_finite(name: str, **values: Tensor) -> None:
    """Raises InputError where a mean has no place in a figure."""
    for quantity, value in values.items():
        if not value.isfinite().all():
            raise InputError(f"{name}: {quantity} is not finite for all data; look at its table for which")


@draws(Convergence)
def convergence(record: Convergence, *, annealed: Annealed | None = None) -> Figure:
    """Mean log p(x) against the number of particles K, raw and with the jackknife's correction.

    The band is the Monte-Carlo error of these data's mean: of the draws, not of the choice of data.

    Args:
        record: what :func:`~pyrovae.convergence` returned.
        annealed: what :func:`~pyrovae.annealed_evidence` returned for the same data: a line with its band, and a
            second panel with what importance sampling lacks of it.

    Raises:
        InputError: if log p(x) is not finite for all data, or ``annealed`` is of other data.
    """
    require_finite("this convergence", log_evidence=record.log_evidence)
    figure, panels = new_figure(4.9 if annealed is None else 8.6, 3.5, columns=1 if annealed is None else 2)
    _draw_curve(panels[0], record)
    if annealed is not None:
        require_finite("the annealed evidence", log_evidence=annealed.log_evidence)
        _check_same_rows(record, annealed)
        account = annealed.to_dict()["log_evidence"]
        mean, error = account["mean"], 2 * (account["mc_se"] or 0.0)  # one chain does not tell it
        label = f"annealed, T = {annealed.num_temperatures}, ± 2 MC SE"
        panels[0].axhspan(mean - error, mean + error, color=RED, alpha=0.25, linewidth=0)
        panels[0].axhline(mean, color=RED, label=label)
        _draw_shortfall(panels[1], record, mean, error)
    panels[0].legend(loc="lower right")
    return figure


def _draw_curve(axes: Axes, record: Convergence) -> None:
    table = {name: column.numpy() for name, column in record.table().items()}
    x, mean, error = table["num_particles"], table["log_evidence"], 2 * table["mc_se"]
    axes.fill_between(x, mean - error, mean + error, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(x, mean, color=BLUE, marker="o", markersize=4, label="importance sampling ± 2 MC SE")
    axes.plot(x, table["jackknife"], color=GREEN, linestyle="--", marker="s", markersize=3, label="jackknife-corrected")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.set(xlabel="number of particles K (K = 1: the ELBO)", ylabel=f"log p(x), {UNIT}")
    about = f"N = {len(record):,}; k-hat bad for {record.fraction_unreliable:.0%} at K = {record.num_particles[-1]:,}"
    axes.set_title(f"{source(record.protocol)}\n{about}".strip())


def _draw_shortfall(axes: Axes, record: Convergence, mean: float, error: float) -> None:
    """What the curve lacks of a mean that has an error of its own."""
    table = {name: column.numpy() for name, column in record.table().items()}
    both = np.hypot(2 * np.nan_to_num(table["mc_se"]), error)
    draw_positive(axes, table["num_particles"], mean - table["log_evidence"], both)
    axes.xaxis.set_major_formatter(PLAIN)
    axes.set(xlabel="number of particles K", ylabel=f"{UNIT} (whiskers: 2 MC SE)")
    axes.set_title("what importance sampling lacks\nof the annealed log p(x)")


def _check_same_rows(record: Convergence, annealed: Annealed) -> None:
    if annealed.protocol is None or annealed.protocol.sha256 != record.protocol.sha256:
        raise InputError(
            f"expected the annealed evidence of the same rows, {record.protocol}; got {annealed.protocol}: measure "
            "both on the same data"
        )


def draw_positive(axes: Axes, x: np.ndarray, mean: np.ndarray, error: np.ndarray) -> None:
    """Draws mean ± error on log-log axes; a mean that is not above 0 as an arrow down from its upper end."""
    top, above = mean + error, mean > 0
    reached = np.where(above, mean, top)
    axes.set_xscale("log")
    if not (reached > ROUNDING).any():
        axes.text(0.5, 0.5, f"none above {ROUNDING:g}", transform=axes.transAxes, ha="center", color=QUIET)
        return
    axes.set_yscale("log")
    floor = reached[reached > ROUNDING].min() / 4
    low = np.minimum(error, mean - floor / 10)  # of a whisker that reaches 0, the cap is out of sight
    bars = np.stack([low, error])[:, above]
    axes.errorbar(x[above], mean[above], yerr=bars, color=INK, fmt="o-", markersize=4, capsize=3)
    axes.plot(x[~above], top[~above], color=INK, linestyle="", marker=r"$\downarrow$", markersize=9)
    axes.set_ylim(floor, 1.4 * top.max())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_minor_formatter(NullFormatter())


@draws(Annealed)
def annealed(record: Annealed) -> Figure:
    """How annealed log p(x), the effective number of chains and their acceptance are distributed over the data.

    Args:
        record: what :func:`~pyrovae.annealed_evidence` returned.

    Raises:
        InputError: if log p(x) is not finite for all data.
    """
    require_finite("the annealed evidence", log_evidence=record.log_evidence)
    evidence, acceptance = record.to_dict()["log_evidence"], record.acceptance.mean().item()
    digits = {"mean": 2, "data_se": 2, "mc_se": 3}
    mean, data_se, mc_se = (number(evidence[key], places) for key, places in digits.items())
    figure, panels = new_figure(9.4, 3.1, columns=3)
    title = f"log p(x): mean {mean}\ndata SE {data_se}, MC SE {mc_se}"
    _histogram(panels[0], record.log_evidence, BLUE, title, f"log p(x), {UNIT}")
    panels[0].set_ylabel("number of data")
    title = f"chains from the {record.start}\nover T = {record.num_temperatures:,} temperatures"
    xlabel = f"effective number of the {record.num_chains} chains"
    _histogram(panels[1], record.ess, GREEN, title, xlabel, span=(0, record.num_chains))
    title = f"transitions of {record.num_leapfrog} leapfrog steps\nmean acceptance {number(acceptance, 2)}"
    _histogram(panels[2], record.acceptance, QUIET, title, "acceptance probability", span=(0, 1))
    return figure


def _histogram(
    axes: Axes, values: Tensor, color: str, title: str, xlabel: str, *, span: tuple[float, float] | None = None
) -> None:
    """How values (N,) are distributed, with a line at their mean; over a span that is shown whole, if there is one."""
    values = values if span is None else values.clamp(*span)  # rounding may reach beyond it
    bins = min(40, max(8, round(2 * math.sqrt(len(values)))))  # none of so few data that they look like a comb
    axes.hist(values.numpy(), bins=bins, range=span, color=color, alpha=0.75)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.axvline(values.mean().item(), color=INK, linewidth=1.2)
    axes.set(title=title, xlabel=xlabel)


_BOUNDS = {
    "upper": ("annealed backward,\nat least log p(x)", RED, "v"),
    "importance": ("importance sampling,\nK = {:,}", GREEN, "s"),
    "lower": ("annealed forward,\nat most log p(x)", BLUE, "^"),
}


@draws(Bidirectional)
def bounds(records: Bidirectional | Mapping[int, Bidirectional], *, exact: Tensor | None = None) -> Figure:
    """Bounds on log p(x) of simulated data from both sides, and their width: at one number of temperatures or several.

    Both are drawn from a value common to each datum, so that whiskers show the error of the bounds and not how
    log p(x) differs between data: the exact one, or else the middle of the tightest bounds.

    Args:
        records: what :func:`~pyrovae.bidirectional` returned, or number of temperatures -> that, of the same data.
        exact: log p(x) of these data, (N,), where an oracle knows it.

    Raises:
        InputError: for no record, a record under another number than its own, one of other data than the others, a
            bound that is not finite, or an ``exact`` of another shape.
    """
    named = {records.num_temperatures: records} if isinstance(records, Bidirectional) else dict(records)
    _check_records(named)
    tightest = named[max(named)]
    if exact is not None and exact.shape != tightest.lower.shape:
        raise InputError(f"expected exact log p(x) of {len(tightest)} data, got shape {tuple(exact.shape)}")
    centre = (tightest.lower + tightest.upper) / 2 if exact is None else exact
    zero = "the exact value" if exact is not None else f"their middle at T = {max(named):,}"
    title = f"minus {zero} (mean {number(centre.mean().item(), 2)})"
    figure, (left, right) = new_figure(8.8, 3.9, columns=2)
    if len(named) == 1:
        _draw_levels(left, tightest, centre, title)
        _draw_width_histogram(right, tightest)
    else:
        ordered = dict(sorted(named.items()))
        _draw_bounds(left, ordered, centre, title)
        _draw_widths(right, ordered)
    note = CERTIFICATE.replace("\n", " ") + f"\nwhiskers: 2 SE over N = {len(tightest):,} simulated data"
    figure.supxlabel(note, fontsize=8, color=QUIET)
    return figure


def _check_records(named: Mapping[int, Bidirectional]) -> None:
    if not named:
        raise InputError("expected a record of bidirectional() or a dict of them, got an empty one")
    first = next(iter(named.values()))
    for key, record in named.items():
        require_finite(f"the bounds at T = {key}", **{name: getattr(record, name) for name in _BOUNDS})
        if key != record.num_temperatures:
            raise InputError(
                f"expected each record under its number of temperatures, {record.num_temperatures}; got {key!r}"
            )
        if not _same_data(first, record):
            raise InputError(
                f"the records at T = {first.num_temperatures} and {key} are of other data, which differ more than "
                "bounds do with T; simulate with the same seed, num_data and batch_size"
            )


def _same_data(first: Bidirectional, other: Bidirectional) -> bool:
    """Whether all numbers are equal, and missing entries (NaN) in the same places."""
    pairs = zip(first.data, other.data, strict=False)
    return len(first.data) == len(other.data) and all(
        np.array_equal(one.double(), same.double(), equal_nan=True) for one, same in pairs
    )


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over data and two standard errors."""
    return values.mean().item(), 2 * estimators.mean_se(values).nan_to_num().item()


def _draw_bounds(axes: Axes, named: Mapping[int, Bidirectional], centre: Tensor, title: str) -> None:
    for shift, (quantity, (name, color, marker)) in zip((0.94, 1.0, 1.06), _BOUNDS.items(), strict=True):
        columns = [_mean_and_error(getattr(record, quantity) - centre) for record in named.values()]
        mean, error = zip(*columns, strict=True)
        x = [shift * key for key in named]  # apart, so that whiskers do not hide each other
        label = name.format(next(iter(named.values())).num_particles).replace("\n", " ")
        style = f"{marker}:" if quantity == "importance" else f"{marker}-"
        axes.errorbar(x, mean, yerr=error, fmt=style, color=color, markersize=4, capsize=3, label=label)
    axes.axhline(0, color=QUIET, linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    _number_temperatures(axes, named)
    axes.set(ylabel=UNIT, title=f"bounds on log p(x)\n{title}")
    axes.legend(loc="best")


def _draw_widths(axes: Axes, named: Mapping[int, Bidirectional]) -> None:
    columns = [_mean_and_error(record.width) for record in named.values()]
    draw_positive(axes, np.array(list(named)), *np.array(columns).T)
    _number_temperatures(axes, named)
    mean, error = columns[-1]
    last = f"{number(mean, 3)} (SE {number(error / 2, 3)}) at T = {max(named):,}"
    axes.set(ylabel=UNIT, title=f"width, upper − lower\n{last}")


def _number_temperatures(axes: Axes, named: Mapping[int, Bidirectional]) -> None:
    axes.set_xticks(list(named), [f"{key:,}" for key in named])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("number of temperatures T")


def _draw_levels(axes: Axes, record: Bidirectional, centre: Tensor, title: str) -> None:
    """The three estimates of one record, one above the other."""
    for y, (quantity, (_, color, marker)) in enumerate(_BOUNDS.items()):
        mean, error = _mean_and_error(getattr(record, quantity) - centre)
        axes.errorbar(mean, y, xerr=error, color=color, fmt=marker, markersize=5, capsize=4)
        written = f"{number(mean, 3)}\n(SE {number(error / 2, 3)})"
        axes.text(1.02, y, written, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(0, color=QUIET, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(_BOUNDS)), [name.format(record.num_particles) for name, *_ in _BOUNDS.values()])
    axes.set(ylim=(len(_BOUNDS) - 0.5, -0.6), xlabel=UNIT)
    axes.set_title(f"bounds on log p(x), T = {record.num_temperatures:,}\n{title}")


def _draw_width_histogram(axes: Axes, record: Bidirectional) -> None:
    mean, error = _mean_and_error(record.width)
    widest = number(record.width.max().item(), 2)
    title = f"width, upper − lower\nmean {number(mean, 3)} (SE {number(error / 2, 3)}), widest {widest}"
    _histogram(axes, record.width, QUIET, title, "nats, of each datum")
    axes.set_ylabel("number of data")
