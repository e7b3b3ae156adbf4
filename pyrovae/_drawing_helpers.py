"""What the figures are drawn with: one look, grids of images, latents in a plane, bars of an account.

An image is (H, W), ink dark on white, or (3, H, W), colours; grids of R x C images are tensors (R, C, *shape).
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.base.errors import InputError, nearest
from pyrovae.data.split import Split
from pyrovae.inference import drawing
from pyrovae.inference.drawing import Draws
from pyrovae.inference.pairs import Program

DPI = 150
UNIT = "nats per datum"
INK, QUIET, FAINT = "#222222", "#8a8a8a", "#d9d9d9"
MISSING = "#f5dcc0"  # of a pixel that is NaN
BLUE, RED, GREEN = "#0072b2", "#d55e00", "#009e73"  # Okabe and Ito's, apart for every kind of colour vision
STYLE: dict[str, Any] = {
    "axes.edgecolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "pyrovae",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
styled = matplotlib.rc_context(STYLE)  # type: ignore[arg-type]
CLASSES = (  # Petroff (2021), arXiv:2107.02270: ten colours that stay apart under colour-vision deficiency
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
MARKERS = "o^sDvP"  # the next one after each five classes
ROWS_AT_ONCE = 500
Range = tuple[float, float]


class ShownFigure(Figure):
    """A figure that notebooks show as a picture, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def new_figure(width: float, height: float, *, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure in inches with a row of axes, on an Agg canvas that needs no display."""
    figure = ShownFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False, **options)[0])


def number(value: float | None, digits: int) -> str:
    """A number as text, with a true minus sign; a dash if it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


# ------------------------------------------------------------------------------------------------- images


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
    """The means of p(x|z) at an observed site, (S, *shape).

    Raises:
        InputError: if its distribution has none.
    """
    if site not in draws.means:
        raise InputError(f"the distribution of site '{site}' has no mean to show; look at draws from it instead")
    return draws.means[site]


def range_of(images: Tensor) -> Range:
    """The smallest and the largest finite value: white and black."""
    finite = images[images.isfinite()]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def in_rows(images: Tensor) -> Tensor:
    """(S, *shape) in rows of a near-square grid, (R, C, *shape); what is left of the last row stays NaN."""
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    grid = images.double().new_full((rows * columns, *images.shape[1:]), float("nan"))
    grid[: len(images)] = images
    return grid.unflatten(0, (rows, columns))


def grid_figure(
    images: Tensor, *, extra_columns: float = 0.0, room: tuple[float, float] = (0.7, 0.6)
) -> tuple[Figure, Axes]:
    """A figure for images (R, C, *shape) with ``room`` in inches for what stands beside them: bare axes, no frame."""
    rows, columns, (height, width) = len(images), images.shape[1] + extra_columns, images.shape[-2:]
    cell = min(0.6, 7.0 / columns, 7.0 / rows * width / height)
    figure, (axes,) = new_figure(max(columns * cell + room[0], 2.6), rows * cell * height / width + room[1])
    figure.set_layout_engine("compressed")  # the one that knows of a fixed aspect
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xticks=[], yticks=[])
    return figure, axes


def show_grid(axes: Axes, images: Tensor, limits: Range, *, left: float = 0.0) -> None:
    """Draws images (R, C, *shape) as one picture; a cell is 1 x 1 in the units of the axes, rows count downwards."""
    rows, columns, (height, width) = len(images), images.shape[1], images.shape[-2:]
    empty = images.flatten(2).isnan().all(-1).numpy()
    pixels = _pixels(images, limits)
    pixels[empty] = 1.0
    scale = max(1, round(64 / max(height, width)))  # thin gaps, however few the pixels
    pixels = np.pad(
        pixels.repeat(scale, 2).repeat(scale, 3),
        ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)),
        constant_values=to_rgb(FAINT)[0],
    )
    mosaic = pixels.transpose(0, 2, 1, 3, 4).reshape(rows * pixels.shape[2], columns * pixels.shape[3], 3)
    axes.imshow(mosaic, extent=(left, left + columns, rows, 0), aspect=height / width)


def _pixels(images: Tensor, limits: Range) -> np.ndarray:
    """(R, C, *shape) -> (R, C, H, W, 3) in [0, 1]; one channel is ink on white, three are colours."""
    low, high = limits
    unit = ((images.detach().cpu().double() - low) / (high - low or 1.0)).clamp(0, 1)
    unit = unit.unsqueeze(2) if unit.dim() == 4 else unit
    unit = 1 - unit.expand(-1, -1, 3, -1, -1) if unit.shape[2] == 1 else unit
    pixels = unit.movedim(2, -1)
    return torch.where(pixels.isnan(), torch.tensor(to_rgb(MISSING), dtype=pixels.dtype), pixels).numpy()


def lines_figure(first: Tensor, decoded: Tensor, last: Tensor, weight: list[float]) -> Figure:
    """Rows of decoded images (R, C, *shape) between the data at their ends, (R, *shape) each; one weight a column."""
    steps, gap = decoded.shape[1], 0.3
    figure, axes = grid_figure(decoded, extra_columns=2 + 2 * gap)
    limits = range_of(torch.cat([first, last]))
    for images, start in ((first[:, None], 0.0), (decoded, 1 + gap), (last[:, None], 1 + 2 * gap + steps)):
        show_grid(axes, images, limits, left=start)
    axes.set_xlim(0, steps + 2 + 2 * gap)
    centres = [0.5, *(1.5 + gap + i for i in range(steps)), 1.5 + 2 * gap + steps]
    axes.set_xticks(centres, ["x", *(f"{t:.3g}" for t in weight), "x′"])
    axes.set_xlabel("means of p(x|z),  z = (1 − t) E[z|x] + t E[z|x′],  at t")
    return figure


# ------------------------------------------------------------------------------------------------ latents


def plane_site(model: Program, template: Split) -> tuple[str, torch.dtype]:
    """The name and dtype of the one latent site of a model, of event shape (2,); refuses all else."""
    drawn = drawing.sample(model, template, num_samples=1).values
    observed = drawing.decode(model, template, {}).values
    shapes = {name: tuple(value.shape[1:]) for name, value in drawn.items() if name not in observed}
    if list(shapes.values()) != [(2,)]:
        raise InputError(f"expected a model with one latent site of event shape (2,), got the latent sites {shapes}")
    return (name := next(iter(shapes))), drawn[name].dtype


def posterior_means(model: Program, guide: Program, data: Split, seed: int) -> dict[str, Tensor]:
    """E_q[z] at every latent site, (N, ...), over 32 draws where one does not tell it."""
    blocks = []
    for start in range(0, len(data), ROWS_AT_ONCE):
        rows = data[start : start + ROWS_AT_ONCE]
        draws = drawing.posterior(model, guide, rows, seed=seed)
        if len(draws.values) > 1 or not draws.means:
            draws = drawing.posterior(model, guide, rows, num_samples=32, seed=seed)
        blocks.append({name: draws.means.get(name, value).mean(0) for name, value in _real(draws.values).items()})
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _real(values: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, value in values.items():
        if not value.is_floating_point():
            raise InputError(f"site '{name}' holds whole numbers, which have no posterior mean to draw")
    return values


def plane(means: Mapping[str, Tensor]) -> tuple[np.ndarray, tuple[str, str]]:
    """Latent sites (N, ...) -> coordinates (N, 1 or 2) and the names of the axes."""
    flat = {name: mean.flatten(1) if mean.dim() > 1 else mean[:, None] for name, mean in means.items()}
    names = [f"{name}[{i}]" if m.shape[1] > 1 else name for name, m in flat.items() for i in range(m.shape[1])]
    every = torch.cat(list(flat.values()), 1).double()
    if len(names) == 1:
        return every.numpy(), (f"posterior mean of {names[0]}", "spread at random")
    if len(names) == 2:
        return every.numpy(), (f"posterior mean of {names[0]}", f"posterior mean of {names[1]}")
    points, share = _principal_components(every)
    first, second = (
        f"principal component {i + 1} of {len(names)} latents ({share[i]:.0%} of variance)" for i in (0, 1)
    )
    return points, (first, second)


def _principal_components(rows: Tensor) -> tuple[np.ndarray, list[float]]:
    """The first two, (N, 2), and each one's share of the variance."""
    if len(rows) < 3:
        raise InputError(f"principal components of the latents need at least three data, got {len(rows)}")
    u, s, vt = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    largest = vt[:2].gather(1, vt[:2].abs().argmax(1, keepdim=True))  # made positive: the same sign on every machine
    share = s.square() / s.square().sum().clamp_min(1e-300)
    return (u[:, :2] * s[:2] * largest.flatten().sign()).numpy(), share[:2].tolist()


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
