"""The ladder: for each datum the first proposal that a pilot finds good enough for importance sampling of log p(x).

encoder -> Laplace -> Newton on the ELBO -> moments -> mixture -> annealing, each rung for what the last left
unreliable. What makes it honest: a proposal is adapted, then frozen; the draws of a pilot choose it, and enter no
estimate; K fresh draws do. Their mean weight is p(x) in expectation whatever was chosen, so its logarithm stays a
lower bound of log p(x) in expectation. Where these draws do not vouch for themselves, chains take their place: what is
kept of draws then leans downwards, if anywhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.random import is_common, seed_everything
from pyrovae.evidence import estimators
from pyrovae.evidence.ladder import chains
from pyrovae.evidence.ladder.adaptation.mixtures import Mixture
from pyrovae.evidence.ladder.chains import Taken
from pyrovae.evidence.ladder.climbed import EDGE, MODE, ROUTES, Climbed, summed
from pyrovae.evidence.ladder.estimates import (
    AWAY,
    Estimate,
    Pilot,
    by_mirrors,
    by_proposal,
    first_pilot,
    lacks_variance,
    misses_mode,
    num_turned,
    pilot,
    pilot_cost,
    rounded_away,
)
from pyrovae.evidence.ladder.points import Points, scored
from pyrovae.evidence.ladder.rungs import (
    FEW_COORDINATES,
    MOST_COORDINATES,
    OF_PRIOR,
    PILOT,
    RUNGS,
    STRICT,
    Beyond,
    Proposal,
    Rung,
    num_of,
    search_cost,
)
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.supports import require_unmasked

MORE = 3  # times K further draws, where K and the pilot do not agree whether they vouch for themselves
SAMPLED = 25  # rows of a block, whose pilots tell whether one of all is worth it
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
        num_kept: draws of the posterior of each datum that are handed back.
        starts: latents of a block, site -> (S, n, ...), from where modes are sought too.
    """

    num_particles: int
    method: str
    budget: float
    seed: int
    num_kept: int = 0
    starts: Values | None = None

    @property
    def routes(self) -> tuple[str, ...]:
        """Those that data may take."""
        return ROUTES[: METHODS[self.method] + 1]

    def block(
        self,
        latents: Latents,
        latents_of: Callable[[Tensor], Latents],
        index: int,
        unvouched: Tensor,
        tell: Tell = lambda route, num_data: None,
    ) -> tuple[list[Climbed], list[Taken]]:
        """Refines what the encoder gives for those data where the k-hat of its pilot is high or undefined.

        Args:
            latents: of a block of data.
            latents_of: what gives the latents of some of its rows.
            index: of the block.
            unvouched: whether the guide's K draws say of themselves that they are not to be trusted, (n,).
            tell: is told by which route how many data are done.

        Returns:
            What became of data; and the proposals from which some are to be annealed, as nothing vouches for these.
        """
        looked = self._looked(latents, latents_of, index, unvouched)
        passes, spent = self._passes(looked.first), looked.spent
        rows, stays = (~passes).nonzero().flatten(), passes.nonzero().flatten()
        kept = [Climbed.stayed(stays, spent[stays])]
        if not len(rows):
            return kept, []
        found, left = self._climbed(latents_of, looked, rows, index, tell)
        doubts = looked.first.misses & ~unvouched  # of draws that do not say so themselves
        return kept + [part for one in found for part in one.doubted_if_stayed(doubts)], left

    def _climbed(
        self, latents_of: Callable[[Tensor], Latents], looked: "_Looked", rows: Tensor, index: int, tell: Tell
    ) -> tuple[list[Climbed], list[Taken]]:
        """What becomes of rows for which the guide will not do."""
        first, by_guide, beyond, spent = looked
        some, spent = latents_of(rows), spent[rows]
        if not by_guide and not self.affords(spent, PILOT if some.sites else 1, some):
            return [Climbed.stayed(rows, spent)], []
        if not some.sites:
            tell("summed", len(rows))
            return [summed(some, rows, spent, self.num_kept)], []
        if some.num_dims > MOST_COORDINATES:
            return self.from_guide(some, rows, spent, (self.seed, index), tell), []
        seed_everything("ladder, encoder", self.seed, index)
        spent = spent if by_guide else spent + PILOT * some.num_values
        if beyond is None:
            draws = by_guide.of(rows) if by_guide else scored(some, PILOT)
            pays = self.affords(spent, OF_PRIOR, some)
            of_rows = Beyond.drawn(some, draws, search=False) if pays else Beyond(draws)
            spent = spent + of_rows.cost * some.num_values
        else:
            of_rows = beyond.of(rows)
        of_rows = of_rows.and_by(None if first.mirrors is None else first.mirrors[:, rows])
        start = _Start(rows, first.pareto_k[rows], of_rows, spent)
        return _Climbing(self, latents_of, some, start, (self.seed, index), tell).climbed()

    def _looked(
        self, latents: Latents, latents_of: Callable[[Tensor], Latents], index: int, unvouched: Tensor
    ) -> "_Looked":
        """What the guide's pilot says, and all that shows what its draws miss; that is spent."""
        seed_everything("ladder, first pilot", self.seed, index)
        first, by_guide, cost = first_pilot(latents, self.budget - self.num_particles)
        first = first.doubted(unvouched)
        spent = torch.full((latents.num_data,), float(self.num_particles + cost))
        beyond = self._beyond(latents, by_guide, spent)
        if by_guide:
            doubted = partial(self._doubted, latents_of=latents_of, by_guide=by_guide, spent=spent)
            first = doubted(first, self._passes(first) & ~first.exact, AWAY, lacks_variance)
            first = doubted(first, self._passes(first), num_turned(latents.shapes), by_mirrors)
        if beyond is not None:
            first = first.doubted(misses_mode(beyond))
        return _Looked(first, by_guide, beyond, spent)

    def _passes(self, pilot: Pilot) -> Tensor:
        """Whether the guide will do, or nothing can be done, (n,)."""
        return ~pilot.reached | (pilot.good(STRICT) & (self.method != "annealed"))

    def _beyond(self, latents: Latents, by_guide: Points | None, spent: Tensor) -> Beyond | None:
        """What the prior shows beyond the guide's draws, where half of the budget pays it; its cost is spent."""
        search = latents.num_values == 1
        starts = self.starts if search and latents.num_dims <= MOST_COORDINATES else None
        dear = not self.affords(spent, AWAY + 2 * search_cost(latents.num_dims, num_of(starts)), latents)
        if by_guide is None or dear or (starts is None and latents.num_dims > FEW_COORDINATES):
            return None
        found = Beyond.drawn(latents, by_guide, search=search, starts=starts)
        spent += found.cost * latents.num_values
        return found

    def _doubted(
        self,
        first: Pilot,
        those: Tensor,
        points: int,
        look: Callable[[Latents, Points], Tensor],
        *,
        latents_of: Callable[[Tensor], Latents],
        by_guide: Points,
        spent: Tensor,
    ) -> Pilot:
        """The guide's pilot, with what a look by so many more points says of some data, (n,) or by each mirror, (M, n);
        they are spent.
        """
        rows = those.nonzero().flatten()
        if not len(rows) or not self.affords(spent, points, latents := latents_of(rows)):
            return first
        found = look(latents, by_guide.of(rows))
        doubts = torch.zeros_like(first.reached).expand(*found.shape[:-1], -1).clone()
        doubts[..., rows] = found
        spent[rows] += points * latents.num_values
        return first.doubted(doubts) if doubts.dim() == 1 else first.doubted(doubts.any(0))._replace(mirrors=doubts)

    def affords(self, spent: Tensor, points: int, latents: Latents) -> bool:
        """Whether the budget has passes left for so many points of each datum."""
        return float(spent.max()) + points * latents.num_values <= self.budget

    def from_guide(
        self, latents: Latents, rows: Tensor, spent: Tensor, key: tuple[int, ...], tell: Tell
    ) -> list[Climbed]:
        """Chains that start at the guide, where no proposal is to be had."""
        least = chains.least_cost(chains.LEAPFROG, latents.shapes)
        if "annealed" not in self.routes or not self.affords(spent, least, latents):
            return [Climbed.stayed(rows, spent)]
        walk = partial(chains.by_gradients, latents, None, key)
        found, _ = chains.walked(latents, None, walk, rows, spent, self.budget, num_kept=self.num_kept)
        tell(found.route, len(rows))
        return found.parted()


class _Looked(NamedTuple):
    """What was seen of a block: the guide's pilot and draws, what lies beyond them, and what that cost each datum."""

    first: Pilot
    by_guide: Points | None
    beyond: Beyond | None
    spent: Tensor


class _Start(NamedTuple):
    """What is known of rows that are to climb: the guide's pilot, and what was spent on each."""

    rows: Tensor
    pareto_k: Tensor
    beyond: Beyond
    cost: Tensor


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
        self.rows, self.of_encoder, self.beyond, self.cost = start  # the last so far
        self.latents = latents
        self.near = Mixture.alone(self.beyond.begin)
        self.held, self.taken = list[_Held](), list[Taken]()

    def climbed(self) -> tuple[list[Climbed], list[Taken]]:
        """What became of the rows, those that stay at the encoder included; and those that nothing vouches for."""
        for number, rung in enumerate(RUNGS):
            if rung.route in self.plan.routes and len(self.rows) and self._worth(rung):
                self._try(rung, number)
        best, others = self._best()
        for held in best:
            unreliable = held.misses | ~(held.pareto_k <= estimators.pareto_k_threshold(PILOT))
            self._take(held, poor=unreliable | (self.plan.method == "annealed"))
        kinds = {held.kind: [one for one in self.taken if one.kind == held.kind] for held in self.taken}
        found, left = list[Climbed](), list[Taken]()
        for number, alike in enumerate(kinds.values()):
            drawn, unvouched = self._drawn(Taken.joined(alike), 0 if is_common() else number)
            found += drawn
            left += self._left(unvouched)
        if len(others):
            latents, key = self.latents_of(others), (*self.key, len(kinds))
            cost = self.cost[torch.searchsorted(self.rows, others)]
            found += self.plan.from_guide(latents, others, cost, key, self.tell)
        return [part for climbed in found for part in climbed.parted()], left

    def _left(self, taken: Taken) -> list[Taken]:
        """What is to be annealed of what nothing vouches for, if anything is."""
        dear = not self.plan.affords(taken.cost, chains.least_cost(chains.BY_DRAWS, self.latents.shapes), self.latents)
        poor = taken.poor & ("annealed" in self.plan.routes and not dear)
        self.tell(taken.route, int((~poor).sum()))
        return [taken.of(poor.nonzero().flatten())] if poor.any() else []

    def _worth(self, rung: Rung) -> bool:
        num_dims = self.latents.num_dims
        if rung.again and len(self.near.components) == 1:
            return False
        if rung.of_mirrors and not self.beyond.mirrored:
            return False
        if rung.of_modes and (self.beyond.modes is None or num_dims <= FEW_COORDINATES):
            return False
        return num_dims <= rung.most and self._affords(rung.cost(num_dims) + self._pilot_cost + self.plan.num_particles)

    def _affords(self, points: int) -> bool:
        return self.plan.affords(self.cost, points, self.latents)

    def _try(self, rung: Rung, number: int) -> None:
        """One rung for all rows that are left; those for which its pilot is good are done."""
        seed_everything("ladder, rung", *self.key, number)
        self.near = rung.adapt(self.latents, self.near, self.beyond).finite_or(self.near)
        self.cost = self.cost + rung.cost(self.latents.num_dims) * self.latents.num_values
        if rung.tentative and self._passed_over(rung, number):
            return
        seed_everything("ladder, pilot", *self.key, number)
        proposal = self._proposal
        looked = pilot(self.latents, proposal, self.beyond)
        self.cost = self.cost + self._pilot_cost * self.latents.num_values
        self.beyond = self.beyond.and_by(looked.mirrors)
        held = _Held(self.rows, looked.pareto_k, looked.misses, proposal, rung.route)
        self.held.append(held)
        if self.plan.method == "annealed":
            return
        good = looked.good(rung.bar)
        for exact, rows in ((True, looked.exact), (False, good & ~looked.exact)):
            if rows.any():
                chosen = held.at(self.rows[rows])
                self._take(chosen._replace(proposal=chosen.proposal._replace(exact=exact)))
        self._keep(~good)

    @property
    def _pilot_cost(self) -> int:
        return pilot_cost(self.latents.shapes, many=self.beyond.mirrored)

    @property
    def _proposal(self) -> Proposal:
        """The last; a mixture keeps the modes that were found, one Gaussian is to do without them."""
        return Proposal(self.near, self.beyond.modes if len(self.near.components) > 1 else None)

    def _passed_over(self, rung: Rung, number: int) -> bool:
        """Whether a few rows show that a pilot of all costs more than the next rung costs those that would pass it."""
        after, num_rows = RUNGS[number + 1], len(self.rows)
        goes_on = after.route in self.plan.routes and self._worth(after) and self.plan.method != "annealed"
        if num_rows < 4 * SAMPLED or not goes_on or is_common():
            return False
        some = torch.arange(0, num_rows, num_rows // SAMPLED, device=self.rows.device)
        latents = self.latents_of(self.rows[some])
        seed_everything("ladder, sample", *self.key, number)
        looked = pilot(latents, self._proposal.of(some), self.beyond.of(some))
        of_pilot = self._pilot_cost
        self.cost[some] += of_pilot * latents.num_values
        repaid = of_pilot / (after.cost(latents.num_dims) + of_pilot)
        return bool(looked.good(rung.bar).double().mean() < repaid)

    def _take(self, held: _Held, poor: Tensor | None = None) -> None:
        """Keeps a proposal until the draws of all are made together; poor where its own pilot does not vouch for it."""
        cost, none = self.cost[torch.searchsorted(self.rows, held.rows)], torch.zeros_like(held.misses)
        poor = none if poor is None else poor
        self.taken.append(Taken(held.rows, held.proposal, held.route, poor, cost, held.misses))

    def _drawn(self, taken: Taken, number: int) -> tuple[list[Climbed], Taken]:
        """Fresh draws of a frozen proposal: K, and more beside them where these and the pilot do not say the same.

        Returns:
            What became of the data, where what comes later counts; and as poor those that nothing vouches for.
        """
        drawn, taken, before = self._fresh(taken, self.plan.num_particles, ("ladder, draws", *self.key, number))
        decided = taken.misses | (self.plan.method == "annealed")
        more = ((drawn.unvouched ^ taken.poor) & ~decided).nonzero().flatten()
        taken = taken._replace(poor=taken.poor | drawn.unvouched)
        num_more = MORE * self.plan.num_particles
        if not len(more) or not self.plan.affords(taken.cost[more], num_more, self.latents):
            return [drawn], taken
        key = "ladder, more draws", *self.key, number
        again, some, _ = self._fresh(taken.of(more), num_more, key, before.of(more))
        taken.poor[more], taken.cost[more] = again.unvouched, some.cost
        return [drawn, again], taken

    def _fresh(
        self, taken: Taken, num_draws: int, key: tuple[Any, ...], before: Estimate | None = None
    ) -> tuple[Climbed, Taken, Estimate]:
        """So many draws, beside those before: what they say of the data, what these have cost, and all of them."""
        seed_everything(*key)
        latents = self.latents_of(taken.rows)
        estimate = by_proposal(latents, taken.proposal, num_draws, keep=self.plan.num_kept > 0).beside(before)
        taken = taken._replace(cost=taken.cost + num_draws * latents.num_values)
        drawn = Climbed(taken.rows, estimate.columns(), taken.route, taken.cost)
        drawn = drawn.doubted(taken.misses, MODE).doubted(rounded_away(latents, taken.proposal.students), EDGE)
        return drawn._replace(draws=estimate.draws(latents, self.plan.num_kept)), taken, estimate

    def _keep(self, left: Tensor) -> None:
        if left.all():
            return
        self.rows, self.of_encoder, self.near = self.rows[left], self.of_encoder[left], self.near.of(left)
        self.beyond, self.cost = self.beyond.of(left), self.cost[left]
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
