"""The curves of a fit."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyrovae.base.errors import InputError
from pyrovae.reports.figures.style import BLUE, INK, QUIET, RED, UNIT, new_figure, styled


@styled
def training_curves(history: Sequence[Mapping[str, float]], *, best_epoch: int | None = None) -> Figure:
    """ELBO, reconstruction and KL against the epoch, on axes that fit the last 90 % of the epochs.

    Args:
        history: rows of ``Fit.history``; the columns ``valid_...`` may be absent.
        best_epoch: ``Fit.best_epoch``, marked by a line.
    """
    if not history:
        raise InputError("expected a history of at least one epoch, got an empty one")
    titles = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl_prior": "KL(q ‖ prior)"}
    objectives = [(row.get("objective", row["elbo"]), row["elbo"]) for row in history]
    other_objective = not all(math.isclose(*pair, rel_tol=1e-6) for pair in objectives)
    figure, panels = new_figure(9, 3.2, columns=3)
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        lines = {"training": (name, BLUE, "-"), "validation": (f"valid_{name}", RED, "-")}
        if name == "elbo" and other_objective:
            lines["objective"] = ("objective", QUIET, "--")
        curves(axes, history, lines)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=":", label=f"best epoch, {best_epoch}")
        axes.set_title(title)
    skipped = len(history) // 10
    fitted = f"\n(axes fit epochs {history[skipped]['epoch']:g} to {history[-1]['epoch']:g})" if skipped else ""
    panels[0].set_ylabel(UNIT + fitted)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def curves(axes: Axes, history: Sequence[Mapping[str, float]], lines: dict[str, tuple[str, str, str]]) -> None:
    """Draws lines, label -> (column, colour, style), on axes that fit the last 90 % of the epochs."""
    epochs, later = [row["epoch"] for row in history], []
    for label, (column, color, style) in lines.items():
        if column in history[-1]:
            values = [row.get(column, math.nan) for row in history]
            marker = "o" if len(history) < 3 else ""
            axes.plot(epochs, values, color=color, linestyle=style, marker=marker, markersize=4, label=label)
            later += [value for value in values[len(history) // 10 :] if math.isfinite(value)]
    if later:
        pad = 0.06 * (max(later) - min(later)) or 1.0
        axes.set_ylim(min(later) - pad, max(later) + pad)
    axes.set_xlim(0, max(2.0, 1.02 * max(epochs)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")
