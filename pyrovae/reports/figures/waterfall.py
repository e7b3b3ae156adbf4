"""An account as bars that add up."""

from collections.abc import Collection, Mapping
from itertools import count
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pyrovae.reports.figures.style import BLUE, GREEN, INK, QUIET, RED, UNIT, number

# ------------------------------------------------------------------------------------------------ reports

ERRORS = ("mean", "data_se", "mc_se", "bias")

LEDGER = (
    ("reconstruction $\\mathrm{E}_q$ log p(x|z)", "reconstruction", BLUE),
    ("− KL(q ‖ prior)", "kl_prior", RED),
    ("= ELBO", "elbo", QUIET),
    ("+ KL(q ‖ posterior)", "kl_posterior", GREEN),
    ("= log p(x)", "log_evidence", INK),
)

OF_MIXTURE = {  # with defensive draws, q is not the guide
    "reconstruction": "reconstruction by mixture",
    "kl_prior": "− KL(mixture ‖ prior)",
    "elbo": "= ELBO of the mixture",
    "kl_posterior": "+ KL(mixture ‖ posterior)",
}

COLUMNS = {"mean": ("mean", 0.38, 2), "mc_se": ("MC SE", 0.7, 4), "data_se": ("data SE", 1.0, 2)}  # right edge, digits
GROUP_HEIGHT = len(LEDGER) + 1.5  # rows
CUT_BELOW = 0.15  # of the axis from 0: where the sums differ by less, 0 is cut off


def rows(panels: list[Axes], top: float, name: str, account: Mapping[str, Any]) -> None:
    """Draws one report from row ``top`` downwards: labels, bars and numbers, each in its panel."""
    labels, bars, numbers = panels
    _ledger_header(labels, numbers, top, name, account)
    reconstruction, elbo, evidence = _sums(account)
    spans = ((0.0, reconstruction), (reconstruction, elbo), (0.0, elbo), (elbo, evidence), (0.0, evidence))
    for y, (label, quantity, color), (start, end) in zip(count(top + 1), LEDGER, spans, strict=False):
        (bar,) = bars.barh(y, end - start, left=start, height=0.62, gid=f"{name}/{quantity}")
        bar.set(color=color, linewidth=0.8, zorder=2)  # an edge of its own colour, so that 0 nats are seen too
        if quantity != "log_evidence":
            bars.plot([end, end], [y + 0.33, y + 0.67], color=INK, linewidth=0.8)
        labels.text(0, y, OF_MIXTURE.get(quantity, label) if account["defensive"] else label, va="center")
        for key, (_, x, digits) in COLUMNS.items():
            numbers.text(x, y, number(account[quantity][key], digits), va="center", ha="right", fontsize=8)


def _ledger_header(labels: Axes, numbers: Axes, top: float, name: str, account: Mapping[str, Any]) -> None:
    if top == 0:
        for title, x, _ in COLUMNS.values():
            numbers.text(x, -0.9, title, va="center", ha="right", fontsize=8, color=QUIET)
    bias = number(account["log_evidence"]["bias"], 4)
    tail = account["pareto_k"]
    unreliable = tail["fraction_above"] + tail["fraction_undefined"]
    worse = " or worse" if unreliable > 0.05 else ""
    about = f"N = {account['num_data']:,}, K = {account['num_particles']:,}"
    about += f", k-hat bad for {unreliable:.0%}, bias {bias}{worse}"
    short = name if len(name) <= 50 else f"{name[:49]}…"
    labels.text(0, top, short, va="center", weight="bold", in_layout=False, parse_math=False)
    numbers.text(1, top, about, va="center", ha="right", fontsize=8, color=QUIET, in_layout=False)


def _sums(account: Mapping[str, Any]) -> list[float]:
    return [account[name]["mean"] for name in ("reconstruction", "elbo", "log_evidence")]


def fit_ledger_axes(panels: list[Axes], accounts: Collection[Mapping[str, Any]]) -> None:
    """Sets the axes: from 0, or cut short of it where the sums lie close together and far away from it."""
    labels, bars, numbers = panels
    for side in (labels, numbers):
        side.set_axis_off()
    bars.patch.set_visible(False)  # names in the panel beside it may run into its empty rows
    bars.tick_params(axis="y", length=0, labelleft=False)
    bars.spines["left"].set_visible(False)
    bars.set_ylim(GROUP_HEIGHT * len(accounts) - 0.9, -1.4)
    ends = [end for account in accounts for end in _sums(account)]
    low, high, reach = min(ends), max(ends), max(*ends, 0.0) - min(*ends, 0.0)
    if high - low >= CUT_BELOW * reach:
        pad = 0.03 * reach or 1.0
        bars.set_xlim(min(low, 0.0) - pad, max(high, 0.0) + pad)
        bars.set_xlabel(UNIT)
    else:
        pad = 0.25 * (high - low) or 1.0
        bars.set_xlim(low - pad, high + pad)
        edge, side_of_zero = (1.0, "right") if high < 0 else (0.0, "left")
        _break_marks(bars, edge)
        bars.set_xlabel(f"{UNIT} (cut: the long bars start at 0, beyond the {side_of_zero} edge)")


def _break_marks(axes: Axes, edge: float) -> None:
    """Two white slashes through every bar that starts at 0, near the edge where it is cut."""
    long = [bar for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_x() == 0]
    centres = [bar.get_y() + bar.get_height() / 2 for bar in long]
    for inset in (0.025, 0.04):
        x = [abs(edge - inset)] * len(long)
        marks = axes.plot(
            x, centres, linestyle="", marker=[(-0.4, -1.0), (0.4, 1.0)], transform=axes.get_yaxis_transform()
        )
        marks[0].set(markersize=15, markeredgecolor="white", markeredgewidth=1.5, zorder=4)
