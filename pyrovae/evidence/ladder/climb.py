"""The ladder: for each datum the first proposal that a pilot finds good enough for importance sampling of log p(x).

encoder -> Laplace -> Newton on the ELBO -> moments -> mixture -> annealing, each rung for what the last left
unreliable. What makes it honest: a proposal is adapted, then frozen; the draws of a pilot choose it, and enter no
estimate; K fresh draws do. Their mean weight is p(x) in expectation whatever was chosen, so its logarithm stays a
lower bound of log p(x) in expectation. Where these draws do not vouch for themselves, chains take their place: what is
kept of draws then leans downwards, if anywhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.random import seed_everything
from pyrovae.evidence.ladder import chains
from pyrovae.evidence.ladder.adaptation import Mixture, started
from pyrovae.evidence.ladder.climbed import NAN, ROUTES, Climbed, summed
from pyrovae.evidence.ladder.estimates import (
    AWAY,
    PILOT,
    Estimate,
    by_proposal,
    first_pilot,
    has_variance,
    pilot,
    rounded_away,
)
from pyrovae.evidence.ladder.points import Points, scored
from pyrovae.evidence.ladder.rungs import MOST_COORDINATES, RUNGS, STRICT, Proposal, Rung
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.supports import require_unmasked

ALIKE = 0.3  # k-hats of pilots that tell nothing of which is better: a later proposal then covers more
Tell = Callable[[str, int], Any]
METHODS = {"importance": 0, "laplace": 1, "adaptive": 4, "auto": 5, "annealed": 5}  # the highest of the routes


def require_climbable(latents: Latents) -> None:
    """Raises InputError, naming the site, unless guide and model have densities over one unconstrained space."""
    latents.require_bijection("a better proposal")
    latents.require_guide_density()
    require_unmasked(latents.particles.example, latents.sites)


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
        spent, bad = self.num_particles + PILOT, first.reached & (~first.good(STRICT) | (self.method == "annealed"))
        if by_guide and not bad.all() and self.affords(spent, AWAY, latents):
            first, spent = first.doubted(~first.exact & ~has_variance(latents, by_guide)), spent + AWAY
            bad |= first.reached & ~first.good(STRICT)
        kept = [Climbed.stayed((~bad).nonzero().flatten(), spent)]
        if not bad.any():
            return kept
        rows = bad.nonzero().flatten()
        if not (some := latents_of(rows)).sites:
            tell("summed", len(rows))
            return [*kept, summed(some, rows, spent)]
        if some.num_dims > MOST_COORDINATES:
            return kept + self.from_guide(some, rows, spent, (self.seed, index), tell)
        seed_everything("ladder, encoder", self.seed, index)
        spent += 0 if by_guide else PILOT * some.num_values
        by_guide = by_guide.of(rows) if by_guide else scored(some, PILOT)
        start = _Start(rows, first.pareto_k[rows], by_guide, spent)
        return kept + _Climbing(self, latents_of, some, start, (self.seed, index), tell).climbed()

    def affords(self, spent: float, points: int, latents: Latents) -> bool:
        """Whether the budget has passes left for so many points."""
        return spent + points * latents.num_values <= self.budget

    def from_guide(self, latents: Latents, rows: Tensor, spent: int, key: tuple[int, ...], tell: Tell) -> list[Climbed]:
        """Chains that start at the guide, where no proposal is to be had."""
        if "annealed" not in self.routes or not self.affords(spent, chains.LEAPFROG.cost, latents):
            return [Climbed.stayed(rows, spent)]
        spend = torch.full((len(rows),), float(spent))
        found, _ = self.annealed(latents, partial(chains.by_gradients, latents, None, key), rows, spend)
        tell(found.route, len(rows))
        return [found]

    def annealed(
        self, latents: Latents, walk: Callable[[float], Estimate], rows: Tensor, spent: Tensor
    ) -> tuple[Climbed, Tensor | None]:
        """Chains that may cost so much for each datum, and their log weights; nothing where a density is NaN."""
        try:
            estimate = walk((self.budget - float(spent.max())) / latents.num_values)
        except FloatingPointError:
            return Climbed.stayed(rows, spent, NAN), None
        cost = spent + estimate.cost * latents.num_values
        return Climbed(rows, estimate.columns(), "annealed", cost), torch.cat(estimate.strata)


class _Start(NamedTuple):
    """What is known of rows that are to climb: the guide's pilot, and what was spent on each."""

    rows: Tensor
    pareto_k: Tensor
    by_guide: Points
    cost: int


class _Held(NamedTuple):
    """A proposal for some rows, the k-hat of its pilot for each, and whether that showed more than it finds."""

    rows: Tensor
    pareto_k: Tensor
    misses: Tensor
    proposal: Proposal
    route: str

    def at(self, rows: Tensor) -> "_Held":
        places = torch.searchsorted(self.rows, rows)
        return _Held(rows, self.pareto_k[places], self.misses[places], self.proposal.of(places), self.route)


class _Taken(NamedTuple):
    """A proposal that is taken for some rows, for lack of a better one or not, and what each of them has cost."""

    rows: Tensor
    proposal: Proposal
    route: str
    poor: Tensor
    cost: Tensor

    @property
    def kind(self) -> tuple[str, bool, int]:
        """What must be one for draws to be made together."""
        return self.route, self.proposal.exact, len(self.proposal.mixture.components)

    @classmethod
    def joined(cls, taken: "Sequence[_Taken]") -> "_Taken":
        """Those of one kind."""
        rows, poor, cost = (torch.cat([getattr(one, name) for one in taken]) for name in ("rows", "poor", "cost"))
        proposal = taken[0].proposal._replace(mixture=Mixture.joined([one.proposal.mixture for one in taken]))
        return cls(rows, proposal, taken[0].route, poor, cost)

    def of(self, places: Tensor) -> "_Taken":
        """Some of them."""
        return _Taken(self.rows[places], self.proposal.of(places), self.route, self.poor[places], self.cost[places])


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
        self.held, self.taken = list[_Held](), list[_Taken]()

    def climbed(self) -> list[Climbed]:
        """What became of the rows, those that stay at the encoder included; what comes later counts."""
        for number, rung in enumerate(RUNGS):
            if rung.route in self.plan.routes and len(self.rows) and self._worth(rung):
                self._try(rung, number)
        best, others = self._best()
        for held in best:
            self._take(held, poor=True)
        kinds = {held.kind: [one for one in self.taken if one.kind == held.kind] for held in self.taken}
        found = [
            one for number, alike in enumerate(kinds.values()) for one in self._vouched(_Taken.joined(alike), number)
        ]
        if len(others):
            latents, key = self.latents_of(others), (*self.key, len(kinds))
            found += self.plan.from_guide(latents, others, self.cost, key, self.tell)
        return [part for climbed in found for part in climbed.parted()]

    def _vouched(self, taken: _Taken, number: int) -> list[Climbed]:
        """Fresh draws of a frozen proposal; chains from it where its pilot or these draws do not vouch for them."""
        plan, key, found, left = self.plan, (*self.key, number), list[Climbed](), taken.poor
        if plan.method != "annealed" or not self._affords(chains.BY_DRAWS.cost):
            found.append(drawn := self._drawn(taken, number))
            left, taken = left | drawn.unvouched, taken._replace(cost=drawn.cost)
        before: Tensor | None = None  # log weights of chains, to which more may be added
        for stage, (walk, least) in enumerate(chains.STAGES):
            if "annealed" not in plan.routes or not plan.affords(float(taken.cost.max()), least.cost, self.latents):
                break
            self.tell(taken.route, int((~left).sum()))
            if not len((taken := taken.of(places := left.nonzero().flatten())).rows):
                return found
            latents, before = self.latents_of(taken.rows), None if before is None else before[:, places]
            if not stage:
                taken = self._broadened(taken, latents, key)
            walked = partial(walk, latents, taken.proposal, (*key, stage), before=before)
            climbed, before = plan.annealed(latents, walked, taken.rows, taken.cost)
            if before is None:
                found.append(climbed if found else self._drawn(taken, number))
                break
            found.append(climbed.doubted(rounded_away(latents, taken.proposal.students)))
            left, taken = climbed.unvouched, taken._replace(cost=climbed.cost, route=climbed.route)
        self.tell(taken.route, len(taken.rows))
        return found

    def _broadened(self, taken: _Taken, latents: Latents, key: tuple[int, ...]) -> _Taken:
        """With a mixture in place of one Gaussian, where it is worth it: chains reach only what they start near."""
        mixture, num_dims = taken.proposal.mixture, latents.num_dims
        rungs = [rung for rung in RUNGS if rung.route == "mixture" and num_dims <= rung.most]
        cost = (PILOT + sum(rung.cost(num_dims) for rung in rungs)) * latents.num_values
        least = chains.BY_DRAWS.cost * latents.num_values
        if not rungs or len(mixture.components) > 1 or float(taken.cost.max()) + cost + least > self.plan.budget:
            return taken
        seed_everything("ladder, broadened", *key)
        by_guide = scored(latents, PILOT)
        for rung in rungs:
            mixture = rung.adapt(latents, mixture, by_guide).finite_or(mixture)
        return taken._replace(proposal=Proposal(mixture), cost=taken.cost + cost)

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
        held = _Held(self.rows, looked.pareto_k, looked.misses, Proposal(self.near), rung.route)
        self.held.append(held)
        if self.plan.method == "annealed":
            return
        good = looked.good(rung.bar)
        for exact, rows in ((True, looked.exact), (False, good & ~looked.exact)):
            if rows.any():
                chosen = held.at(self.rows[rows])
                self._take(chosen._replace(proposal=chosen.proposal._replace(exact=exact)))
        self._keep(~good)

    def _take(self, held: _Held, *, poor: bool = False) -> None:
        """Keeps a proposal until the draws of all are made together."""
        cost = torch.full_like(held.pareto_k, self.cost)
        self.taken.append(_Taken(held.rows, held.proposal, held.route, torch.full_like(held.rows, poor).bool(), cost))

    def _drawn(self, taken: _Taken, number: int) -> Climbed:
        """Fresh draws of a frozen proposal."""
        seed_everything("ladder, draws", *self.key, number)
        latents, num_draws = self.latents_of(taken.rows), self.plan.num_particles
        estimate = by_proposal(latents, taken.proposal, num_draws)
        drawn = Climbed(taken.rows, estimate.columns(), taken.route, taken.cost + num_draws * latents.num_values)
        return drawn.doubted(rounded_away(latents, taken.proposal.students))

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
        pareto_k, misses = (torch.stack([getattr(held, name) for held in table]) for name in ("pareto_k", "misses"))
        pareto_k = torch.where(misses & ~misses.all(0), math.inf, pareto_k)
        least = pareto_k.amin(0)
        which = (pareto_k <= least + ALIKE).double().cumsum(0).argmax(0)  # the last of them
        better = (least < self.of_encoder.nan_to_num(math.inf) + ALIKE) | (self.plan.method == "annealed")
        groups = [(held, better & (which == number)) for number, held in enumerate(table)]
        return [held.at(self.rows[rows]) for held, rows in groups if rows.any()], self.rows[~better]
