"""The plane of the latents: where data lie by q(z|x), over where the prior expects them.

More than two latents are seen by their first two principal components, q(z|x) and prior alike.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.data.split import as_split
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import posterior, sample
from pyrovae.posteriors.means import as_vectors, posterior_means
from pyrovae.reports.figures.style import CLASSES, INK, MARKERS, QUIET, new_figure, styled

MANY = 2000  # points, which would swell a file of vectors
_MASSES = (0.9, 0.5)  # of the prior, inside each contour
_ELLIPSES, _DRAWS = 100, 64  # data whose q is shown, by so many draws of each
_PRIOR_DRAWS, _CELLS = 4000, 80  # draws of the prior, and cells of their histogram to each side


@styled
def latent_means(model: Program, guide: Program, data: Any, *, seed: int = 0) -> Figure:
    """Means of q(z|x) of all data by class: two latents as they are, more by two principal components.

    Lines hold 50 and 90% of the prior's mass. An ellipse, one standard deviation of q(z|x) to each side, is around the
    first hundred data; of one latent it is a bar.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split (whose labels give the classes), a tensor (N, ...) or a tuple of tensors.
        seed: of the draws of q and of the prior, and of the jitter that spreads one latent.

    Raises:
        InputError: for a latent without a mean, or fewer than three data to find principal components of.
    """
    split = as_split(data)
    means = posterior_means(model, guide, split, seed)
    plane = plane_of(means)
    labels = np.zeros(len(split)) if split.labels is None else split.labels.cpu()
    classes, index = np.unique(labels, return_inverse=True)
    figure, (axes,) = new_figure(6.4, 4.8)
    few = posterior(model, guide, split[:_ELLIPSES], num_draws=_DRAWS, seed=seed).values
    around = plane.place({name: few[name].flatten(0, 1) for name in means}).reshape(_DRAWS, -1, plane.num_axes)
    prior = plane.place(sample(model, split[:_PRIOR_DRAWS], num_samples=_PRIOR_DRAWS, seed=seed).values)
    points = plane.place(means)
    if plane.num_axes == 1:
        spread = index + np.random.default_rng(seed).uniform(-0.35, 0.35, len(split))
        points = np.stack([points[:, 0], spread], 1)
        _draw_on_line(axes, prior[:, 0], around[..., 0], points)
    else:
        axes.set_aspect("equal", adjustable="datalim")
        _draw_contours(axes, prior)
        _draw_ellipses(axes, around, index)
    scatter(axes, points, index, None if split.labels is None else classes.tolist())
    axes.set(xlabel=plane.labels[0], ylabel=plane.labels[1], title=f"means of q(z|x), {len(split):,} data")
    of_each = "bars" if plane.num_axes == 1 else "ellipses"
    note = f"lines: 50 and 90% of the prior inside; {of_each}: ± 1 sd of q(z|x), {around.shape[1]} data"
    figure.supxlabel(note, fontsize=8, color=QUIET)
    return figure


def _draw_on_line(axes: Axes, prior: np.ndarray, around: np.ndarray, points: np.ndarray) -> None:
    """One latent: what holds 50 and 90% of the prior, and the spread of q about the first data."""
    axes.set_yticks([])
    for mass, style in zip(_MASSES, ("--", ":"), strict=True):
        for end in np.quantile(prior, (0.5 - mass / 2, 0.5 + mass / 2)):
            axes.axvline(end, color=INK, linewidth=0.9, linestyle=style, zorder=0)
    first = points[: around.shape[1]]
    axes.errorbar(first[:, 0], first[:, 1], xerr=around.std(0), fmt="none", ecolor=QUIET, elinewidth=0.7, zorder=1)


def _draw_contours(axes: Axes, draws: np.ndarray) -> None:
    """Lines around the smallest regions that hold so much of the draws (S, 2), by a smoothed histogram."""
    low, high = np.quantile(draws, (0.002, 0.998), axis=0)
    room = 0.15 * (high - low) + 1e-9
    edges = [np.linspace(*ends, _CELLS + 1) for ends in zip(low - room, high + room, strict=True)]
    counts, *_ = np.histogram2d(draws[:, 0], draws[:, 1], bins=edges)  # type: ignore[arg-type]
    density = gaussian_filter(counts, 2.5)
    levels = sorted({*levels_of(density, _MASSES)})
    x, y = ((one[1:] + one[:-1]) / 2 for one in edges)
    axes.contour(x, y, density.T, levels=levels, colors=INK, linewidths=0.9, linestyles=("--", "-")[-len(levels) :])


def levels_of(density: np.ndarray, masses: Iterable[float]) -> list[float]:
    """The heights of a density on a grid above which lie the smallest regions that hold so much of its mass.

    Example:
        >>> levels_of(np.array([[1.0, 4.0], [3.0, 2.0]]), (0.5, 0.95))
        [3.0, 1.0]
    """
    ordered = np.sort(density, axis=None)[::-1]
    inside = np.cumsum(ordered) / ordered.sum()
    return [float(ordered[min(int(np.searchsorted(inside, mass)), ordered.size - 1)]) for mass in masses]


def _draw_ellipses(axes: Axes, around: np.ndarray, index: np.ndarray) -> None:
    """One standard deviation of the draws (S, N, 2) of each datum, in the colour of its class."""
    for place, draws in enumerate(around.transpose(1, 0, 2)):
        lengths, directions = np.linalg.eigh(np.cov(draws.T))
        angle = math.degrees(math.atan2(directions[1, 1], directions[0, 1]))
        width, height = 2 * np.sqrt(lengths[::-1].clip(0))
        color = CLASSES[index[place] % len(CLASSES)]
        ellipse = Ellipse(draws.mean(0), width, height, angle=angle, fill=False, color=color, linewidth=0.7, alpha=0.8)
        axes.add_patch(ellipse)


class Plane(NamedTuple):
    """What values of the latents are seen by: two of them as they are, or two directions among more."""

    sites: tuple[str, ...]
    origin: Tensor  # (D,)
    directions: Tensor  # (A, D), A = 1 or 2 axes
    labels: tuple[str, str]

    @property
    def num_axes(self) -> int:
        """1 where there is one latent alone, else 2."""
        return len(self.directions)

    def place(self, values: Mapping[str, Tensor]) -> np.ndarray:
        """Values (N, ...) of the sites in the plane, (N, A)."""
        return (
            (as_vectors({name: values[name].double() for name in self.sites}) - self.origin) @ self.directions.T
        ).numpy()


def plane_of(means: Mapping[str, Tensor]) -> Plane:
    """The plane of latent sites: name -> means of q(z|x), (N, ...).

    Raises:
        InputError: for more than two latents of fewer than three data, which have no principal components.
    """
    rows = as_vectors(means).double()
    widths = {name: one[0].numel() for name, one in means.items()}
    names = [f"{name}[{i}]" if width > 1 else name for name, width in widths.items() for i in range(width)]
    if len(names) <= 2:
        labels = [*(f"mean of {name} under q(z|x)" for name in names), "spread at random"][:2]
        return Plane(tuple(means), torch.zeros_like(rows[0]), torch.eye(len(names)).double(), (labels[0], labels[1]))
    directions, fractions = _principal_components(rows)
    first, second = (f"{i} of {len(names)} latents ({part:.0%} of variance)" for i, part in enumerate(fractions, 1))
    labels = [f"principal component {text}" for text in (first, second)]
    return Plane(tuple(means), rows.mean(0), directions, (labels[0], labels[1]))


def _principal_components(rows: Tensor) -> tuple[Tensor, list[float]]:
    """The first two directions, (2, D), and each one's fraction of the variance."""
    if len(rows) < 3:
        raise InputError(f"principal components of the latents need at least three data, got {len(rows)}")
    _, s, vt = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    largest = vt[:2].gather(1, vt[:2].abs().argmax(1, keepdim=True))  # made positive: the same sign on every machine
    fraction = s.square() / s.square().sum().clamp_min(1e-300)
    return vt[:2] * largest.sign(), fraction[:2].tolist()


def scatter(axes: Axes, points: np.ndarray, index: np.ndarray, classes: Sequence[Any] | None) -> None:
    """Points (N, 2) by the index (N,) of their class; a legend names the classes, if there are any."""
    size, is_large = (14, False) if len(points) <= MANY else (5, True)
    for i, label in enumerate(classes or [None]):
        x, y = points[index == i].T
        marker, color = MARKERS[i // 5 % len(MARKERS)], CLASSES[i % len(CLASSES)]
        style: dict[str, Any] = {"s": size, "marker": marker, "color": color, "rasterized": is_large}
        axes.scatter(x, y, alpha=0.8, linewidths=0, label=str(label), **style)
    if classes:
        columns = math.ceil(len(classes) / 20)
        axes.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.6, ncols=columns)
