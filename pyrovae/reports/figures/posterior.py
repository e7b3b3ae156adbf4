"""Figures of what is not known: one posterior with its guide over it, and what is missing beside what was observed."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.posteriors.grid import Grid
from pyrovae.posteriors.missing.completion import Completion
from pyrovae.posteriors.missing.questions import MOST_CANDIDATES, Information
from pyrovae.posteriors.reference import PosteriorDraws
from pyrovae.reports.figures.images import completions, is_image
from pyrovae.reports.figures.style import BLUE, INK, RED, draws, new_figure, number, source, styled

MOST_MARGINALS = 6
_SHARES = (0.99, 0.9, 0.5)  # of the posterior's mass, inside each contour
MOST_INTEGERS = 60


@draws(PosteriorDraws)
def posterior_of_one(record: PosteriorDraws) -> Figure:
    """The posterior of one datum and the guide's draws: in a plane, or each of up to six coordinates by itself.

    One or two coordinates are shown as the density where a grid gives it, by draws elsewhere; of more than six, those
    whose two distribution functions differ the most. The title tells the method and its diagnostics, and below stands
    what speaks against it.

    Args:
        record: what :func:`~pyrovae.reference_posterior` returned.
    """
    all_chains = {name: value.flatten(0, 1) for name, value in record.values.items()}
    exact, guide = _columns(all_chains), _columns(record.guide_values)
    if len(record.names) == 2 and not _is_whole(exact):
        figure, (axes,) = new_figure(6.8, 5.4)
        _draw_plane(axes, record, exact, guide)
    else:
        chosen = _most_different(exact, guide)
        figure, panels = new_figure(max(6.8, 1.9 * len(chosen)), 3.8, columns=len(chosen))
        for axes, coordinate in zip(panels, chosen, strict=True):
            _draw_marginal(axes, record, coordinate, exact[:, coordinate], guide[:, coordinate])
        missing = "" if len(chosen) == len(record.names) else f" ({len(chosen)} of {len(record.names)} coordinates)"
        panels[0].set_ylabel(("probability" if _is_whole(exact) else "density") + missing)
    _write(figure, record)
    return figure


def _columns(values: Mapping[str, Tensor]) -> np.ndarray:
    """Draws site -> (S, *event) as (S, D), in the order of the record's names."""
    return torch.cat([value.double().reshape(len(value), -1) for value in values.values()], 1).numpy()


def _write(figure: Figure, record: PosteriorDraws) -> None:
    """The title, and at the foot the legend with all doubts."""
    width = int(17 * figure.get_figwidth())
    lines = [f"{source(record.protocol)}: the posterior of one datum, method {record.method}"]
    lines += [*record.diagnostics.lines(), record.verdict]
    if record.log_evidence:
        lines[0] += f"; log p(x) = {number(record.log_evidence.value, 4)} nats"
    figure.suptitle("\n".join(textwrap.fill(line, width) for line in lines), fontsize=8.5)
    notes = ["shift of the mean and ratio of the sd: the guide's in posterior sds"] if len(figure.axes) > 1 else []
    doubts = [textwrap.fill(doubt, width) for doubt in record.diagnostics.doubts()]
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=2, markerscale=2, title_fontsize=8)
    legend.set_title("\n".join(notes + doubts))
    legend.get_title().set_color(RED if doubts else INK)


def _draw_plane(axes: Axes, record: PosteriorDraws, exact: np.ndarray, guide: np.ndarray) -> None:
    if isinstance(record.diagnostics, Grid) and len(record.diagnostics.axes) == 2:
        _draw_contours(axes, record.diagnostics)
    else:
        axes.scatter(exact[:, 0], exact[:, 1], s=6, color=BLUE, alpha=0.4, linewidths=0, label="posterior, draws")
    axes.scatter(guide[:, 0], guide[:, 1], s=6, color=RED, alpha=0.35, linewidths=0, label="guide, draws", zorder=1)
    both = np.concatenate([exact, guide])
    low, high = np.quantile(both, (0.001, 0.999), axis=0)
    pad = 0.1 * (high - low) + 1e-9
    axes.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))
    axes.set(xlabel=record.names[0], ylabel=record.names[1])


def _draw_contours(axes: Axes, grid: Grid) -> None:
    """The smallest regions that hold so much of the mass."""
    points = torch.cat([value.double().reshape(*grid.log_mass.shape, -1) for value in grid.values.values()], -1)
    order = grid.log_density.flatten().argsort(descending=True)
    inside = grid.log_mass.flatten()[order].exp().cumsum(0)
    last = torch.searchsorted(inside, torch.tensor(_SHARES, dtype=inside.dtype)).clamp_max(len(order) - 1)
    density = (grid.log_density - grid.log_density.max()).exp()
    levels = sorted(set(density.flatten()[order[last]].tolist()))
    grids = (*points.unbind(-1), density)
    axes.contour(*map(np.asarray, grids), levels=levels, colors=BLUE, linewidths=(0.8, 1.2, 1.8), zorder=2)
    axes.plot([], [], color=BLUE, label="posterior: 50, 90 and 99% inside")


def _most_different(exact: np.ndarray, guide: np.ndarray) -> list[int]:
    """The coordinates to show, in order: by the distance of the two empirical distribution functions."""
    distance = [_distance(*pair) for pair in zip(exact.T, guide.T, strict=True)]
    return sorted(np.argsort(distance, kind="stable")[::-1][:MOST_MARGINALS].tolist())


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    points = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(draws), points, side="right") / len(draws) for draws in (first, second)]
    return np.abs(shares[0] - shares[1]).max()


def _draw_marginal(axes: Axes, record: PosteriorDraws, coordinate: int, exact: np.ndarray, guide: np.ndarray) -> None:
    edges = _edges(np.concatenate([exact, guide]))
    grid = record.diagnostics
    if isinstance(grid, Grid) and len(grid.axes) == len(record.names) == 1:
        (z,) = grid.values.values()
        axes.plot(z.flatten().numpy(), grid.log_density.exp().numpy(), color=BLUE, label="posterior")
    else:
        _draw_histogram(axes, exact, edges, BLUE, "posterior, draws")
    _draw_histogram(axes, guide, edges, RED, "guide, draws")
    if _is_whole(exact):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(record.names[coordinate])
    if len(record.names) > 1:
        table = record.table()
        shift, ratio = (number(table[name][coordinate].item(), 2) for name in ("shift", "ratio"))
        axes.set_title(f"shift {shift}\nratio {ratio}", fontsize=8)


def _is_whole(values: np.ndarray) -> bool:
    """Whether these are whole numbers, few enough to be shown one by one."""
    return bool((values == np.round(values)).all()) and np.ptp(values) < MOST_INTEGERS


def _edges(values: np.ndarray) -> np.ndarray:
    """Of the bins: each whole number has its own."""
    if _is_whole(values):
        return np.arange(values.min() - 0.5, values.max() + 1)
    return np.histogram_bin_edges(values, bins=int(np.clip(math.sqrt(len(values)), 10, 40)))


def _draw_histogram(axes: Axes, draws: np.ndarray, edges: np.ndarray, color: str, label: str) -> None:
    height, _ = np.histogram(draws, edges, density=True)
    axes.stairs(height, edges, fill=True, color=color, alpha=0.35)
    axes.stairs(height, edges, color=color, linewidth=1.2, label=label)


# ------------------------------------------------------------------------------------------------- of missing entries


@draws(Completion)
def completed(record: Completion, **options: Any) -> Figure:
    """What is missing, drawn given what was observed: pictures in rows, of other data each column by itself.

    Args:
        record: what :func:`~pyrovae.conditional` returned.
        options: of :func:`completions` for pictures, of :func:`completed_columns` for other data.
    """
    of_kind = completions if is_image(record.mean.shape[1:]) else completed_columns
    return of_kind(record, **options)


@styled
def completed_columns(record: Completion, *, names: Sequence[str] | None = None, most: int = MOST_MARGINALS) -> Figure:
    """Of each column the draws of what is missing, all together, beside what was observed.

    They need not be alike: what is missing may be unlike what is not, and draws of a bad model are unlike both.

    Args:
        record: what :func:`~pyrovae.conditional` returned.
        names: of the columns; numbers where None.
        most: columns at most, those of which most is missing.

    Raises:
        InputError: where nothing is missing, or there are more or fewer names than columns.
    """
    seen, drawn = record.observed.flatten(1), record.draws.flatten(2)
    names = [f"column {place + 1}" for place in range(seen.shape[1])] if names is None else list(names)
    if len(names) != seen.shape[1]:
        raise InputError(f"names: expected one for each of {seen.shape[1]} columns, got {len(names)}")
    counts = (~seen).sum(0)
    chosen = sorted(counts.argsort(descending=True, stable=True)[:most].tolist())
    chosen = [place for place in chosen if counts[place]]
    if not chosen:
        raise InputError("nothing is missing, so that there is nothing to draw")
    figure, panels = new_figure(max(5.0, 1.9 * len(chosen)), 3.2, columns=len(chosen))
    for axes, place in zip(panels, chosen, strict=True):
        known = record.mean.flatten(1)[seen[:, place], place]
        _draw_column(axes, known.double().numpy(), drawn[:, ~seen[:, place], place].flatten().double().numpy())
        axes.set_xlabel(names[place])
        axes.set_title(f"{int(counts[place]):,} of {len(seen):,} missing", fontsize=8)
    panels[0].set_ylabel("probability or density")
    doubt = f"; unreliable draws: {record.fraction_unreliable:.1%} of data"
    figure.suptitle(f"{source(record.protocol)}: {len(drawn)} draws of what is missing{doubt}", fontsize=8.5)
    fullest = max(panels, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    figure.legend(*fullest.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_column(axes: Axes, known: np.ndarray, drawn: np.ndarray) -> None:
    both = np.concatenate([known, drawn])
    edges = _edges(both)
    for values, color, label in ((known, BLUE, "observed"), (drawn, RED, "draws of what is missing")):
        if len(values):
            _draw_histogram(axes, values, edges, color, label)
    if _is_whole(both):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)


# ---------------------------------------------------------------------------------------------- of what is to be asked


@draws(Information)
def information(record: Information) -> Figure:
    """What each candidate would tell: the mean over data with two Monte-Carlo standard errors, the most first.

    Args:
        record: what :func:`~pyrovae.information` returned.
    """
    found = record.numbers()["candidates"]
    names = sorted(found, key=lambda name: -(found[name]["mean"] or 0.0))[:MOST_CANDIDATES]
    means, errors = ([found[name][key] or 0.0 for name in names] for key in ("mean", "mc_se"))
    figure, (axes,) = new_figure(5.5, 1.2 + 0.28 * len(names))
    colors = [RED if found[name]["fraction_unreliable"] else BLUE for name in names]
    axes.barh(names, means, xerr=[2 * error for error in errors], color=colors, ecolor=INK, height=0.6)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"nats about {record.about}, 2 MC SE" + "; red: some unreliable" * (RED in colors))
    axes.set_title(f"{source(record.protocol)}: N = {len(record):,}, {record.num_draws:,} draws", fontsize=8.5)
    return figure
