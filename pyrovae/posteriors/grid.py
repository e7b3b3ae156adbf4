r"""The posterior of one datum on a grid in unconstrained space: exact to rounding for one or two coordinates.

With nodes u_i a spacing h apart in each of D coordinates, and a density that is negligible at the edge:

.. math:: p(x) \approx h^D \sum_i p(x, u_i)

the trapezoid rule, whose error falls faster than any power of h where the density is smooth. Half the nodes along
each axis give the same with 2h: what changes is the error stated.

Modes too narrow for that are sought first (``modes``). An axis u(t) then has nodes as dense around each mode m, of
width s_m, as it needs, and the rule holds in t, the weight of a node being du/dt:

.. math:: t \propto \sum_m \mathrm{asinh} \frac{u - m}{s_m}

What no node, draw or climb has met is lost all the same: importance sampling from the guide is held against it.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.progress import bar
from pyrovae.base.random import seed_everything
from pyrovae.evidence.estimators import log_evidence, log_evidence_se
from pyrovae.pairs.latents import Latents, Values
from pyrovae.posteriors.methods import Answer, Evidence, Moments, Plan, weighted_moments
from pyrovae.posteriors.modes import Modes, count, found_near
from pyrovae.posteriors.unconstrained import Points, UnconstrainedDensity

MOST_COORDINATES = 2
DEPTH = 30.0  # nats: what is so far below the highest density is negligible
TOLERANCE = 1e-6  # nats of error in log p(x): more asks for a finer grid, while there is one
MOST_ERRORS = 5  # standard errors by which importance sampling may lie above the grid
UNRELIABLE = 1e-2  # nats of error that the caller is warned of
LOOKED_AT = 200  # draws, for the edges of supports
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
    log_evidence: float  # log p(x), nats
    error: float  # of log p(x), in nats: what twice the nodes along each axis have changed
    num_modes: int  # that hold more than a negligible part of the mass
    sampled: Evidence  # log p(x) by importance sampling from the guide, and its standard error

    def lines(self) -> list[str]:
        size = " x ".join(str(len(axis)) for axis in self.axes)
        return [
            f"grid of {size} nodes in unconstrained space; error of log p(x) by halving the spacing "
            f"{self.error:.1e} nats",
            f"modes: {self.num_modes}; importance sampling from the guide gives {self.sampled.value:.4f} nats, "
            f"standard error {self.sampled.error:.1e}",
        ]

    def doubts(self) -> list[str]:
        """Whether the finest grid was too coarse, or has missed what the guide's draws have met."""
        doubts = []
        if self.error > UNRELIABLE:
            doubts.append(
                f"the finest grid leaves an error of at least {self.error:.1e} nats in log p(x): the posterior is too "
                "narrow, or too heavy in its tails, for a grid. Use method='nuts'"
            )
        missed = self.sampled.value - self.log_evidence
        if missed > UNRELIABLE + MOST_ERRORS * self.sampled.error:
            doubts.append(
                f"the grid's log p(x) is {missed:.2f} nats below that of importance sampling from the guide: it has "
                "missed a narrow part of the posterior. Use method='resampled'"
            )
        return doubts


def on_grid(latents: Latents, plan: Plan) -> Answer:
    """The posterior of one datum with at most two real coordinates, by the trapezoid rule.

    Draws are independent, from the interpolant between the nodes.

    Raises:
        FloatingPointError: where the density is NaN or infinite, or no box holds it.
    """
    seed_everything("reference", plan.seed, 1)
    line = UnconstrainedDensity(latents)
    with bar(shown=plan.progress, desc="grid", unit="node", delay=2) as shown:
        nodes, modes = _resolved(line, shown)
    evidence, moments = nodes.log_evidence(), nodes.moments()
    coarse = nodes.every_second().moments()
    error = {name: (mean - coarse.mean[name]).abs() for name, mean in moments.mean.items()}
    u = nodes.draw(plan.num_draws)
    latents.warn_of_edges(u[:LOOKED_AT, None].to(line.dtype), "a grid")
    values = {name: value.unsqueeze(0) for name, value in line.at(u).values.items()}
    grid = nodes.normalised(count(line, modes), _sampled(latents))
    return Answer(values, moments, error, Evidence(evidence.item(), grid.error), grid)


def _sampled(latents: Latents) -> Evidence:
    """log p(x) by the guide's draws, and its standard error, however little that says of a poor guide."""
    log_weight = latents.log_weight(SCOUTS)
    return Evidence(log_evidence(log_weight).item(), log_evidence_se(log_weight).item())


class _Axis(NamedTuple):
    """One axis of a grid: where its nodes lie, and how much of it each stands for."""

    u: Tensor  # (G,): the nodes
    widths: Tensor  # (G,)

    def every_second(self) -> "_Axis":
        return _Axis(self.u[::2], 2 * self.widths[::2])

    def between(self, places: Tensor) -> Tensor:
        """Points at places that count nodes, fractions between them."""
        places = places.clamp(0, len(self.u) - 1)
        left = places.long().clamp_max(len(self.u) - 2)
        return torch.lerp(self.u[left], self.u[left + 1], places - left)


class _Nodes(NamedTuple):
    """A density scored at all nodes of a grid."""

    axes: tuple[_Axis, ...]
    points: Points  # of the G^D nodes, the last axis fastest

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.u) for axis in self.axes)

    def log_mass(self) -> Tensor:
        """log [h^D p(x, u_i)] of each node; they add up to p(x), the nodes at the edge being negligible."""
        widths = torch.cartesian_prod(*(axis.widths.log() for axis in self.axes)).reshape(len(self.points.u), -1)
        return self.points.log_density + widths.sum(-1)

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
        return weighted_moments(self.points.values, self.log_mass().softmax(0))

    def every_second(self) -> "_Nodes":
        """The same with twice the spacing."""
        rows = torch.arange(math.prod(self.shape), device=self.points.u.device).reshape(self.shape)
        rows = rows[(slice(None, None, 2),) * len(self.axes)].flatten()
        return _Nodes(tuple(axis.every_second() for axis in self.axes), self.points.take(rows))

    def draw(self, num_draws: int) -> Tensor:
        """Points (S, D) from the multilinear interpolant: a node, moved by a triangular jitter."""
        rows = torch.multinomial(self.log_mass().softmax(0), num_draws, replacement=True)
        chosen = torch.stack(torch.unravel_index(rows, self.shape), -1).double()
        chosen += torch.rand_like(chosen) + torch.rand_like(chosen) - 1
        return torch.stack([axis.between(x) for axis, x in zip(self.axes, chosen.unbind(-1), strict=True)], -1)

    def normalised(self, num_modes: int, sampled: Evidence) -> Grid:
        evidence, values = self.log_evidence(), self.points.values
        return Grid(
            tuple(axis.u.cpu() for axis in self.axes),
            {name: value.unflatten(0, self.shape).cpu() for name, value in values.items()},
            (self.points.log_joint - evidence).reshape(self.shape).cpu(),
            (self.log_mass() - evidence).reshape(self.shape).cpu(),
            evidence.item(),
            self.error(),
            num_modes,
            sampled,
        )


# --------------------------------------------------------------------------------------------- where, and how fine


class _Box(NamedTuple):
    """The part of unconstrained space that a grid covers: (D,) each."""

    low: Tensor
    high: Tensor


def _resolved(line: UnconstrainedDensity, shown: Any) -> tuple[_Nodes, Modes]:
    """Widens, narrows and refines a grid until it holds the density and resolves it, every mode that was met."""
    scouts = _scouted(line)
    level, least, most = LEVELS[line.latents.num_dims]
    box, modes = _Box(scouts.u.amin(0), scouts.u.amax(0)), Modes.none(line.latents.num_dims)
    for _ in range(ROUNDS):
        nodes, before = _scored(line, box, level, modes, shown), len(modes.u)
        modes = _modes(line, nodes, scouts, modes, box)
        fitted = _fitted(nodes, scouts, modes, box)
        broken = nodes.points.broken()
        if not _settled(fitted, box, needed=0.9 if len(broken) else 0.5):
            box = fitted
        elif len(broken):
            raise FloatingPointError(f"{nodes.points.describe(int(broken[0]))}; look at the model there")
        elif len(modes.u) != before:
            continue
        elif level == most or (level >= least and _resolves(nodes, modes)):
            return nodes, modes
        else:
            level += 1
    raise FloatingPointError(f"no grid holds log p(x, z): its box did not settle in {ROUNDS} rounds; use method='nuts'")


def _resolves(nodes: _Nodes, modes: Modes) -> bool:
    """Whether the error is small, and no mode lies between nodes too far apart for it."""
    apart = [
        axis.widths[torch.searchsorted(axis.u, x).clamp_max(len(axis.u) - 1)]
        for axis, x in zip(nodes.axes, modes.u.T.contiguous(), strict=True)
    ]
    near = bool((torch.stack(apart, -1) <= modes.width).all())
    return near and nodes.error() <= max(TOLERANCE, nodes.rounding())


def _modes(line: UnconstrainedDensity, nodes: _Nodes, scouts: Points, known: Modes, box: _Box) -> Modes:
    """The modes known so far and those that nodes or draws lead to, without the negligible."""
    axes = [axis.u for axis in nodes.axes]
    u, log_density = torch.cat([nodes.points.u, scouts.u]), torch.cat([nodes.points.log_density, scouts.log_density])
    modes = found_near(line, axes, u, log_density, known, box.high - box.low)
    return modes.above(modes.log_density.max().item() - DEPTH) if len(modes.u) else modes


def _scouted(line: UnconstrainedDensity) -> Points:
    """Draws of guide and prior, where they are finite in unconstrained space, and their density."""
    u = line.draws(SCOUTS)
    points = line.at(u[u.isfinite().all(-1)])
    for row in points.broken().tolist():
        raise FloatingPointError(f"{points.describe(row)}; look at the model there")
    return points


def _scored(line: UnconstrainedDensity, box: _Box, level: int, modes: Modes, shown: Any) -> _Nodes:
    size, most = 2**level + 1, LEVELS[line.latents.num_dims][-1]
    narrow = modes.width < 2 * (box.high - box.low) / 2**most  # for the finest grid of equal spacing
    axes = []
    for low, high, centres, widths, needed in zip(
        box.low, box.high, modes.u.T, modes.width.T, narrow.any(0), strict=True
    ):
        axes.append(_graded(low, high, size, centres, widths) if needed else _even(low, high, size))
    u = torch.stack(torch.meshgrid(*(axis.u for axis in axes), indexing="ij"), -1).flatten(0, -2)
    return _Nodes(tuple(axes), line.at(u, shown))


def _even(low: Tensor, high: Tensor, size: int) -> _Axis:
    nodes = torch.linspace(low.item(), high.item(), size, dtype=torch.float64)
    return _Axis(nodes, ((nodes[-1] - nodes[0]) / (size - 1)).expand(size))


def _graded(low: Tensor, high: Tensor, size: int, centres: Tensor, widths: Tensor) -> _Axis:
    """Nodes as dense around each of M modes as its width asks for, by bisection."""

    def t(u: Tensor) -> Tensor:
        return ((u[:, None] - centres) / widths).asinh().sum(-1)

    first, last = t(low[None]), t(high[None])
    places = torch.lerp(first, last, torch.linspace(0, 1, size, dtype=torch.float64))
    left, right = low.expand(size).clone(), high.expand(size).clone()
    for _ in range(64):
        middle = (left + right) / 2
        below = t(middle) < places
        left, right = torch.where(below, middle, left), torch.where(below, right, middle)
    nodes = (left + right) / 2
    nodes[0], nodes[-1] = low, high  # by which a density at the edge is known
    slope = 1 / ((nodes[:, None] - centres).square() + widths.square()).rsqrt().sum(-1)
    return _Axis(nodes, slope * (last - first) / (size - 1))


def _fitted(nodes: _Nodes, scouts: Points, modes: Modes, box: _Box) -> _Box:
    """The box around all that is not negligible and a cell more; wider by half where that reaches the edge."""
    u = torch.cat([nodes.points.u, scouts.u, modes.u])
    log_density = torch.cat([nodes.points.log_density, scouts.log_density, modes.log_density])
    log_density[nodes.points.broken()] = -math.inf  # beyond what numbers hold: outside the box, or it is an error
    kept = u[log_density > log_density.max() - DEPTH]
    if not len(kept):
        raise FloatingPointError("log p(x, z) is -inf at every latent tried: does the model's support hold the datum?")
    low, high, half = kept.amin(0), kept.amax(0), (box.high - box.low) / 2
    below, above = (torch.stack([axis.u.diff()[end] for axis in nodes.axes]) for end in (0, -1))
    return _Box(
        torch.where(low <= box.low, box.low - half, torch.maximum(low - below, box.low)),
        torch.where(high >= box.high, box.high + half, torch.minimum(high + above, box.high)),
    )


def _settled(fitted: _Box, box: _Box, needed: float) -> bool:
    """Whether nothing reaches the edge and so great a fraction of the box is needed."""
    widened = (fitted.low < box.low) | (fitted.high > box.high)
    return not bool((widened | (fitted.high - fitted.low < needed * (box.high - box.low))).any())
