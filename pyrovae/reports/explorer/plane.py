r"""A plane through a latent space, and densities on it as a page draws them: contours, and a picture of shades.

.. math:: z(u) = o + u A, \qquad u = (z - o) A^\top

with an origin o (D,) and orthonormal rows of A (D, D), the first two of which span the plane.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pyrovae.base.errors import InputError
from pyrovae.reports.figures.latents.plane import levels_of

MASSES = (0.5, 0.9, 0.99)  # of a density, inside each of its contours
Box = tuple[float, float, float, float]  # left, right, bottom, top


class Plane(NamedTuple):
    """Coordinates u of a latent space whose first two are drawn."""

    origin: np.ndarray  # (D,)
    axes: np.ndarray  # (D, D), orthonormal rows
    names: list[str]  # of all D coordinates

    def coordinates(self, z: np.ndarray) -> np.ndarray:
        """u of latents (..., D)."""
        return (z - self.origin) @ self.axes.T

    def latents(self, u: np.ndarray) -> np.ndarray:
        """The latents of points (..., D), or of points of the plane (..., 2) through its origin."""
        return self.origin + u @ self.axes[: u.shape[-1]]


def chosen(codes: np.ndarray, names: Sequence[str], which: tuple[int, int] | None) -> Plane:
    """The plane of two of the coordinates; of two there are, or else of the codes' first principal axes.

    Args:
        codes: (N, D), D at least 2.
        names: of the coordinates.
        which: two coordinates; None chooses.

    Raises:
        InputError: for coordinates that are not there, or principal axes of fewer than three codes.

    References:
        Pearson (1901), On lines and planes of closest fit to systems of points in space, Philosophical Magazine 2.
    """
    num_dims = codes.shape[1]
    if which is not None and not (which[0] != which[1] and all(0 <= place < num_dims for place in which)):
        raise InputError(f"plane takes two of the coordinates 0..{num_dims - 1}, got {which}")
    if which is not None or num_dims == 2:
        first = list(which or (0, 1))
        order = [*first, *(place for place in range(num_dims) if place not in first)]
        origin = codes.mean(0) if num_dims > 2 else np.zeros(2)
        origin[first] = 0.0
        return Plane(origin, np.eye(num_dims)[order], [names[place] for place in order])
    return _principal(codes)


def _principal(codes: np.ndarray) -> Plane:
    if len(codes) < 3:
        raise InputError(f"principal axes of the codes need at least three data, got {len(codes)}")
    variances, vectors = np.linalg.eigh(np.cov(codes.T))
    order = np.argsort(variances)[::-1]
    axes = vectors.T[order]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # the same on every machine
    fractions = variances[order] / variances.sum()
    names = [f"principal axis {i} ({fraction:.0%} of the codes' variance)" for i, fraction in enumerate(fractions, 1)]
    return Plane(codes.mean(0), axes, names)


def square_about(points: np.ndarray, *, within: float = 0.998, margin: float = 0.06) -> Box:
    """A square that holds all but a few of some points (K, 2)."""
    low, high = np.quantile(points, (0.5 - within / 2, 0.5 + within / 2), axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) * (0.5 + margin) + 1e-9
    return tuple(float(v) for i in (0, 1) for v in (middle[i] - half, middle[i] + half))  # type: ignore[return-value]


def nodes_of(box: Box, size: int) -> np.ndarray:
    """The nodes (size, size, 2) of a grid over a box, rows from the bottom."""
    x, y = np.linspace(box[0], box[1], size), np.linspace(box[2], box[3], size)
    return np.stack(np.meshgrid(x, y), -1)


def smoothed(points: np.ndarray, box: Box, size: int, *, blur: float = 1.2) -> np.ndarray:
    """A density of points (K, 2) in the cells of a box, (size, size), rows from the bottom: blurred counts."""
    from scipy.ndimage import gaussian_filter  # which scikit-learn brings

    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], size, [box[2:], box[:2]])
    return gaussian_filter(counts, blur)


def contours(density: np.ndarray, box: Box, masses: Sequence[float] = MASSES) -> list[dict[str, Any]]:
    """The smallest regions that hold so much of the mass of a density (G, G): lines [x, y, x, y, ...] of each."""
    from contourpy import contour_generator  # which matplotlib brings

    x, y = (np.linspace(low, high, len(density)) for low, high in (box[:2], box[2:]))
    generator = contour_generator(x, y, density)
    found = []
    for mass, level in zip(masses, levels_of(density, masses), strict=True):
        drawn: Any = generator.lines(level)
        lines = [np.round(line, 4).ravel().tolist() for line in drawn]
        found.append({"mass": mass, "lines": lines})
    return found


def shades(density: np.ndarray) -> np.ndarray:
    """A density as a picture (G, G) of 0..255, rows from the top; the square root shows what is thin."""
    scaled = np.sqrt(density / max(density.max(), 1e-300))
    return np.round(255 * scaled[::-1]).astype(np.uint8)
