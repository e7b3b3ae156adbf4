"""Grids of images and of curves, one datum a cell."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.base.errors import InputError, nearest
from pyrovae.data.split import Split
from pyrovae.posteriors.draws import Draws
from pyrovae.posteriors.missing.completion import Completion
from pyrovae.posteriors.restoring.restoration import Restoration
from pyrovae.reports.figures.style import FAINT, MISSING, draws, new_figure

GAP = 0.3  # between two grids, in widths of an image
_MIDDLE, _BEYOND = (0.005, 0.995), 0.1  # of the values that set a range, and how far it goes beyond them
_GROUND = 1 / 3  # of the values of ink on paper that are paper


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
    images = [name for name, value in values.items() if is_image(value.shape[1:])]
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


def is_image(shape: torch.Size) -> bool:
    """Whether a datum of this shape can be drawn: (H, W), or (C, H, W) with 1 or 3 channels."""
    return (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))) and min(shape[-2:]) > 1


def image_means(draws: Draws, site: str) -> Tensor:
    """The means of p(x|z) at an observed site, (S, *shape). Raises InputError if its distribution has none."""
    if site not in draws.means:
        raise InputError(f"the distribution of site '{site}' has no mean to show; look at draws from it instead")
    return draws.means[site]


def grid_figure(
    *grids: Tensor, like: Tensor, invert: bool | None = None, room: tuple[float, float] = (0.7, 0.6)
) -> tuple[Figure, Axes]:
    """Grids of images (R, C, *shape) side by side, a cell 1 x 1 in the units of bare axes, whose rows count downwards.

    Args:
        grids: images of one or three channels; NaN where a pixel is missing.
        like: images whose range is that of the colours, but for outliers.
        invert: whether high values of one channel are dark, as ink on paper; None looks whether ``like`` is that.
        room: in inches, beside the grids.
    """
    rows, (height, width) = len(grids[0]), grids[0].shape[-2:]
    columns = sum(grid.shape[1] for grid in grids) + GAP * (len(grids) - 1)
    cell = min(0.6, 7.0 / columns, 7.0 / rows * width / height)
    figure, (axes,) = new_figure(max(columns * cell + room[0], 2.6), rows * cell * height / width + room[1])
    figure.set_layout_engine("compressed")  # the one that knows of a fixed aspect
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    limits, left = value_range(like), 0.0
    inked = is_ink(like, limits) if invert is None else invert
    for grid in grids:
        _show_grid(axes, grid, limits, left, inked)
        left += grid.shape[1] + GAP
    axes.set(xticks=[], yticks=[], xlim=(0, columns))
    return figure, axes


def value_range(images: Tensor) -> tuple[float, float]:
    """The range of the finite values; of what has long tails, as draws of a normal, the middle 99% and a tenth more.

    Example:
        >>> low, high = value_range(torch.cat([torch.linspace(0, 1, 1001), torch.tensor([40.0, torch.nan])]))
        >>> low, round(high, 2)
        (0.0, 1.1)
    """
    finite = images[images.isfinite()].double().numpy()
    if not len(finite):
        return 0.0, 1.0
    lowest, low, high, highest = np.quantile(finite, (0, *_MIDDLE, 1)).tolist()
    room = _BEYOND * (high - low)
    if room == 0:  # next to all values are one
        return lowest, highest
    return max(lowest, low - room), min(highest, high + room)


def is_ink(images: Tensor, limits: tuple[float, float]) -> bool:
    """Whether images are ink on an empty ground, as digits are: a third of the values are next to the lowest.

    Photographs have no such ground; drawn as ink, faces would be negatives.
    """
    low, high = limits
    finite = images[images.isfinite()]
    return bool((finite <= low + 0.05 * (high - low)).double().mean() > _GROUND) if len(finite) else True


def is_drawn_as_ink(rows: Split, images: Tensor) -> bool:
    """Whether images that a model makes are to be drawn as ink: whether the data are, of which there are some rows.

    What a model makes has no clean ground, before it was fitted well.
    """
    alike = [one for one in rows[:100].tensors if one.shape[1:] == images.shape[-len(rows.shape) :]]
    like = alike[0] if alike else images
    return is_ink(like, value_range(like))


def _show_grid(axes: Axes, images: Tensor, limits: tuple[float, float], left: float, inked: bool) -> None:
    """Draws images (R, C, *shape) as one picture, from ``left`` on."""
    rows, columns, (height, width) = len(images), images.shape[1], images.shape[-2:]
    empty = images.flatten(2).isnan().all(-1).numpy()
    pixels = _pixels(images, limits, inked)
    pixels[empty] = 1.0
    scale = max(1, round(64 / max(height, width)))  # thin gaps, however few the pixels
    pixels = pixels.repeat(scale, 2).repeat(scale, 3)
    pixels = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=to_rgb(FAINT)[0])
    mosaic = pixels.transpose(0, 2, 1, 3, 4).reshape(rows * pixels.shape[2], columns * pixels.shape[3], 3)
    axes.imshow(mosaic, extent=(left, left + columns, rows, 0), aspect=height / width)


def _pixels(images: Tensor, limits: tuple[float, float], inked: bool) -> np.ndarray:
    """(R, C, *shape) -> (R, C, H, W, 3) in [0, 1]; one channel is ink or light, three are colours."""
    low, high = limits
    unit = ((images.detach().cpu().double() - low) / (high - low or 1.0)).clamp(0, 1)
    unit = unit.unsqueeze(2) if unit.dim() == 4 else unit
    if unit.shape[2] == 1:
        unit = (1 - unit if inked else unit).expand(-1, -1, 3, -1, -1)
    pixels = unit.movedim(2, -1)
    return torch.where(pixels.isnan(), torch.tensor(to_rgb(MISSING), dtype=pixels.dtype), pixels).numpy()


# -------------------------------------------------------------------------------------------------- completed pictures


@draws(Restoration)
def completions(
    record: Restoration | Completion,
    *,
    truth: Tensor | None = None,
    num: int = 8,
    num_draws: int = 5,
    invert: bool | None = None,
) -> Figure:
    """Pictures in rows: the truth where it is known, what was observed, draws given that, and their mean and sd.

    The sd of each pixel is shown with its largest, of all rows, as the highest value. A star is beside rows for whose
    draws nothing vouches.

    Args:
        record: what :func:`~pyrovae.restore` or :func:`~pyrovae.conditional` returned.
        truth: pictures (N, *shape); those of the record where None.
        num: how many of the first data.
        num_draws: how many draws of each.
        invert: whether high values are dark, as ink on paper; None looks whether the pictures are that.

    Raises:
        InputError: for data that are no images.
    """
    if not is_image(record.mean.shape[1:]):
        shape = tuple(record.mean.shape[1:])
        raise InputError(f"expected images, (H, W) or (C, H, W) with 1 or 3 channels, but a datum has shape {shape}")
    known = truth if truth is not None else getattr(record, "truth", None)
    seen = record.picture if isinstance(record, Restoration) else _hidden_left_out(record)
    first = [] if known is None else [known[:num]]
    parts = [[*first, seen[:num]], list(record.draws[:num_draws, :num]), [record.mean[:num], record.sd[:num]]]
    like = record.mean[:num] if known is None else known[:num]
    low, high = value_range(like)
    deviation = parts[2][1]
    parts[2][1] = low + (high - low) * deviation / deviation.nan_to_num().max().clamp_min(1e-12)
    figure, axes = grid_figure(*(torch.stack(part, 1) for part in parts), like=like, invert=invert, room=(0.7, 0.5))
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
