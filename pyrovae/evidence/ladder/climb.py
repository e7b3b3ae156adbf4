"""The ladder: for each datum the first proposal that a pilot finds good enough for importance sampling of log p(x).

encoder -> Laplace -> Newton on the ELBO -> moments -> mixture -> annealing, each rung for what the last left
unreliable. What makes it honest: a proposal is adapted, then frozen; the draws of a pilot choose it, and enter no
estimate; K fresh draws do. Their mean weight is p(x) in expectation whatever was chosen, so its logarithm stays a
lower bound of log p(x) in expectation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.random import seed_everything
from pyrovae.evidence.annealing.paths import Path, from_guide
from pyrovae.evidence.ladder.adaptation import Mixture, started
from pyrovae.evidence.ladder.estimates import (
    ANNEALING,
    PILOT,
    annealed,
    by_proposal,
    first_pilot,
    path_from,
    pilot,
    rounded_away,
)
from pyrovae.evidence.ladder.points import Points, scored
from pyrovae.evidence.ladder.rungs import MOST_COORDINATES, RUNGS, STRICT, Proposal, Rung
from pyrovae.evidence.ladder.summed import Summed
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.supports import require_unmasked

ROUTES = ("encoder", "Laplace", "Newton", "moments", "mixture", "annealed", "summed")
EDGE = (
    "posteriors of some reach the edge of a support, where numbers of the programs' dtype end and what lies beyond is "
    "lost; use dtype='float64', or draw that site on the unconstrained scale"
)
NAN = "a density is NaN at draws of better proposals for some of them"
Tell = Callable[[str, int], Any]
METHODS = {"importance": 0, "laplace": 1, "adaptive": 4, "auto": 5, "annealed": 5}  # the highest of the routes


def require_climbable(latents: Latents) -> None:
    """Raises InputError, naming the site, unless guide and model have densities over one unconstrained space."""
    latents.require_bijection("a better proposal")
    latents.require_guide_density()
    require_unmasked(latents.particles.example, latents.sites)


class Climbed(NamedTuple):
    """What became of some data of a block: what a report says of their weights, each (m,), and how they came by it.

    Those that stay at the encoder have no columns, but a cost; and a reason where something failed.
    """

    rows: Tensor  # (m,), of the block
    columns: dict[str, Tensor]
    route: str
    cost: Tensor  # (m,), decoder passes
    reason: str | None = None

    @classmethod
    def stayed(cls, rows: Tensor, cost: Tensor | float, reason: str | None = None) -> "Climbed":
        """Rows that stay at the encoder, each at a cost."""
        return cls(rows, {}, ROUTES[0], torch.as_tensor(cost, dtype=torch.float64).expand(len(rows)), reason)

    def doubted(self, away: Tensor) -> "Climbed":
        """With an undefined k-hat where a posterior lies on the edge of what numbers hold."""
        if not away.any():
            return self
        columns = self.columns | {"pareto_k": torch.where(away, math.nan, self.columns["pareto_k"])}
        return self._replace(columns=columns, reason=EDGE)

    def parted(self) -> list["Climbed"]:
        """Those at whose draws no density was NaN; the others keep what the encoder gave."""
        fine = ~self.columns["log_evidence"].isnan() if self.columns else torch.ones(len(self.rows), dtype=torch.bool)
        if fine.all():
            return [self]
        columns = {name: column[fine] for name, column in self.columns.items()}
        known = self._replace(rows=self.rows[fine], columns=columns, cost=self.cost[fine])
        return [known, Climbed.stayed(self.rows[~fine], self.cost[~fine], NAN)]


@dataclass(frozen=True)
class Climb:
    """How data may climb: the settings that every block shares.

    Attributes:
        num_particles: K, fresh draws of the final proposal.
        method: of METHODS.
        budget: decoder passes for each datum, at most.
        seed: of the draws.
    """

    num_particles: int
    method: str
    budget: float
    seed: int

    @property
    def routes(self) -> tuple[str, ...]:
        """Those that data may take."""
        return ROUTES[: METHODS[self.method] + 1]

    def block(
        self,
        latents: Latents,
        latents_of: Callable[[Tensor], Latents],
        index: int,
        tell: Tell = lambda route, num_data: None,
    ) -> list[Climbed]:
        """Refines what the encoder gives for those data where the k-hat of its pilot is high or undefined.

        Args:
            latents: of a block of data.
            latents_of: what gives the latents of some of its rows.
            index: of the block.
            tell: is told by which route how many data are done.
        """
        seed_everything("ladder, first pilot", self.seed, index)
        first, by_guide = first_pilot(latents)
        bad = first.reached & (~first.good(STRICT) | (self.method == "annealed"))
        if not bad.any():
            return []
        rows = bad.nonzero().flatten()
        if not (some := latents_of(rows)).sites:
            tell("summed", len(rows))
            return [_summed(some, rows, self.num_particles + PILOT)]
        if some.num_dims > MOST_COORDINATES:
            return self.from_guide(some, rows, self.num_particles + PILOT, (self.seed, index), tell)
        seed_everything("ladder, encoder", self.seed, index)
        spent = self.num_particles + PILOT + (0 if by_guide else PILOT * some.num_values)
        by_guide = by_guide.of(rows) if by_guide else scored(some, PILOT)
        start = _Start(rows, first.pareto_k[rows], by_guide, spent)
        return _Climbing(self, latents_of, some, start, (self.seed, index), tell).climbed()

    def affords(self, spent: float, points: int, latents: Latents) -> bool:
        """Whether the budget has passes left for so many points."""
        return spent + points * latents.num_values <= self.budget

    def from_guide(self, latents: Latents, rows: Tensor, spent: int, key: tuple[int, ...], tell: Tell) -> list[Climbed]:
        """Chains that start at the guide, where no proposal is to be had."""
        if "annealed" not in self.routes or not self.affords(spent, ANNEALING, latents):
            return [Climbed.stayed(rows, spent)]
        return self.annealed(latents, from_guide(latents), rows, spent, key, tell)

    def annealed(
        self, latents: Latents, path: Path, rows: Tensor, spent: int, key: tuple[int, ...], tell: Tell
    ) -> list[Climbed]:
        """Chains along a path; where a density is NaN on the way, nothing."""
        most = (self.budget - spent) / latents.num_values
        try:
            estimate = annealed(latents, path, key, most)
        except FloatingPointError:
            return [Climbed.stayed(rows, spent, NAN)]
        tell("annealed", len(rows))
        cost = torch.full((len(rows),), float(spent + estimate.cost * latents.num_values))
        return [Climbed(rows, estimate.columns(), "annealed", cost)]


def _summed(latents: Latents, rows: Tensor, cost: int) -> Climbed:
    """The sum over all values of discrete latents: log p(x) itself."""
    assert isinstance(latents, Summed)
    log_evidence = latents.log_evidence()
    nothing, exact = torch.zeros_like(log_evidence), torch.full_like(log_evidence, -math.inf)
    columns = dict.fromkeys(("log_evidence", "log_evidence_jackknife", "log_evidence_psis"), log_evidence)
    columns |= {"mc_se_log_evidence": nothing, "skewness_log_evidence": nothing, "pareto_k": exact}
    columns |= dict.fromkeys(("ess", "num_weights"), nothing + latents.num_values)
    return Climbed(rows, columns, "summed", nothing + cost + latents.num_values)


class _Start(NamedTuple):
    """What is known of rows that are to climb: the guide's pilot, and what was spent on each."""

    rows: Tensor
    pareto_k: Tensor
    by_guide: Points
    cost: int


class _Held(NamedTuple):
    """A proposal for some rows, the k-hat of its pilot for each, and what each has cost once it is taken."""

    rows: Tensor
    pareto_k: Tensor
    proposal: Proposal
    route: str
    cost: Tensor | None = None

    def at(self, rows: Tensor) -> "_Held":
        places = torch.searchsorted(self.rows, rows)
        return _Held(rows, self.pareto_k[places], self.proposal.of(places), self.route)

    @property
    def kind(self) -> tuple[str, bool, int]:
        """What must be one for draws to be made together."""
        return self.route, self.proposal.exact, len(self.proposal.mixture.components)


def _together(held: Sequence[_Held]) -> _Held:
    """Proposals of one kind for unlike rows."""
    rows, pareto_k, cost = (torch.cat([getattr(o, name) for o in held]) for name in ("rows", "pareto_k", "cost"))
    mixture = Mixture.joined([one.proposal.mixture for one in held])
    return _Held(rows, pareto_k, held[0].proposal._replace(mixture=mixture), held[0].route, cost)


class _Climbing:
    """Rows of a block on their way up: those for which no proposal was good enough so far."""

    def __init__(
        self,
        plan: Climb,
        latents_of: Callable[[Tensor], Latents],
        latents: Latents,
        start: _Start,
        key: tuple[int, int],
        tell: Tell,
    ) -> None:
        self.plan, self.latents_of, self.key, self.tell = plan, latents_of, key, tell
        self.rows, self.of_encoder, self.by_guide, self.cost = start  # the cost of each datum, so far
        self.latents = latents
        self.near = Mixture.alone(started(self.by_guide.u, self.by_guide.log_joint))
        self.held, self.taken = list[_Held](), list[_Held]()

    def climbed(self) -> list[Climbed]:
        """What became of the rows, those that stay at the encoder included."""
        for number, rung in enumerate(RUNGS):
            if rung.route in self.plan.routes and len(self.rows) and self._worth(rung):
                self._try(rung, number)
        found, (best, others) = list[Climbed](), self._best()
        anneals = "annealed" in self.plan.routes and self._affords(ANNEALING)
        for number, held in enumerate(best):
            found += self._anneal(held, number) if anneals else self._take(held)
        if len(others):
            latents, key = self.latents_of(others), (*self.key, len(best))
            found += self.plan.from_guide(latents, others, self.cost, key, self.tell)
        kinds = {held.kind: [one for one in self.taken if one.kind == held.kind] for held in self.taken}
        found += [self._drawn(_together(alike), number) for number, alike in enumerate(kinds.values())]
        return [part for climbed in found for part in climbed.parted()]

    def _anneal(self, held: _Held, number: int) -> list[Climbed]:
        """Chains from a proposal; where they fail, its draws."""
        latents = self.latents_of(held.rows)
        path, key = path_from(latents, held.proposal), (*self.key, number)
        found = self.plan.annealed(latents, path, held.rows, self.cost, key, self.tell)
        if found[0].reason:
            return self._take(held)
        away = rounded_away(latents, held.proposal.students)
        return [one.doubted(away) for one in found]

    def _worth(self, rung: Rung) -> bool:
        num_dims = self.latents.num_dims
        return num_dims <= rung.most and self._affords(rung.cost(num_dims) + PILOT + self.plan.num_particles)

    def _affords(self, points: int) -> bool:
        return self.plan.affords(self.cost, points, self.latents)

    def _try(self, rung: Rung, number: int) -> None:
        """One rung for all rows that are left; those for which its pilot is good are done."""
        seed_everything("ladder, rung", *self.key, number)
        self.near = rung.adapt(self.latents, self.near, self.by_guide).finite_or(self.near)
        seed_everything("ladder, pilot", *self.key, number)
        looked = pilot(self.latents, Proposal(self.near), self.by_guide)
        self.cost += (rung.cost(self.latents.num_dims) + PILOT) * self.latents.num_values
        held = _Held(self.rows, looked.pareto_k, Proposal(self.near), rung.route)
        self.held.append(held)
        if self.plan.method == "annealed":
            return
        good = looked.good(rung.bar)
        for exact, rows in ((True, looked.exact), (False, good & ~looked.exact)):
            if rows.any():
                chosen = held.at(self.rows[rows])
                self._take(chosen._replace(proposal=chosen.proposal._replace(exact=exact)))
        self._keep(~good)

    def _take(self, held: _Held) -> list[Climbed]:
        """Keeps a proposal until the draws of all are made together: nothing, so far."""
        draws = self.plan.num_particles * self.latents.num_values
        self.taken.append(held._replace(cost=torch.full_like(held.pareto_k, self.cost + draws)))
        self.tell(held.route, len(held.rows))
        return []

    def _drawn(self, held: _Held, number: int) -> Climbed:
        """Fresh draws of a frozen proposal."""
        seed_everything("ladder, draws", *self.key, number)
        latents = self.latents_of(held.rows)
        estimate = by_proposal(latents, held.proposal, self.plan.num_particles)
        assert held.cost is not None
        drawn = Climbed(held.rows, estimate.columns(), held.route, held.cost)
        return drawn.doubted(rounded_away(latents, held.proposal.students))

    def _keep(self, left: Tensor) -> None:
        if left.all():
            return
        self.rows, self.of_encoder, self.near = self.rows[left], self.of_encoder[left], self.near.of(left)
        self.by_guide = self.by_guide.of(left)
        if len(self.rows):
            self.latents = self.latents_of(self.rows)

    def _best(self) -> tuple[list[_Held], Tensor]:
        """For the rows that are left the proposals whose pilots were best; and the rows where the encoder's was."""
        if not len(self.rows) or not self.held:
            return [], self.rows
        table = [held.at(self.rows) for held in self.held]
        least, which = torch.stack([held.pareto_k for held in table]).min(0)
        better = (least < self.of_encoder.nan_to_num(math.inf)) | (self.plan.method == "annealed")
        groups = [(held, better & (which == number)) for number, held in enumerate(table)]
        return [held.at(self.rows[rows]) for held, rows in groups if rows.any()], self.rows[~better]
