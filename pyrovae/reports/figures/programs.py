"""What a pair makes of data: reconstructions, draws from the prior, what lies between two data."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from pyrovae.base.errors import InputError
from pyrovae.data.split import as_split
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import decode, reconstruct, sample
from pyrovae.posteriors.means import posterior_means
from pyrovae.reports.figures.images import GAP, grid_figure, image_means, image_site, is_drawn_as_ink
from pyrovae.reports.figures.style import in_rows, styled


@styled
def reconstructions(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num: int = 10,
    seed: int = 0,
    site: str | None = None,
    invert: bool | None = None,
) -> Figure:
    """Images, and below each the mean of p(x|z) over 16 draws z ~ q(z|x).

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, a tensor (N, ...) or a tuple of tensors, whose first ``num`` rows are shown.
        seed: of the draws.
        site: the observed site to show, where several are images.
        invert: whether high values are dark, as ink on paper; None looks whether the images are that.

    Raises:
        InputError: if no observed site holds images, (H, W) or (C, H, W).
    """
    draws = reconstruct(model, guide, as_split(data)[:num], seed=seed)
    name = image_site(draws.values, site)
    images = torch.stack([draws.values[name], image_means(draws, name)])
    figure, axes = grid_figure(images, like=draws.values[name], invert=invert, room=(1.4, 0.15))
    axes.set_yticks([0.5, 1.5], ["data", "mean of p(x|z)"])
    return figure


@styled
def prior_samples(
    model: Program,
    template: Any,
    *,
    num: int = 64,
    seed: int = 0,
    site: str | None = None,
    draws: bool = False,
    invert: bool | None = None,
) -> Figure:
    """A grid of what the model makes: means of p(x|z) at z ~ p(z), or with ``draws`` x itself.

    Args:
        model: program of p(x, z).
        template: a Split, a tensor (N, ...) or a tuple of tensors of the shape of data.
        num: how many images.
        seed: of the draws.
        site: the observed site to show, where several are images.
        draws: show x ~ p(x|z) instead of its mean.
        invert: whether high values are dark, as ink on paper; None looks whether the images are that.

    Raises:
        InputError: if no observed site holds images, or its distribution has no mean to show.
    """
    rows = as_split(template)
    name = image_site(decode(model, rows[:1], {}).values, site)
    drawn = sample(model, rows, num_samples=num, seed=seed)
    images = drawn.values[name] if draws else image_means(drawn, name)
    figure, axes = grid_figure(
        in_rows(images), like=images, invert=is_drawn_as_ink(rows, images) if invert is None else invert
    )
    axes.set_title("draws of p(x|z), z ~ p(z)" if draws else "means of p(x|z), z ~ p(z)")
    return figure


@styled
def interpolation(
    model: Program,
    guide: Program,
    data: Any,
    *,
    pairs: int = 6,
    steps: int = 9,
    seed: int = 0,
    site: str | None = None,
    invert: bool | None = None,
) -> Figure:
    """Means of p(x|z) on straight lines between the means of q(z|x) of two data, the data themselves at both ends.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, a tensor (N, ...) or a tuple of tensors; labels or covariates are those of the left datum.
        pairs: how many lines.
        steps: images on each line, both ends included.
        seed: of the choice of pairs.
        site: the observed site to show, where several are images.
        invert: whether high values are dark, as ink on paper; None looks whether the images are that.

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
    figure, axes = grid_figure(first[:, None], decoded, last[:, None], like=torch.cat([first, last]), invert=invert)
    centres = [0.5, *(1.5 + GAP + i for i in range(steps)), 1.5 + 2 * GAP + steps]
    axes.set_xticks(centres, ["x", *(f"{t:.3g}" for t in weight), "x′"])
    axes.set_xlabel("means of p(x|z),  z = (1 − t) E[z|x] + t E[z|x′],  at t")
    return figure
