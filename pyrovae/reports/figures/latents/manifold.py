"""What the model makes over one or two latents: a strip or a sheet of means of p(x|z)."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.data.split import Split, as_split
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import decode, sample
from pyrovae.posteriors.means import posterior_means
from pyrovae.reports.figures.images import grid_figure, image_means, image_site, is_drawn_as_ink
from pyrovae.reports.figures.style import number, styled


@styled
def manifold(
    model: Program,
    template: Any,
    *,
    guide: Program | None = None,
    num: int = 15,
    central: float = 0.96,
    seed: int = 0,
    site: str | None = None,
    invert: bool | None = None,
) -> Figure:
    """Means of p(x|z) over one or two latents: at equally spaced quantiles of each one's prior, or where the codes are.

    Args:
        model: program of p(x, z) whose one latent site has event shape (2,), or one number.
        template: rows of the shape of data; a label or covariate is that of the first row.
        guide: program of q(z|x): then the values of a latent are evenly spaced between the ends of the ``central``
            part of the means of q(z|x) of the template's rows, which may lie far outside of the prior.
        num: images along each side.
        central: the probability, or fraction of the codes, between the first and the last value of a latent.
        seed: of the draws z ~ p(z), 10,000, that tell the quantiles.
        site: the observed site to show, where several are images.
        invert: whether high values are dark, as ink on paper; None looks whether the images are that.

    Raises:
        InputError: if the model has other latent sites, or no observed site holds images.
    """
    rows = as_split(template)
    template = rows[:1]
    latent = plane_site(model, template)
    low, high = 0.5 - central / 2, 0.5 + central / 2
    if guide is None:
        drawn = sample(model, template, num_samples=10_000, seed=seed).values[latent]
        values = _quantiles(drawn, torch.linspace(low, high, num))
    else:
        ends = _quantiles(posterior_means(model, guide, rows, seed)[latent], torch.tensor([low, high]))
        values = ends[0].lerp(ends[1], torch.linspace(0, 1, num)[:, None])
    across, up = values[:, 0], values[:, 1] if values.shape[1] == 2 else values.new_zeros(1)
    z = torch.cartesian_prod(up.flip(0), across).flip(1)  # rows from the top: z[1] falls, z[0] rises along each
    shape = sample(model, template, num_samples=1).values[latent].shape[1:]
    draws = decode(model, template, {latent: z[:, : values.shape[1]].reshape(-1, *shape)})
    name = image_site(draws.values, site)
    images = image_means(draws, name).unflatten(0, (len(up), num))
    figure, axes = grid_figure(images, like=images, invert=is_drawn_as_ink(rows, images) if invert is None else invert)
    _number_latents(axes, latent, across, up)
    axes.set_title(f"means of p(x|{latent})" + ("" if guide is None else ", over the codes of the data"))
    return figure


def _quantiles(draws: Tensor, levels: Tensor) -> Tensor:
    """Of each coordinate of (S, *event): (levels, D)."""
    return draws.reshape(len(draws), -1).quantile(levels.to(draws), 0)


def _number_latents(axes: Axes, latent: str, across: Tensor, up: Tensor) -> None:
    """Writes the values of the latents at the rows and columns of images."""
    num = len(across)
    shown = np.arange(0, num, math.ceil(num / 15))
    axes.set_xticks(shown + 0.5, [number(float(across[i]), 2) for i in shown])
    axes.set_xlabel(latent if len(up) == 1 else f"{latent}[0]")
    if len(up) > 1:
        axes.set_yticks(num - 0.5 - shown, [number(float(up[i]), 2) for i in shown])
        axes.set_ylabel(f"{latent}[1]")


def plane_site(model: Program, template: Split) -> str:
    """The name of the one latent site of a model, of one or two coordinates; refuses all else."""
    drawn = sample(model, template, num_samples=1).values
    observed = decode(model, template, {}).values
    shapes = {name: tuple(value.shape[1:]) for name, value in drawn.items() if name not in observed}
    if list(shapes.values()) not in ([(2,)], [(1,)], [()]):
        raise InputError(
            f"expected a model with one latent site of one or two coordinates, got the latent sites {shapes}"
        )
    return next(iter(shapes))
