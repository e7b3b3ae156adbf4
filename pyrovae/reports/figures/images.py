"""Grids of images and of curves, one datum a cell."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.base.errors import InputError, nearest
from pyrovae.posteriors.draws import Draws
from pyrovae.posteriors.missing.completion import Completion
from pyrovae.posteriors.restoring.restoration import Restoration
from pyrovae.reports.figures.style import FAINT, MISSING, draws, new_figure

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


# -------------------------------------------------------------------------------------------------- completed pictures


@draws(Restoration)
def completions(
    record: Restoration | Completion, *, truth: Tensor | None = None, num: int = 8, num_draws: int = 5
) -> Figure:
    """Pictures in rows: the truth where it is known, what was observed, draws given that, and their mean and sd.

    The sd of each pixel is shown with its largest, of all rows, as black. A star is beside rows for whose draws nothing
    vouches.

    Args:
        record: what :func:`~pyrovae.restore` or :func:`~pyrovae.conditional` returned.
        truth: pictures (N, *shape); those of the record where None.
        num: how many of the first data.
        num_draws: how many draws of each.

    Raises:
        InputError: for data that are no images.
    """
    if not _is_image(record.mean.shape[1:]):
        shape = tuple(record.mean.shape[1:])
        raise InputError(f"expected images, (H, W) or (C, H, W) with 1 or 3 channels, but a datum has shape {shape}")
    known = truth if truth is not None else getattr(record, "truth", None)
    seen = record.picture if isinstance(record, Restoration) else _hidden_left_out(record)
    first = [] if known is None else [known[:num]]
    parts = [[*first, seen[:num]], list(record.draws[:num_draws, :num]), [record.mean[:num], record.sd[:num]]]
    like = record.mean[:num] if known is None else known[:num]
    low, high = float(like[like.isfinite()].min()), float(like[like.isfinite()].max())
    deviation = parts[2][1]
    parts[2][1] = low + (high - low) * deviation / deviation.nan_to_num().max().clamp_min(1e-12)
    figure, axes = grid_figure(*(torch.stack(part, 1) for part in parts), like=like, room=(0.7, 0.5))
    _name_columns(axes, parts, known is not None)
    names = [f"{row}{' *' if bool(doubted) else ''}" for row, doubted in enumerate(record.unreliable[:num])]
    axes.set_yticks([row + 0.5 for row in range(len(names))], names)
    return figure


def _hidden_left_out(record: Completion) -> Tensor:
    return torch.where(record.observed, record.draws[0], torch.nan)


def _name_columns(axes: Axes, parts: Sequence[Sequence[Tensor]], has_truth: bool) -> None:
    """Writes above each column of grids what it shows."""
    starts, left = [], 0.0
    for part in parts:
        starts.append(left)
        left += len(part) + GAP
    names = (["truth"] if has_truth else []) + ["observed"]
    written = [(starts[0] + at + 0.5, name) for at, name in enumerate(names)]
    written += [(starts[1] + len(parts[1]) / 2, "draws"), (starts[2] + 0.5, "mean"), (starts[2] + 1.5, "sd")]
    for place, name in written:
        axes.text(place, -0.08, name, ha="center", va="bottom", fontsize=7)
