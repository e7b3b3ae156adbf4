r"""Annealing from a frozen proposal to the posterior, by chains that draws of the proposal move, or gradients do.

What is nearly the posterior also moves chains well, for one decoder pass a step, where a gradient counts for three.
Half of the steps are fresh draws u' of the proposal g, accepted by f_t(u') g(u) / f_t(u) g(u'); half start from where
a chain is, with one of its Gaussians N(m, L L') and a random 0 < b < 1,

.. math:: u' = m + \sqrt{1 - b^2} \, (u - m) + b L e, \qquad e \sim N(0, I)

which leaves N as it is (preconditioned Crank-Nicolson) and, accepted by f_t(u') N(u) / f_t(u) N(u'), leaves f_t as
it is.

References:
    Cotter, Roberts, Stuart and White (2013), MCMC methods for functions: modifying old algorithms to make them faster,
    Statistical Science 28:424.
    Tierney (1994), Markov chains for exploring posterior distributions, Annals of Statistics 22:1701.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Categorical

from pyrovae.base.random import seed_everything
from pyrovae.evidence.annealing.paths import Path, Route, from_guide, weigh, where
from pyrovae.evidence.annealing.tuning import Lengths, pilot_cost, run_cost, spread_of, tune
from pyrovae.evidence.ladder.adaptation.mirrors import Shapes, images, mirrors
from pyrovae.evidence.ladder.climbed import EDGE, MODE, Climbed
from pyrovae.evidence.ladder.estimates import DEFENCE, Estimate, defended, is_rare, num_guide, rounded_away
from pyrovae.evidence.ladder.kernels import by_parts
from pyrovae.evidence.ladder.points import Points, densities, scored
from pyrovae.evidence.ladder.rungs import PILOT, RUNGS, WIDENED, Beyond, Proposal
from pyrovae.evidence.proposals.students import Students
from pyrovae.pairs.latents import Latents


class Taken(NamedTuple):
    """A proposal that is taken for some rows, for lack of a better one or not, and what each of them has cost."""

    rows: Tensor
    proposal: Proposal
    route: str
    poor: Tensor
    cost: Tensor
    misses: Tensor  # whether other draws found a mode that it does not draw

    @property
    def start(self) -> tuple[bool, int]:
        """What must be one for chains to start together."""
        return self.proposal.exact, len(self.proposal.whole.components)

    @property
    def kind(self) -> tuple[str, bool, int]:
        """What must be one for draws to be made together."""
        return self.route, *self.start

    @classmethod
    def joined(cls, taken: "Sequence[Taken]") -> "Taken":
        """Those of one kind."""
        rows, poor, cost, misses = (
            torch.cat([getattr(one, name) for one in taken]) for name in ("rows", "poor", "cost", "misses")
        )
        return cls(rows, Proposal.joined([one.proposal for one in taken]), taken[0].route, poor, cost, misses)

    def of(self, places: Tensor) -> "Taken":
        """Some of them."""
        poor, cost, misses = (part[places] for part in (self.poor, self.cost, self.misses))
        return Taken(self.rows[places], self.proposal.of(places), self.route, poor, cost, misses)


@dataclass(frozen=True)
class Plan:
    """How many chains there are and by how many temperatures they walk; decoder passes for each datum."""

    num_chains: int
    least: int  # temperatures, at least and at most
    most: int
    variance: float  # of log weights, for which a pilot says how many temperatures it takes
    of_pilot: int
    of_each: int  # temperature

    def __post_init__(self) -> None:
        assert num_guide(self.num_chains) == DEFENCE * self.num_chains  # or weights would be biased

    @property
    def cost(self) -> int:
        """At least."""
        return self.of_pilot + self.least * self.of_each

    def num_temperatures(self, wanted: int, most: float) -> int:
        """As wanted, within bounds and within so many passes."""
        affordable = self.most if most == math.inf else int((most - self.of_pilot) // self.of_each)
        return min(max(wanted, self.least), self.most, affordable)


NUM_LEAPFROG, PILOT_TEMPERATURES = 5, 16
LEAPFROG = Plan(130, 10, 200, 0.1, pilot_cost(PILOT_TEMPERATURES, NUM_LEAPFROG), run_cost(1, 130, NUM_LEAPFROG))
STEPS, PILOT_CHAINS = 2, 32  # of the pilot at each temperature
BY_DRAWS = Plan(400, 20, 40, 0.2, (PILOT_TEMPERATURES * STEPS - 1) * PILOT_CHAINS, 400)
LOCAL = 0.1, 0.7  # b, from the one to the other
LOOKS, ALIKE = 100, 0.1  # ends of chains that are turned, and a part of the density there that is much the same


def path_from(latents: Latents, proposal: Proposal) -> Path:
    """From the mixture of a frozen proposal and the encoder to the posterior.

    Draws of the encoder outside of the support, which no point stands for, are at infinity, where the model has no
    density.
    """
    students = proposal.students

    def draw(num_chains: int) -> Tensor:
        size = num_guide(num_chains)
        parts = [students.sample(num_chains - size)]
        if size:
            u, joint = latents.moved(latents.draw(size))
            parts.append(torch.where((joint.log_prior == -math.inf)[..., None], math.inf, u))
        return torch.cat(parts)

    def start_and_ratio(u: Tensor) -> tuple[Tensor, Tensor]:
        state = _state(students, u, partial(densities, latents))
        return state.log_start, state.log_ratio

    return Path(draw, start_and_ratio)


class _State(NamedTuple):
    """Where K chains of n data stand: points (K, n, D) and log densities (K, n)."""

    u: Tensor
    log_start: Tensor
    log_ratio: Tensor
    log_own: Tensor  # of the proposal


def _state(students: Students, u: Tensor, score: Callable[[Tensor], Tensor]) -> _State:
    """At points from a proposal's mixture with the encoder, which ``score`` gives the densities of."""
    inside = u.isfinite().all(-1)
    u = torch.where(inside[..., None], u, 0.0)
    log_likelihood, log_prior, log_guide = score(u).double().unbind(-1)
    log_own = students.log_prob(u)
    log_start = defended(log_own, log_guide, DEFENCE)
    return _State(u, log_start, torch.where(inside, log_likelihood + log_prior - log_start, -math.inf), log_own)


def by_gradients(latents: Latents, proposal: Proposal | None, key: tuple[int, ...], most: float = math.inf) -> Estimate:
    """Hamiltonian chains from a frozen proposal to the posterior, by as many temperatures as a pilot asks for.

    Args:
        latents: of n data.
        proposal: where they start; None starts them at the guide.
        key: of the random numbers.
        most: decoder passes for each datum, at least ``LEAPFROG.cost``.
    """
    path = path_from(latents, proposal) if proposal else from_guide(latents)
    seed_everything("annealing pilot", *key)
    tuning = tune(path, PILOT_TEMPERATURES, NUM_LEAPFROG)
    num_temperatures = LEAPFROG.num_temperatures(tuning.lengths.num_temperatures(LEAPFROG.variance), most)
    route = Route.of(path, tuning.kernel, tuning.lengths.schedule(num_temperatures))
    return _walked(latents, route, LEAPFROG, key)


def by_draws(latents: Latents, proposal: Proposal, key: tuple[int, ...], most: float = math.inf) -> Estimate:
    """Chains from a frozen proposal that its own draws move, by as many temperatures as a pilot asks for.

    Args:
        latents: of n data.
        proposal: where they start.
        key: of the random numbers.
        most: decoder passes for each datum, at least ``BY_DRAWS.cost``.
    """
    moves = _Moves(latents, proposal)
    seed_everything("annealing pilot", *key)
    temperatures, spread = _spreads(moves)
    wanted = max(Lengths(temperatures, each).num_temperatures(BY_DRAWS.variance) for each in spread.T)
    schedule = Lengths(temperatures, spread.mean(1)).schedule(BY_DRAWS.num_temperatures(wanted, most))
    return _walked(latents, Route(moves.draw, moves.begin, moves.step, schedule), BY_DRAWS, key)


class Stage(NamedTuple):
    """Chains for what the last stage does not vouch for, and whether they are added to its own."""

    walk: Callable[..., Estimate]
    plan: Plan
    adds: bool = False


STAGES = (
    Stage(by_draws, BY_DRAWS),
    *[Stage(by_draws, BY_DRAWS, adds=True)] * 2,
    Stage(by_gradients, LEAPFROG),
)


def annealed(
    taken: Taken,
    latents_of: Callable[[Tensor], Latents],
    budget: float,
    key: tuple[int, ...],
    num_kept: int = 0,
) -> list[Climbed]:
    """Chains from the proposals of some data, stage after stage for those that the last does not vouch for.

    Args:
        taken: proposals of one kind, for rows.
        latents_of: what gives the latents of rows.
        budget: decoder passes for each datum, at most, those of ``taken`` included.
        key: of the random numbers.
        num_kept: draws of the posterior that are handed back.

    Returns:
        What became of them; what comes later counts.
    """
    found, before = list[Climbed](), None
    for number, stage in enumerate(STAGES):
        latents = latents_of(taken.rows)
        if float(taken.cost.max()) + least_cost(stage.plan, latents.shapes) * latents.num_values > budget:
            break
        if not number:
            taken = _broadened(taken, latents, budget, key)
        walk = partial(stage.walk, latents, taken.proposal, (*key, number))
        if not stage.adds:
            before = None
        climbed, before = walked(latents, taken.proposal, walk, taken.rows, taken.cost, budget, before, num_kept)
        found.append(climbed.doubted(rounded_away(latents, taken.proposal.students), EDGE))
        left = climbed.unvouched.nonzero().flatten()
        if not len(left):
            break
        taken, before = taken._replace(cost=climbed.cost).of(left), before.of(left)
    return [part for climbed in found for part in climbed.parted()]


def walked(
    latents: Latents,
    proposal: Proposal | None,
    walk: Callable[[float], Estimate],
    rows: Tensor,
    spent: Tensor,
    budget: float,
    before: Estimate | None = None,
    num_kept: int = 0,
) -> tuple[Climbed, Estimate]:
    """Chains that may cost what is left, added to those before: what became of the data, and all chains."""
    looks = 2 * num_looks(latents.shapes)
    estimate = walk((budget - float(spent.max())) / latents.num_values - looks).beside(before)
    cost = spent + (estimate.cost + looks) * latents.num_values
    climbed = Climbed(rows, estimate.columns(), "annealed", cost, draws=estimate.draws(latents, num_kept))
    ends = torch.cat(list(estimate.points))
    return climbed.doubted(never_started(latents, ends, proposal), MODE), estimate


def never_started(latents: Latents, ends: Tensor, proposal: Proposal | None) -> Tensor:
    """Whether mirrors lead from ends of chains (K, n, D) to what is much the same, but where none started: (n,)."""

    def log_start(points: Points) -> Tensor:
        guide = points.log_guide
        return guide if proposal is None else defended(proposal.students.log_prob(points.u), guide, DEFENCE)

    u, which = images(latents, ends, _looks_of_each(latents.shapes))
    drawn, turned = scored(latents, ends.gather(0, which[..., None].expand_as(u))), scored(latents, u)
    alike = turned.log_joint > drawn.log_joint + math.log(ALIKE)
    return (alike & is_rare(log_start(turned), log_start(drawn))).sum(0) > 1


def num_looks(shapes: Shapes) -> int:
    """Ends of chains that are turned, by each mirror as many."""
    return _looks_of_each(shapes) * len(mirrors(shapes))


def _looks_of_each(shapes: Shapes) -> int:
    return max(2, LOOKS // len(mirrors(shapes)))


def least_cost(plan: Plan, shapes: Shapes) -> int:
    """Decoder passes of chains for each datum, at least."""
    return plan.cost + 2 * num_looks(shapes)


def _broadened(taken: Taken, latents: Latents, budget: float, key: tuple[int, ...]) -> Taken:
    """With a mixture in place of one Gaussian, where it is worth it: chains reach only what they start near."""
    mixture, num_dims = taken.proposal.mixture, latents.num_dims
    rungs = [rung for rung in RUNGS if rung.route == "mixture" and num_dims <= rung.most and not rung.of_modes]
    cost = (PILOT + sum(rung.cost(num_dims) for rung in rungs)) * latents.num_values
    least = BY_DRAWS.cost * latents.num_values
    if not rungs or len(mixture.components) > 1 or float(taken.cost.max()) + cost + least > budget:
        return taken
    seed_everything("ladder, broadened", *key)
    beyond = Beyond(scored(latents, PILOT))
    for rung in rungs:
        mixture = rung.adapt(latents, mixture, beyond).finite_or(mixture)
    return taken._replace(proposal=Proposal(mixture, taken.proposal.modes), cost=taken.cost + cost)


def _walked(latents: Latents, route: Route, plan: Plan, key: tuple[int, ...]) -> Estimate:
    seed_everything("annealing chains", *key)
    found = weigh(route, route.draw(plan.num_chains))
    cost = plan.of_pilot + (len(route.temperatures) - 1) * plan.of_each
    return Estimate([found.log_weight], scored(latents, route.draw(2)).resolution, cost, [found.u])


class _Moves:
    """What chains start from, and steps by draws of a proposal."""

    def __init__(self, latents: Latents, proposal: Proposal) -> None:
        self.latents, self.draw = latents, path_from(latents, proposal).draw
        self.own, self.gaussians = proposal.students, proposal.whole.students(math.inf, WIDENED)

    def begin(self, u: Tensor) -> _State:
        return _state(self.own, u, partial(by_parts, densities, self.latents))

    def step(self, state: _State, temperature: float) -> tuple[_State, Tensor]:
        """One step of every chain: the new state, and the probability of acceptance, (K, n)."""
        gaussians, num_chains = self.gaussians, len(state.u)
        fresh = torch.rand_like(state.log_start) < 0.5
        component = Categorical(logits=gaussians.log_weight.T).sample((num_chains,))
        center = gaussians.loc[component, torch.arange(self.latents.num_data)]
        size = torch.empty_like(state.log_start).uniform_(*LOCAL)[..., None]
        near = center + (1 - size.square()).sqrt() * (state.u - center) + size * (gaussians.draw_of(component) - center)
        u = torch.where(fresh[..., None], self.own.sample(num_chains), near.to(state.u.dtype))
        new = self.begin(u)

        def log_target(at: _State) -> Tensor:
            log_near = gaussians.log_prob_of_each(at.u).gather(0, component[None])[0]
            return at.log_start + temperature * at.log_ratio - torch.where(fresh, at.log_own, log_near)

        change = log_target(new) - log_target(state)
        probability = change.nan_to_num(nan=-math.inf).clamp(max=0).exp()
        return where(torch.rand_like(probability) < probability, new, state), probability


def _spreads(moves: _Moves) -> tuple[Tensor, Tensor]:
    """Temperatures (P,), and how log ratios of a pilot's chains spread there, (P, n)."""
    temperatures = torch.linspace(0, 1, PILOT_TEMPERATURES, dtype=torch.float64, device="cpu") ** 2
    state, found = moves.begin(moves.draw(PILOT_CHAINS)), list[Tensor]()
    for temperature in temperatures.tolist():
        for _ in range(STEPS if temperature else 0):  # the draws are those of 0
            state, _ = moves.step(state, temperature)
        found.append(spread_of(state.log_ratio).cpu())
    return temperatures, torch.stack(found)
