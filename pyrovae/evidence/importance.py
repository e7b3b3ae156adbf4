r"""The weights of a block of data: looked at once, then drawn, a block of particles at a time.

.. math:: \log w_{kn} = \log p(x_n \mid z_{kn}) + \log p(z_{kn}) - \log q(z_{kn} \mid x_n)

Noise is keyed by (seed, data block, particle block): a replay of compiled kernels draws what the programs draw.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, NotCompiled, warn
from pyrovae.base.memory import of_device, out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.evidence import estimators
from pyrovae.evidence.blocks import Block, Pair
from pyrovae.evidence.ladder.climbed import Climbed
from pyrovae.evidence.ladder.repair import Repair
from pyrovae.evidence.numerics.compiled import Replay, Replayed
from pyrovae.evidence.numerics.digits import FEW, NUM_DRAWS, Compared, check_double, compared
from pyrovae.evidence.numerics.running_sums import Moments, Tally, Totals, tally
from pyrovae.evidence.plan import WEIGHTS_AT_ONCE, Plan, elements_at_once, even
from pyrovae.evidence.proposals.defensive import defended
from pyrovae.evidence.reliability import is_unreliable
from pyrovae.evidence.resampling import resampled
from pyrovae.pairs.checks import looks
from pyrovae.pairs.checks.coverage import NUM_DRAWS as PRIOR_DRAWS
from pyrovae.pairs.checks.coverage import told_beyond
from pyrovae.pairs.context import in_double
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.particles import ONE_BY_ONE, Particles
from pyrovae.pairs.terms import SiteTerms, analytic_kl, check_finite

MEMORY = "lower particle_batch, then batch_size (the number of particles itself need not change)"
Proposal = Callable[[Sequence[Any], int], SiteTerms]  # data and K -> the densities of K draws


class Weights(NamedTuple):
    """What K particles of the n data of one block leave behind; one table alone grows with K."""

    log_weight: Tensor  # (K, n), float64
    terms: Moments  # (2, n): of log p(x|z), and of log q(z|x) - log p(z)
    resolution: Tensor  # (n,): what rounding can make of equal weights, in nats; NaN where those say nothing
    kl_prior_analytic: Tensor  # (n,)
    climbed: Sequence[Climbed] = ()  # what better proposals gave in place of the encoder, for some of the data
    draws: Values | None = None  # latents by their weights, site -> (L, n, ...), where the plan keeps some


def put_draws(draws: Values, climbed: Climbed) -> None:
    """Puts what a better proposal drew in the place of what the guide drew, site -> (L, n, ...)."""
    for name, value in (climbed.draws or {}).items():
        draws[name][:, climbed.rows] = value.to(draws[name])


class Evaluation:
    """One evaluation of N data: what stays the same from block to block."""

    def __init__(self, pair: Pair, plan: Plan, num_data: int) -> None:
        self.pair, self.plan = pair, plan
        self.elements, self.sizes = elements_at_once(pair.device), dict[int, int]()  # data in a block -> K at once
        self.halved = False  # whether memory ran out
        self.compiles = plan.compiles(num_data, pair.device)
        self.num_rows = min(num_data, plan.rows(pair))
        self.replayed: dict[int, Replayed] = {}  # particles -> their draw, for blocks of num_rows data
        self.compared, self.coarsest = list[Compared](), -1.0  # with double; nats, of a block compared
        self.beyond: str | None = None  # why the ELBO is minus infinity, whatever the draws show
        self.repair = Repair(pair, plan, self.num_rows, num_data, compiles=self.compiles)

    def block(self, args: Sequence[Any], block: Block) -> Weights:
        """The weights of one block of data."""
        args = in_double(args) if self.plan.dtype else args
        particles = self.pair.particles(args, None if self.plan.vectorize else ONE_BY_ONE)
        if self.plan.vectorize:
            looks.check_supports(particles.shown, PRIOR_DRAWS if block.index == 0 else max(200, 2 * block.num_data))
        self.beyond = self.beyond or told_beyond(particles.example)
        if self.plan.dtype:
            check_double(particles)
        totals, structure = self._totals(particles, block, 1 - self.repair.amount), particles.structure
        self._compare(particles, block, float(totals.resolution.max()))
        # Discrete draws may all be equal, and so their weights, however wrong the guide is.
        nats = totals.resolution_of_distinct if structure.has_discrete else totals.resolution
        kl = torch.full((block.num_data,), math.nan)
        if self.plan.vectorize and not self.plan.defensive:
            kl = analytic_kl(particles.example, structure, block.num_data)
        particles.most = self.sizes[block.num_data] if self.halved else None
        weights = Weights(totals.log_weight, totals.terms, nats, kl.double())
        climbed = self.repair.block(particles, block, lambda: _unvouched(weights))
        draws = self._kept(particles, block, climbed) if self.plan.num_kept else None
        return weights._replace(climbed=climbed, draws=draws)

    def _kept(self, particles: Particles, block: Block, climbed: Sequence[Climbed]) -> Values:
        """Draws of the posterior by better proposals, for the other data by the guide."""
        seed_everything("evaluation, kept", self.plan.seed, block.index)
        drawn = Latents.of(particles).draw_weighted(self.plan.num_particles)
        draws = resampled(*drawn, self.plan.num_kept)
        for one in climbed:
            put_draws(draws, one)
        return draws

    def _compare(self, particles: Particles, block: Block, resolution: float) -> None:
        """Scores a few draws in double too: of the first block, and of one whose densities are twice as large."""
        if not self.plan.dtype and resolution > 2 * self.coarsest:
            seed_everything("digits", self.plan.seed, block.index)
            self.coarsest = resolution
            fits = max(FEW, self._size(particles) // 2)  # in double they take twice the memory
            num_draws = min(NUM_DRAWS, self.plan.num_particles, fits)
            if (found := compared(particles, block.rows.start, num_draws)) is not None:
                self.compared.append(found)

    def _totals(self, particles: Particles, block: Block, amount: float) -> Totals:
        """The tallies of all particles of a block of data; where memory runs out, of blocks of half as many.

        They are so large an amount of what is to be done for the data.
        """
        num_data, num_particles = particles.num_data, self.plan.num_particles
        while True:
            size, totals = self._size(particles), Totals(num_particles, num_data)
            try:
                draw = self._draw(particles, block.index)
                for number, start in enumerate(range(0, num_particles, size)):
                    count = min(size, num_particles - start)
                    totals.add(draw(number, count))
                    block.tick(amount * num_data * count / num_particles)
                return totals
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.plan.particle_batch or size == 1:
                    what = f"{size} particles of {num_data} data at once"
                    raise InputError(f"not enough memory for {what}: {MEMORY}") from error
            block.tick(-amount * num_data * totals.count / num_particles)
            self.sizes[num_data], self.halved = size // 2, True
            self.replayed.clear()

    def _size(self, particles: Particles) -> int:
        """How many particles are drawn at once."""
        chosen, num_particles, num_data = self.plan.particle_batch, self.plan.num_particles, particles.num_data
        if num_data not in self.sizes:
            size = min(chosen, num_particles) if chosen else even(num_particles, particles.at_once(self.elements))
            self.sizes[num_data] = size
        return self.sizes[num_data]

    def _draw(self, particles: Particles, index: int) -> Callable[[int, int], Tally]:
        """What draws, of these data, the block of particles of a number, so many of them."""
        propose = self._proposal(particles)
        replay_of = cache(partial(self._replay, propose, particles))

        def draw(number: int, count: int) -> Tally:
            key = ("evaluation", self.plan.seed, index, number)
            if (replay := replay_of(count)) is not None:
                seed_everything(*key)
                if (found := replay()) is not None:
                    return found
            seed_everything(*key)
            sites = propose(particles.args, count)
            check_finite(sites)
            return tally(sites)

        return draw

    def _proposal(self, particles: Particles) -> Proposal:
        """Data and K -> K draws: from the guide, or from its defensive mixture with the prior."""
        if self.plan.defensive:
            draw = defended(particles, self.plan.defensive)
            return lambda _, count: draw(count)
        return lambda args, count: particles.on(args).log_terms(count)

    def _replay(self, propose: Proposal, particles: Particles, count: int) -> Replay | None:
        """What replays a draw of so many particles of these data; None where the programs run anew."""
        rare = count != self.sizes[particles.num_data] and 10 * count < self.plan.num_particles
        if not self.compiles or rare or particles.num_data != self.num_rows:
            return None
        try:
            if particles.strategy == "looped":
                raise Untraceable("the programs take one particle at a time")
            if count not in self.replayed:
                self.replayed[count] = Replayed(lambda *data: propose(data, count), *particles.args)
            return self.replayed[count].of(*particles.args)
        except Untraceable as error:
            if self.plan.compile is True:
                raise InputError(f"the evaluation cannot be compiled: {error}; use compile=False") from error
            warn(NotCompiled(f"the evaluation is not compiled, and so slower: {error}"))
            self.compiles = False
            return None


def in_slices(reduce: Callable[[Tensor, Tensor], dict[str, Tensor]], block: Weights) -> dict[str, Tensor]:
    """Applies a function of log weights (K, m) and their resolution (m,) to a few data at a time."""
    width = max(1, of_device(WEIGHTS_AT_ONCE, block.log_weight.device) // len(block.log_weight))
    slices = zip(block.log_weight.split(width, 1), block.resolution.split(width), strict=True)
    parts = [reduce(*part) for part in slices]
    return {name: torch.cat([part[name] for part in parts], -1) for name in parts[0]}


def _unvouched(block: Weights) -> Tensor:
    """Whether the guide's draws say of themselves that they are not to be trusted, where they say anything: (n,)."""

    def reduce(log_weight: Tensor, resolution: Tensor) -> dict[str, Tensor]:
        pareto_k = estimators.pareto_k(log_weight, resolution)
        unreliable = is_unreliable(pareto_k, estimators.ess(log_weight), len(log_weight))
        return {"unvouched": unreliable & ~pareto_k.isnan()}

    return in_slices(reduce, block)["unvouched"]
