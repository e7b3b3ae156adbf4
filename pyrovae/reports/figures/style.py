"""What the figures are drawn with: one look, grids of images, latents in a plane, bars of an account.

An image is (H, W), ink dark on white, or (3, H, W), colours; grids of R x C images are tensors (R, C, *shape).
"""

import io
import math
from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.storage import write_whole
from pyrovae.data.protocol import Protocol

DPI = 150
SHOWN_DPI = 80  # in a notebook: enough for a screen, and a third of the bytes
UNIT = "nats per datum"
PLAIN = "{x:,.10g}"  # how an axis writes its numbers without powers of ten
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
HUES = (*CLASSES[:3], *CLASSES[4:8], CLASSES[9])  # without the two greys
MARKERS = "o^sDvP"  # the next one after each five classes
F = TypeVar("F", bound=Callable[..., Figure])
UNDATED: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


@singledispatch
def draw(record: Any, **options: Any) -> Figure:
    """The figure of a record, found by its type: each is made known where it is defined, by :func:`draws`.

    Args:
        record: what a measurement returned.
        options: of the figure's own function.

    Raises:
        InputError: if there is no figure of such a record.
    """
    kinds = ", ".join(sorted(kind.__name__ for kind in draw.registry if kind is not object))
    raise InputError(
        f"there is no figure of a {type(record).__name__}; there are figures of {kinds}; for a fit and its programs "
        "pyrovae.figures has training_curves(fit.history), reconstructions, prior_samples and others"
    )


def draws(kind: type) -> Callable[[F], F]:
    """Marks the function that draws records of a type, which :func:`draw` then finds, in the style of all figures."""

    def register(function: F) -> F:
        drawn = styled(function)
        draw.register(kind)(drawn)
        return drawn

    return register


class ShownFigure(Figure):
    """A figure that notebooks show as a picture, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=SHOWN_DPI)
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
    return f"{value:z.{digits}f}".replace("-", "−")


def source(protocol: Protocol | None) -> str:
    """What was measured, "digits test"; empty where nothing says it."""
    return " ".join(part for part in (protocol.dataset, protocol.split) if part != "all") if protocol else ""


def by_name(records: Any, kind: Any, whose: str) -> dict[str, Any]:
    """Records of a kind by name, of one alone what it was measured on; InputError where there is none."""
    named = {source(records.protocol): records} if isinstance(records, kind) else dict(records)
    if not named:
        raise InputError(f"expected {whose} or a dict of them, got an empty one")
    return named


def in_rows(images: Tensor) -> Tensor:
    """(S, *shape) in rows of a near-square grid, (R, C, *shape); what is left of the last row stays NaN."""
    columns = math.ceil(math.sqrt(len(images)))
    rest = images.double().new_full((-len(images) % columns, *images.shape[1:]), math.nan)
    return torch.cat([images.double(), rest]).unflatten(0, (-1, columns))


@styled
def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure whole or not at all: PNG at 150 dpi, or SVG or PDF, as the suffix says.

    Args:
        figure: any figure of matplotlib.
        path: with the suffix .png, .svg or .pdf; its folder is made if it is not there.

    Raises:
        InputError: for another suffix.
        OSError: if it cannot be written; a file that was there before is still there.
    """
    path, suffix = Path(path), Path(path).suffix.lower()
    if suffix not in UNDATED:
        raise InputError(f"{path}: expected one of the suffixes {', '.join(UNDATED)}, got '{path.suffix}'")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=suffix[1:], dpi=DPI, metadata=UNDATED[suffix])
    write_whole(path, drawn.getvalue())
