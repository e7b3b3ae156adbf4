r"""The modes of one datum's density, each with its width, wherever draws or the nodes of a grid show the way to one.

A start is the highest point of its cell where no cell beside it holds a higher one, however low it lies: log p(x, u)
rises towards a narrow mode from far away. From there a stencil climbs, and shrinks until the density falls by at most
half a nat from one of its points to the next; the fall says how wide the mode is:

.. math:: \sigma = s / \sqrt{2 \, (\log p(x, u) - \log p(x, u \pm s))}
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.posteriors.unconstrained import UnconstrainedDensity

REACH = 4  # steps of the stencil to either side
STARTS = 64  # climbs at a time, from the highest on
MOST = 64  # modes that are kept, the highest: what more than these hide, a finer grid finds or leaves as its error
CLIMBS = 200  # stencils of each, at most
DIP = 1.0  # nats by which the density falls between two modes that count as two


class Modes(NamedTuple):
    """M places where the density is highest around, from the highest to the lowest."""

    u: Tensor  # (M, D), unconstrained
    log_density: Tensor  # (M,)
    width: Tensor  # (M, D): a standard deviation along each axis, all else held

    @classmethod
    def none(cls, num_dims: int) -> "Modes":
        empty = torch.zeros(0, num_dims, dtype=torch.float64)
        return cls(empty, empty.sum(-1), empty)

    def near(self, u: Tensor) -> Tensor:
        """Which of K points lie within two widths of a mode: (K,)."""
        return ((u[:, None] - self.u).abs() <= 2 * self.width).all(-1).any(-1)

    def above(self, log_density: float) -> "Modes":
        """Those that are higher."""
        return Modes(*(column[self.log_density > log_density] for column in self))

    def joined(self, other: "Modes") -> "Modes":
        """The modes of both, the highest ``MOST`` of them; those within two widths of a higher one left out."""
        together = [torch.cat(columns) for columns in zip(self, other, strict=True)]
        kept = Modes.none(self.u.shape[1])
        for row in together[1].argsort(descending=True):
            if len(kept.u) == MOST:
                break
            one = Modes(*(column[row : row + 1] for column in together))
            if not kept.near(one.u).any():
                kept = Modes(*(torch.cat(pair) for pair in zip(kept, one, strict=True)))
        return kept


def found_near(
    line: UnconstrainedDensity, axes: Sequence[Tensor], u: Tensor, log_density: Tensor, known: Modes, spans: Tensor
) -> Modes:
    """The modes that points lead to, beside those that are known.

    Args:
        line: the density.
        axes: D of (G,), whose products are among the points and part space into cells.
        u: K points, (K, D), the nodes and some more.
        log_density: of each, (K,) nats.
        known: modes that need not be climbed again.
        spans: (D,), as wide as a mode can be.
    """
    log_density = torch.where(log_density.isfinite(), log_density, -math.inf)
    along = zip(u.T.contiguous(), axes, strict=True)
    cells = torch.stack([torch.bucketize(x, axis).clamp_max(len(axis) - 1) for x, axis in along], -1)
    tops = _tops(cells, log_density, [len(axis) for axis in axes])
    tops = tops[~known.near(u[tops])]
    tops = tops[log_density[tops].argsort(descending=True)][:STARTS]
    if not len(tops):
        return known
    steps = torch.stack([axis.diff()[cell.clamp(1) - 1] for axis, cell in zip(axes, cells[tops].T, strict=True)], -1)
    return known.joined(_climbed(line, u[tops], steps / 2, spans))


def _tops(cells: Tensor, log_density: Tensor, sizes: Sequence[int]) -> Tensor:
    """Numbers of the points that are the highest of their cell and of those around it: cells (K, D)."""
    flat = cells[:, 0] if len(sizes) == 1 else cells[:, 0] * sizes[1] + cells[:, 1]
    best = torch.full((math.prod(sizes),), -math.inf, dtype=log_density.dtype)
    best = best.scatter_reduce(0, flat, log_density, "amax").reshape(1, 1, *sizes)
    pool = torch.nn.functional.max_pool1d if len(sizes) == 1 else torch.nn.functional.max_pool2d
    around = pool(best, 3, stride=1, padding=1).flatten()
    return ((log_density == around[flat]) & log_density.isfinite()).nonzero().flatten()


def _climbed(line: UnconstrainedDensity, u: Tensor, steps: Tensor, spans: Tensor) -> Modes:
    """Where climbs from points (S, D) end, and how wide it is there; their first steps are (S, D)."""
    num_dims = u.shape[1]
    stencil = torch.tensor(list(itertools.product(range(-REACH, REACH + 1), repeat=num_dims)), dtype=torch.float64)
    centre, stride = len(stencil) // 2, [(2 * REACH + 1) ** axis for axis in reversed(range(num_dims))]
    u, steps, heights = u.clone(), steps.clone(), torch.zeros(len(u), dtype=torch.float64)
    widths, going = spans.expand_as(u).clone(), torch.arange(len(u))
    for _ in range(CLIMBS):
        points = u[going, None] + stencil * steps[going, None]
        found = line.at(points.flatten(0, 1)).log_density.reshape(len(going), -1)
        found = torch.where(found.isfinite(), found, -math.inf)
        heights[going], best = found.max(1)
        best = torch.where(found[:, centre] == heights[going], centre, best)
        sides = torch.stack([found[:, [centre - one, centre + one]].amax(1) for one in stride], -1)
        # on the side where it falls less: the other may be an edge
        fall = (found[:, centre, None] - sides).clamp_min(0)
        widths[going] = torch.minimum(steps[going] / (2 * fall).sqrt(), spans)
        u[going] = points[torch.arange(len(going)), best]
        here = best == centre
        steps[going] = torch.where(here[:, None] & (fall > 0.5), steps[going] / REACH, steps[going])
        going = going[~(here & (fall <= 0.5).all(1))]
        if not len(going):
            break
    return Modes(u, heights, widths)


def count(line: UnconstrainedDensity, modes: Modes) -> int:
    """How many modes there are, those apart between which the density dips."""
    fractions, apart = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None], 0
    for row in range(len(modes.u)):
        paths = [modes.u[row] + fractions * (other - modes.u[row]) for other in modes.u[:row]]
        lowest = [line.at(path).log_density.min().item() for path in paths]
        apart += all(low < modes.log_density[row] - DIP for low in lowest)
    return apart
