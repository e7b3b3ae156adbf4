"""What a pair makes of data: reconstructions, draws from the prior, the latent plane."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.data.split import Split, as_split
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import decode, reconstruct, sample
from pyrovae.posteriors.means import posterior_means
from pyrovae.reports.figures.images import GAP, grid_figure, image_means, image_site
from pyrovae.reports.figures.style import CLASSES, MARKERS, in_rows, new_figure, number, styled


@styled
def reconstructions(
    model: Program, guide: Program, data: Any, *, num: int = 10, seed: int = 0, site: str | None = None
) -> Figure:
    """Images, and below each the mean of p(x|z) over 16 draws z ~ q(z|x).

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, a tensor (N, ...) or a tuple of tensors, whose first ``num`` rows are shown.
        seed: of the draws.
        site: the observed site to show, where several are images.

    Raises:
        InputError: if no observed site holds images, (H, W) or (C, H, W).
    """
    draws = reconstruct(model, guide, as_split(data)[:num], seed=seed)
    name = image_site(draws.values, site)
    images = torch.stack([draws.values[name], image_means(draws, name)])
    figure, axes = grid_figure(images, like=draws.values[name], room=(1.4, 0.15))
    axes.set_yticks([0.5, 1.5], ["data", "mean of p(x|z)"])
    return figure


@styled
def prior_samples(
    model: Program, template: Any, *, num: int = 64, seed: int = 0, site: str | None = None, draws: bool = False
) -> Figure:
    """A grid of what the model makes: means of p(x|z) at z ~ p(z), or with ``draws`` x itself.

    Args:
        model: program of p(x, z).
        template: a Split, a tensor (N, ...) or a tuple of tensors of the shape of data.
        num: how many images.
        seed: of the draws.
        site: the observed site to show, where several are images.
        draws: show x ~ p(x|z) instead of its mean.

    Raises:
        InputError: if no observed site holds images, or its distribution has no mean to show.
    """
    name = image_site(decode(model, as_split(template)[:1], {}).values, site)
    drawn = sample(model, template, num_samples=num, seed=seed)
    images = drawn.values[name] if draws else image_means(drawn, name)
    figure, axes = grid_figure(in_rows(images), like=images)
    axes.set_title("draws of p(x|z), z ~ p(z)" if draws else "means of p(x|z), z ~ p(z)")
    return figure


@styled
def manifold(
    model: Program, template: Any, *, num: int = 15, central: float = 0.96, seed: int = 0, site: str | None = None
) -> Figure:
    """Means of p(x|z) over the plane of two latents, at equally spaced quantiles of each one's own prior.

    Args:
        model: program of p(x, z) whose one latent site has event shape (2,).
        template: rows of the shape of data; a label or covariate is that of the first row.
        num: images along each side.
        central: the prior probability between the first and the last value of a latent.
        seed: of the draws z ~ p(z), 10,000, that tell the quantiles.
        site: the observed site to show, where several are images.

    Raises:
        InputError: if the model has other latent sites, or no observed site holds images.
    """
    template = as_split(template)[:1]
    latent = plane_site(model, template)
    prior = sample(model, template, num_samples=10_000, seed=seed).values[latent].flatten(0, -2)
    levels = torch.linspace(0.5 - central / 2, 0.5 + central / 2, num, dtype=prior.dtype)
    across, up = prior.quantile(levels, 0).unbind(-1)
    z = torch.cartesian_prod(up.flip(0), across).flip(1)  # rows from the top: z[1] falls, z[0] rises along each
    draws = decode(model, template, {latent: z})
    name = image_site(draws.values, site)
    images = image_means(draws, name).unflatten(0, (num, num))
    figure, axes = grid_figure(images, like=images)
    shown = np.arange(0, num, math.ceil(num / 15))
    axes.set_xticks(shown + 0.5, [number(float(across[i]), 2) for i in shown])
    axes.set_yticks(num - 0.5 - shown, [number(float(up[i]), 2) for i in shown])
    axes.set(xlabel=f"{latent}[0]", ylabel=f"{latent}[1]", title=f"means of p(x|{latent})")
    return figure


@styled
def interpolation(
    model: Program, guide: Program, data: Any, *, pairs: int = 6, steps: int = 9, seed: int = 0, site: str | None = None
) -> Figure:
    """Means of p(x|z) on straight lines between the posterior means of two data, the data themselves at both ends.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, a tensor (N, ...) or a tuple of tensors; labels or covariates are those of the left datum.
        pairs: how many lines.
        steps: images on each line, both ends included.
        seed: of the choice of pairs.
        site: the observed site to show, where several are images.

    Raises:
        InputError: for fewer than two data or steps, a latent without a mean, or no observed site with images.
    """
    split = as_split(data)
    pairs = min(pairs, len(split) // 2)
    if pairs < 1 or steps < 2:
        raise InputError(f"a line needs two data and two steps, got {len(split)} data and steps={steps}")
    chosen = np.random.default_rng(seed).permutation(len(split))[: 2 * pairs].tolist()
    left, right = split[chosen[:pairs]], split[chosen[pairs:]]
    starts, ends = (posterior_means(model, guide, end, seed) for end in (left, right))
    weight = torch.linspace(0, 1, steps).tolist()
    between = {name: torch.stack([z.lerp(ends[name], t) for t in weight], 1) for name, z in starts.items()}
    rows = left[torch.arange(pairs).repeat_interleave(steps)]
    draws = decode(model, rows, {name: z.flatten(0, 1) for name, z in between.items()})
    originals = [reconstruct(model, guide, end, num_draws=1, seed=seed).values for end in (left, right)]
    name = image_site(draws.values, site)
    decoded = image_means(draws, name).unflatten(0, (pairs, steps))
    first, last = (original[name] for original in originals)
    figure, axes = grid_figure(first[:, None], decoded, last[:, None], like=torch.cat([first, last]))
    centres = [0.5, *(1.5 + GAP + i for i in range(steps)), 1.5 + 2 * GAP + steps]
    axes.set_xticks(centres, ["x", *(f"{t:.3g}" for t in weight), "x′"])
    axes.set_xlabel("means of p(x|z),  z = (1 − t) E[z|x] + t E[z|x′],  at t")
    return figure


@styled
def latent_means(model: Program, guide: Program, data: Any, *, seed: int = 0) -> Figure:
    """Posterior means E_q[z] of all data by class: two latents as they are, more by two principal components.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split (whose labels give the classes), a tensor (N, ...) or a tuple of tensors.
        seed: of the draws where q has no mean in closed form, and of the jitter that spreads one latent.

    Raises:
        InputError: for a latent without a mean, or fewer than three data to find principal components of.
    """
    split = as_split(data)
    points, names = plane(posterior_means(model, guide, split, seed))
    labels = np.zeros(len(split)) if split.labels is None else split.labels.cpu()
    classes, index = np.unique(labels, return_inverse=True)
    figure, (axes,) = new_figure(5.8, 4.6)
    if points.shape[1] == 1:
        points = np.stack([points[:, 0], index + np.random.default_rng(seed).uniform(-0.35, 0.35, len(split))], 1)
        axes.set_yticks([])
    else:
        axes.set_aspect("equal", adjustable="datalim")
    scatter(axes, points, index, None if split.labels is None else classes.tolist())
    axes.set(xlabel=names[0], ylabel=names[1], title=f"posterior means of {len(split):,} data")
    return figure


def plane_site(model: Program, template: Split) -> str:
    """The name of the one latent site of a model, of event shape (2,); refuses all else."""
    drawn = sample(model, template, num_samples=1).values
    observed = decode(model, template, {}).values
    shapes = {name: tuple(value.shape[1:]) for name, value in drawn.items() if name not in observed}
    if list(shapes.values()) != [(2,)]:
        raise InputError(f"expected a model with one latent site of event shape (2,), got the latent sites {shapes}")
    return next(iter(shapes))


def plane(means: Mapping[str, Tensor]) -> tuple[np.ndarray, list[str]]:
    """Latent sites (N, ...) -> coordinates (N, 1 or 2) and the labels of the two axes."""
    flat = {name: mean.flatten(1) if mean.dim() > 1 else mean[:, None] for name, mean in means.items()}
    names = [f"{name}[{i}]" if m.shape[1] > 1 else name for name, m in flat.items() for i in range(m.shape[1])]
    points = torch.cat(list(flat.values()), 1).double()
    if len(names) <= 2:
        return points.numpy(), [*(f"posterior mean of {name}" for name in names), "spread at random"][:2]
    points, fractions = _principal_components(points)
    shown = (f"{i} of {len(names)} latents ({fraction:.0%} of variance)" for i, fraction in enumerate(fractions, 1))
    return points.numpy(), [f"principal component {text}" for text in shown]


def _principal_components(rows: Tensor) -> tuple[Tensor, list[float]]:
    """The first two, (N, 2), and each one's fraction of the variance."""
    if len(rows) < 3:
        raise InputError(f"principal components of the latents need at least three data, got {len(rows)}")
    u, s, vt = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    largest = vt[:2].gather(1, vt[:2].abs().argmax(1, keepdim=True))  # made positive: the same sign on every machine
    fraction = s.square() / s.square().sum().clamp_min(1e-300)
    return u[:, :2] * s[:2] * largest.flatten().sign(), fraction[:2].tolist()


def scatter(axes: Axes, points: np.ndarray, index: np.ndarray, classes: Sequence[Any] | None) -> None:
    """Points (N, 2) by the index (N,) of their class; a legend names the classes, if there are any."""
    size = 14 if len(points) <= 2000 else 5
    for i, label in enumerate(classes or [None]):
        x, y = points[index == i].T
        marker, color = MARKERS[i // 5 % len(MARKERS)], CLASSES[i % len(CLASSES)]
        axes.scatter(x, y, s=size, marker=marker, color=color, alpha=0.8, linewidths=0, label=str(label))
    if classes:
        columns = math.ceil(len(classes) / 20)
        axes.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.6, ncols=columns)
