"""Figures of what lies between codes: the scores of all parts, or the images of one part with their scores."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrovae.base.errors import InputError, nearest
from pyrovae.diagnostics.codes.continuity import PARTS, REACH, Continuity
from pyrovae.diagnostics.codes.realism import mean_and_error
from pyrovae.reports.figures.images import GAP, grid_figure
from pyrovae.reports.figures.style import BLUE, GREEN, INK, QUIET, RED, draws, in_rows, new_figure, number

COLORS = (RED, BLUE, GREEN, INK, QUIET)
MARKERS = "osD^v"
SCORES = {  # name -> label of its axis
    "distance": "distance to the nearest training datum",
    "confidence": "a classifier's confidence",
    "log_density": "log p under another model, nats",
}


@draws(Continuity)
def continuity(record: Continuity, *, part: str | None = None, num: int = 4) -> Figure:
    """How real what fits decode is: each part by each score; or with ``part``, images of it and their scores.

    Errors are two standard errors over starts; the band is that of test data as they are. Below the images of a part
    stand its means: distance to the nearest training datum, a classifier's confidence, log p of another model.

    Args:
        record: what :func:`~pyrovae.continuity` returned.
        part: "reconstruction", "gaps", "linear", "spherical", "walk" or "prior".
        num: lines or walks of each fit to show; of other parts, all are shown that the record has.

    Raises:
        InputError: for another part, and for data that are no images.
    """
    if part is None:
        return _scores(record)
    if part not in PARTS:
        raise InputError(f"part must be one of {', '.join(PARTS)}, got '{part}';{nearest(part, PARTS)}")
    return _images(record, part, num)


def _scores(record: Continuity) -> Figure:
    table, rows = record.table(), list(record.row_names())
    shown = {score: label for score, label in SCORES.items() if not table[score].isnan().all()}
    figure, axes = new_figure(3.2 * len(shown) + 1, 3.6, columns=len(shown), sharey=True)
    for each, (score, label) in zip(axes, shown.items(), strict=True):
        centre, error = table[score][0].item(), 2 * table[f"se_{score}"][0].item()
        each.axvspan(centre - error, centre + error, color=QUIET, alpha=0.4, linewidth=0, label="test data")
        for place, name in enumerate(record.names):
            at = [rows.index(f"{name}: {part}") for part in PARTS]
            _dots(each, table[score][at], table[f"se_{score}"][at], place, name)
        each.set_xlabel(label)
    axes[0].set_yticks(range(len(PARTS)), list(PARTS))
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def _dots(axes: Axes, mean: torch.Tensor, se: torch.Tensor, place: int, name: str) -> None:
    heights = torch.arange(len(mean)) + 0.14 * (place - 1)
    color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
    xerr = (2 * se).tolist()
    axes.errorbar(mean.tolist(), heights.tolist(), xerr=xerr, label=name, color=color, fmt=marker, markersize=4)


def _images(record: Continuity, part: str, num: int) -> Figure:
    of_all = [record.images[name][part] for name in record.names]
    if of_all[0].dim() not in (4, 5):
        raise InputError(f"expected images, (H, W) or (C, H, W), but a datum has shape {tuple(of_all[0].shape[2:])}")
    is_line = of_all[0].shape[1] > 1
    grids = [each[:num] if is_line else in_rows(each[:, 0]) for each in of_all]
    like = torch.cat([record.images[name]["reconstruction"] for name in record.names])  # in gaps no ground is clean
    figure, axes = grid_figure(*grids, like=like.flatten(0, 1), room=(0.3, 1.3))
    _write(axes, record, part, grids)
    axes.set_title(PARTS[part], pad=18 if is_line else None)
    return figure


def _write(axes: Axes, record: Continuity, part: str, grids: Sequence[torch.Tensor]) -> None:
    """Above columns what they are, and below each grid whose it is and its scores."""
    left, rows = 0.0, len(grids[0])
    for name, grid in zip(record.names, grids, strict=True):
        width = grid.shape[1]
        axes.text(left + width / 2, rows + 0.15, _told(record, name, part), ha="center", va="top", fontsize=8)
        if record.images[name][part].shape[1] > 1:
            for column, label in enumerate(_steps(record, part)):
                axes.text(left + column + 0.5, -0.08, label, ha="center", va="bottom", fontsize=6)
        left += width + GAP


def _steps(record: Continuity, part: str) -> list[str]:
    if part == "walk":
        return [f"{number(float(REACH * (2 * weight - 1)), 1)} sd" for weight in record.weights]
    return [f"{float(weight):.2g}" for weight in record.weights]


def _told(record: Continuity, name: str, part: str) -> str:
    scores = record.scores[name][part]
    lines = [f"{name}, mean ± SE"]
    for label, column, digits in (
        ("distance", scores.distance, 1),
        ("confidence", scores.confidence, 2),
        ("log p", scores.log_density, 1),
    ):
        mean, se = mean_and_error(column)
        lines += [f"{label} {number(mean, digits)} ± {number(se, digits)}"] if mean == mean else []
    if part == "walk":
        lines += [f"{record.about} moves by {record.slope(name)[0]:.2f} of what is asked"]
    return "\n".join(lines)
