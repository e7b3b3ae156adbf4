r"""The posterior of one datum on a grid in unconstrained space: exact to rounding for one or two coordinates.

With nodes u_i a spacing h apart in each of D coordinates, and a density that is negligible at the edge:

.. math:: p(x) \approx h^D \sum_i p(x, u_i)

the trapezoid rule, whose error falls faster than any power of h where the density is smooth. Half the nodes along
each axis give the same with 2h: what changes is the error stated.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.progress import bar
from pyrovae.base.random import seed_everything
from pyrovae.pairs.latents import Latents, Values
from pyrovae.posteriors.methods import Answer, Evidence, Moments, Plan, weighted_moments
from pyrovae.posteriors.unconstrained import Points, UnconstrainedDensity

MOST_COORDINATES = 2
DEPTH = 30.0  # nats: what is so far below the highest density is negligible
TOLERANCE = 1e-6  # nats of error in log p(x): more asks for a finer grid, while there is one
UNRELIABLE = 1e-2  # nats of error that the caller is warned of
SCOUTS = 1000  # draws of the guide, and as many of the prior, that show where to look
ROUNDS = 200


# Coordinates -> 2 to the power of these many cells along an axis: while the box is sought, and of the answer at least
# (the jitter of draws widens them by h^2 / 6 in variance) and at most.
LEVELS = {1: (8, 10, 16), 2: (6, 8, 10)}


class Grid(NamedTuple):
    """The posterior at the nodes of a grid with G nodes along each of D axes."""

    axes: tuple[Tensor, ...]  # D of (G,): the unconstrained coordinates
    values: Values  # site -> (G, ..., *event): the latents that the nodes stand for
    log_density: Tensor  # (G, ...): log p(z | x), of the latents as they are
    log_mass: Tensor  # (G, ...): log probability of the cell around a node; they sum to one
    error: float  # of log p(x), in nats

    def lines(self) -> list[str]:
        size = " x ".join(str(len(axis)) for axis in self.axes)
        return [
            f"grid of {size} nodes in unconstrained space; error of log p(x) by halving the spacing "
            f"{self.error:.1e} nats"
        ]

    def doubts(self) -> list[str]:
        """Whether the finest grid was too coarse."""
        if self.error <= UNRELIABLE:
            return []
        return [
            f"the finest grid leaves an error of at least {self.error:.1e} nats in log p(x): the posterior is too "
            "narrow, or too heavy in its tails, for a grid. Use method='nuts'"
        ]


def on_grid(latents: Latents, plan: Plan) -> Answer:
    """The posterior of one datum with at most two real coordinates, by the trapezoid rule.

    Draws are independent, from the interpolant between the nodes.

    Raises:
        FloatingPointError: where the density is NaN or infinite, or no box holds it.
    """
    seed_everything("reference", plan.seed, 1)
    line = UnconstrainedDensity(latents)
    with bar(shown=plan.progress, desc="grid", unit="node", delay=2) as shown:
        nodes = _resolved(line, shown)
    log_evidence, moments = nodes.log_evidence(), nodes.moments()
    coarse = nodes.every_second().moments()
    error = {name: (mean - coarse.mean[name]).abs() for name, mean in moments.mean.items()}
    values = {name: value.unsqueeze(0) for name, value in line.at(nodes.draw(plan.num_draws)).values.items()}
    grid = nodes.normalised()
    return Answer(values, moments, error, Evidence(log_evidence.item(), grid.error), grid)


class _Nodes(NamedTuple):
    """A density scored at all nodes of a grid."""

    axes: tuple[Tensor, ...]
    points: Points  # of the G^D nodes, the last axis fastest

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    @property
    def spacing(self) -> Tensor:
        """h of each axis, (D,)."""
        return torch.stack([(axis[-1] - axis[0]) / (len(axis) - 1) for axis in self.axes])

    def log_mass(self) -> Tensor:
        """log [h^D p(x, u_i)] of each node; they add up to p(x), the nodes at the edge being negligible."""
        return self.points.log_density + self.spacing.log().sum()

    def log_evidence(self) -> Tensor:
        return self.log_mass().logsumexp(0)

    def error(self) -> float:
        """What halving the spacing has changed in log p(x), or rounding can change."""
        return max((self.log_evidence() - self.every_second().log_evidence()).abs().item(), self.rounding())

    def rounding(self) -> float:
        """What rounding can change in log p(x)."""
        resolution = max(torch.finfo(value.dtype).eps for value in self.points.values.values())
        return 4 * resolution * self.points.log_density.max().abs().item()

    def moments(self) -> Moments:
        return weighted_moments(self.points.values, self.points.log_density.softmax(0))

    def every_second(self) -> "_Nodes":
        """The same with twice the spacing."""
        rows = torch.arange(math.prod(self.shape), device=self.points.u.device).reshape(self.shape)
        rows = rows[(slice(None, None, 2),) * len(self.axes)].flatten()
        return _Nodes(tuple(axis[::2] for axis in self.axes), self.points.take(rows))

    def draw(self, num_draws: int) -> Tensor:
        """Points (S, D) from the multilinear interpolant: a node, moved by a triangular jitter."""
        rows = torch.multinomial(self.log_mass().softmax(0), num_draws, replacement=True)
        chosen = self.points.u[rows]
        return chosen + self.spacing * (torch.rand_like(chosen) + torch.rand_like(chosen) - 1)

    def normalised(self) -> Grid:
        evidence, values = self.log_evidence(), self.points.values
        return Grid(
            tuple(axis.cpu() for axis in self.axes),
            {name: value.unflatten(0, self.shape).cpu() for name, value in values.items()},
            (self.points.log_joint - evidence).reshape(self.shape).cpu(),
            (self.log_mass() - evidence).reshape(self.shape).cpu(),
            self.error(),
        )


# --------------------------------------------------------------------------------------------- where, and how fine


class _Box(NamedTuple):
    """The part of unconstrained space that a grid covers: (D,) each."""

    low: Tensor
    high: Tensor


def _resolved(line: UnconstrainedDensity, shown: Any) -> _Nodes:
    """Widens, narrows and refines a grid until it holds the density and resolves it."""
    scouts = _scouted(line)
    level, least, most = LEVELS[line.latents.num_dims]
    box = _Box(scouts.u.amin(0), scouts.u.amax(0))
    for _ in range(ROUNDS):
        nodes = _scored(line, box, level, shown)
        fitted = _fitted(nodes, scouts, box)
        broken = nodes.points.broken()
        if not _settled(fitted, box, needed=0.9 if len(broken) else 0.5):
            box = fitted
        elif len(broken):
            raise FloatingPointError(f"{nodes.points.describe(int(broken[0]))}; look at the model there")
        elif level == most or (level >= least and nodes.error() <= max(TOLERANCE, nodes.rounding())):
            return nodes
        else:
            level += 1
    raise FloatingPointError(f"no grid holds log p(x, z): its box did not settle in {ROUNDS} rounds; use method='nuts'")


def _scouted(line: UnconstrainedDensity) -> Points:
    """Draws of guide and prior, where they are finite in unconstrained space, and their density."""
    u = line.draws(SCOUTS)
    points = line.at(u[u.isfinite().all(-1)])
    for row in points.broken().tolist():
        raise FloatingPointError(f"{points.describe(row)}; look at the model there")
    return points


def _scored(line: UnconstrainedDensity, box: _Box, level: int, shown: Any) -> _Nodes:
    ends = zip(box.low.tolist(), box.high.tolist(), strict=True)
    axes = [torch.linspace(low, high, 2**level + 1, dtype=torch.float64) for low, high in ends]
    u = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    return _Nodes(tuple(axes), line.at(u, shown))


def _fitted(nodes: _Nodes, scouts: Points, box: _Box) -> _Box:
    """The box around all that is not negligible and a cell more; wider by half where that reaches the edge."""
    u, log_density = torch.cat([nodes.points.u, scouts.u]), torch.cat([nodes.points.log_density, scouts.log_density])
    log_density[nodes.points.broken()] = -math.inf  # beyond what numbers hold: outside the box, or it is an error
    kept = u[log_density > log_density.max() - DEPTH]
    if not len(kept):
        raise FloatingPointError("log p(x, z) is -inf at every latent tried: does the model's support hold the datum?")
    low, high, half = kept.amin(0), kept.amax(0), (box.high - box.low) / 2
    return _Box(
        torch.where(low <= box.low, box.low - half, torch.maximum(low - nodes.spacing, box.low)),
        torch.where(high >= box.high, box.high + half, torch.minimum(high + nodes.spacing, box.high)),
    )


def _settled(fitted: _Box, box: _Box, needed: float) -> bool:
    """Whether nothing reaches the edge and so great a fraction of the box is needed."""
    widened = (fitted.low < box.low) | (fitted.high > box.high)
    return not bool((widened | (fitted.high - fitted.low < needed * (box.high - box.low))).any())
