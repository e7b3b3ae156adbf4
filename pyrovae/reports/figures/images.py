"""Grids of images and of curves, one datum a cell."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.base.errors import InputError, nearest
from pyrovae.posteriors.draws import Draws
from pyrovae.reports.figures.style import FAINT, MISSING, new_figure

GAP = 0.3  # between two grids, in widths of an image


def image_site(values: Mapping[str, Tensor], site: str | None) -> str:
    """The observed site to show: the one named, else the only one that holds images.

    Args:
        values: observed site -> values (N, *shape).
        site: its name, or None.

    Raises:
        InputError: if there is no such site, more than one, or it holds no images.
    """
    if site is not None and site not in values:
        hint = nearest(site, values) or " name one of them"
        raise InputError(f"site '{site}' is not observed in the model, whose observed sites are {list(values)};{hint}")
    images = [name for name, value in values.items() if _is_image(value.shape[1:])]
    if site is None and len(images) > 1:
        raise InputError(f"several observed sites hold images, {images}: name one with site=")
    chosen = site or next(iter(images or values), None)
    if chosen is None or chosen not in images:
        shape = None if chosen is None else tuple(values[chosen].shape[1:])
        raise InputError(
            f"expected images, (H, W) or (C, H, W) with 1 or 3 channels, but a datum of site '{chosen}' has shape "
            f"{shape}; give the data and the decoder's event_shape the shape of an image"
        )
    return chosen


def _is_image(shape: torch.Size) -> bool:
    return (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))) and min(shape[-2:]) > 1


def image_means(draws: Draws, site: str) -> Tensor:
    """The means of p(x|z) at an observed site, (S, *shape). Raises InputError if its distribution has none."""
    if site not in draws.means:
        raise InputError(f"the distribution of site '{site}' has no mean to show; look at draws from it instead")
    return draws.means[site]


def grid_figure(*grids: Tensor, like: Tensor, room: tuple[float, float] = (0.7, 0.6)) -> tuple[Figure, Axes]:
    """Grids of images (R, C, *shape) side by side, a cell 1 x 1 in the units of bare axes, whose rows count downwards.

    The least and the greatest finite value of ``like`` are white and black; ``room``, in inches, is beside the grids.
    """
    rows, (height, width) = len(grids[0]), grids[0].shape[-2:]
    columns = sum(grid.shape[1] for grid in grids) + GAP * (len(grids) - 1)
    cell = min(0.6, 7.0 / columns, 7.0 / rows * width / height)
    figure, (axes,) = new_figure(max(columns * cell + room[0], 2.6), rows * cell * height / width + room[1])
    figure.set_layout_engine("compressed")  # the one that knows of a fixed aspect
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    finite, left = like[like.isfinite()], 0.0
    limits = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    for grid in grids:
        _show_grid(axes, grid, limits, left)
        left += grid.shape[1] + GAP
    axes.set(xticks=[], yticks=[], xlim=(0, columns))
    return figure, axes


def _show_grid(axes: Axes, images: Tensor, limits: tuple[float, float], left: float) -> None:
    """Draws images (R, C, *shape) as one picture, from ``left`` on."""
    rows, columns, (height, width) = len(images), images.shape[1], images.shape[-2:]
    empty = images.flatten(2).isnan().all(-1).numpy()
    pixels = _pixels(images, limits)
    pixels[empty] = 1.0
    scale = max(1, round(64 / max(height, width)))  # thin gaps, however few the pixels
    pixels = pixels.repeat(scale, 2).repeat(scale, 3)
    pixels = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=to_rgb(FAINT)[0])
    mosaic = pixels.transpose(0, 2, 1, 3, 4).reshape(rows * pixels.shape[2], columns * pixels.shape[3], 3)
    axes.imshow(mosaic, extent=(left, left + columns, rows, 0), aspect=height / width)


def _pixels(images: Tensor, limits: tuple[float, float]) -> np.ndarray:
    """(R, C, *shape) -> (R, C, H, W, 3) in [0, 1]; one channel is ink on white, three are colours."""
    low, high = limits
    unit = ((images.detach().cpu().double() - low) / (high - low or 1.0)).clamp(0, 1)
    unit = unit.unsqueeze(2) if unit.dim() == 4 else unit
    unit = 1 - unit.expand(-1, -1, 3, -1, -1) if unit.shape[2] == 1 else unit
    pixels = unit.movedim(2, -1)
    return torch.where(pixels.isnan(), torch.tensor(to_rgb(MISSING), dtype=pixels.dtype), pixels).numpy()
