r"""What frozen proposals give: fresh draws of them, chains from them, and pilots that tell which is good enough.

K draws, a tenth of them from the encoder, are weighed by the density of both (the balance heuristic),

.. math:: \hat p(x) = \frac1K \sum_k \frac{p(x, u_k)}{(1 - a) \, q(u_k) + a \, q_0(u_k)}, \qquad E[\hat p(x)] = p(x)

so that no weight is above 1 / a times what it is by the encoder.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.base.random import seed_everything
from pyrovae.evidence import estimators
from pyrovae.evidence.annealing.paths import Path, Route, walk
from pyrovae.evidence.annealing.tuning import pilot_cost, run_cost, tune
from pyrovae.evidence.ladder.adaptation import Mixture
from pyrovae.evidence.ladder.points import Points, densities, joined, scored
from pyrovae.evidence.ladder.rungs import Bar, Proposal
from pyrovae.evidence.ladder.students import Students
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.supports import whole_line
from pyrovae.pairs.terms import sum_by_role

DEFENCE = 0.1  # of the draws are from the encoder
PILOT = 250  # draws
MISSED = 0.03  # nats that draws of the guide may find beside a proposal that is taken
NUM_MOVED, MOVED_AWAY, CHANGE = 50, 0.02, 0.03  # draws onto a support and back; part that may change by so many nats
NUM_CHAINS, NUM_LEAPFROG = 64, 5  # of annealing
TEMPERATURES = 10, 200  # at least and at most
VARIANCE = 0.1  # of log weights of chains, for which a pilot says how many temperatures it takes
PILOT_TEMPERATURES = 16
OF_PILOT = pilot_cost(PILOT_TEMPERATURES, NUM_LEAPFROG)  # decoder passes for each datum
OF_EACH = run_cost(1, NUM_CHAINS, NUM_LEAPFROG)  # temperature
ANNEALING = OF_PILOT + TEMPERATURES[0] * OF_EACH  # at least


class Estimate(NamedTuple):
    """Log weights of fresh draws for n data, by strata (K_s, n): the proposal's, and the encoder's."""

    strata: list[Tensor]
    resolution: Tensor  # (n,): what rounding can make of equal weights
    cost: int  # decoder passes for each datum

    @property
    def _se(self) -> Tensor:
        if len(self.strata) == 1:  # chains, or very few draws
            return estimators.log_evidence_se_of_few(self.strata[0])
        return estimators.log_evidence_se_of_strata(self.strata)

    def columns(self) -> dict[str, Tensor]:
        """What a report says of them, (n,) each."""
        together = torch.cat(self.strata)
        tail = estimators.pareto_tail(together, self.resolution)
        return {
            "log_evidence": estimators.log_evidence(together),
            "log_evidence_jackknife": estimators.log_evidence_jackknife(together),
            "log_evidence_psis": estimators.log_evidence(tail.smooth(together)),
            "mc_se_log_evidence": self._se,
            "skewness_log_evidence": estimators.skewness_of_strata(self.strata),
            "ess": estimators.ess(together),
            "pareto_k": tail.shape,
            "resolution": self.resolution,
            "num_weights": torch.full_like(tail.shape, len(together)),
        }


def by_proposal(latents: Latents, proposal: Proposal, num_particles: int) -> Estimate:
    """K fresh draws of a frozen proposal, a tenth of them the encoder's, weighed by the density of both.

    Where a proposal is held to be the posterior, and neither its draws nor the encoder's gainsay it, weights are one.
    """
    num_guide = _num_guide(num_particles)
    parts = [scored(latents, proposal.students.sample(num_particles - num_guide))]
    if num_guide:
        parts.append(scored(latents, num_guide))
    resolution = torch.stack([part.resolution for part in parts]).amax(0)
    strata = [_log_weight(part, proposal, num_guide / num_particles) for part in parts]
    if proposal.exact:
        alone = [_log_weight(part, proposal, 0.0) for part in parts]
        constant = _spread(torch.cat(alone)) <= resolution
        strata = [torch.where(constant, *pair) for pair in zip(alone, strata, strict=True)]
    return Estimate(strata, resolution, num_particles)


def _num_guide(num_draws: int) -> int:
    """How many of so many draws are the encoder's: two at least, as one has no variance, and none of a few."""
    return max(2, math.ceil(DEFENCE * num_draws)) if num_draws > 3 else 0


def _log_weight(points: Points, proposal: Proposal, fraction: float) -> Tensor:
    """log p(x, u) by the density of a proposal's mixture with a fraction of the encoder."""
    return points.log_weight(_defended(proposal.students.log_prob(points.u), points.log_guide, fraction))


def _defended(log_density: Tensor, log_guide: Tensor, fraction: float) -> Tensor:
    """The density of a mixture with a fraction of the encoder."""
    if not fraction:
        return log_density
    return torch.logaddexp(math.log1p(-fraction) + log_density, math.log(fraction) + log_guide)


def _spread(log_weight: Tensor) -> Tensor:
    return log_weight.amax(0) - log_weight.amin(0)


def path_from(latents: Latents, proposal: Proposal) -> Path:
    """From the mixture of a frozen proposal and the encoder to the posterior."""
    students = proposal.students

    def draw(num_chains: int) -> Tensor:
        num_guide = _num_guide(num_chains)
        by_guide = [latents.unconstrain(latents.draw(num_guide))] if num_guide else []
        return torch.cat([students.sample(num_chains - num_guide), *by_guide])

    def start_and_ratio(u: Tensor) -> tuple[Tensor, Tensor]:
        log_likelihood, log_prior, log_guide = densities(latents, u).double().unbind(-1)
        log_start = _defended(students.log_prob(u), log_guide, DEFENCE)
        return log_start, log_likelihood + log_prior - log_start

    return Path(draw, start_and_ratio)


def rounded_away(latents: Latents, students: Students) -> Tensor:
    """Whether a posterior lies where the number format of a support ends, so that no density there is right: (n,).

    Draws are moved onto their support and back: their density must not change.
    """
    if all(whole_line(site["fn"]) for site in latents.particles.example.latent.values()):
        return torch.zeros(latents.num_data, dtype=torch.bool)
    joint = latents.log_joint_unconstrained(students.sample(NUM_MOVED))
    before, after = joint.log_density, latents.moved(joint.values)[1].log_density
    allowed = CHANGE + 32 * torch.finfo(students.dtype).eps * before.abs()
    return (~((after - before).abs() <= allowed)).double().mean(0).cpu() > MOVED_AWAY


def annealed(latents: Latents, path: Path, key: tuple[int, ...], most: float = math.inf) -> Estimate:
    """Chains along a path to the posterior, by as many temperatures as a pilot asks for.

    Args:
        latents: of n data.
        path: from what can be drawn.
        key: of the random numbers.
        most: decoder passes for each datum, at least ``ANNEALING``.
    """
    seed_everything("annealing pilot", *key)
    tuning = tune(path, PILOT_TEMPERATURES, NUM_LEAPFROG)
    num_temperatures = max(tuning.num_temperatures(VARIANCE), TEMPERATURES[0])
    num_temperatures = min(num_temperatures, TEMPERATURES[1])
    if most < math.inf:
        num_temperatures = min(num_temperatures, int((most - OF_PILOT) // OF_EACH))
    seed_everything("annealing chains", *key)
    route = Route(path, tuning.kernel, tuning.schedule(num_temperatures))
    log_weight = walk(route, path.draw(NUM_CHAINS)).log_weight
    return Estimate([log_weight], scored(latents, path.draw(2)).resolution, OF_PILOT + num_temperatures * OF_EACH)


class Pilot(NamedTuple):
    """What some draws say of a proposal, (n,) each."""

    pareto_k: Tensor
    ess: Tensor  # of all draws, as a fraction
    exact: Tensor  # whether the posterior is that very Gaussian
    reached: Tensor  # whether a draw has a density

    def good(self, bar: Bar) -> Tensor:
        """Whether it is good enough, (n,)."""
        return self.exact | (self.pareto_k <= bar.pareto_k) & (self.ess >= bar.ess)


def first_pilot(latents: Latents) -> tuple[Pilot, Points | None]:
    """Draws of the guide by itself, and their points; none where the guide draws classes that are summed out here."""
    if latents.particles.structure.has_discrete:
        parts = [sum_by_role(latents.particles.log_terms(size)) for size in latents.part_sizes(PILOT)]
        log_weight = torch.cat([part.log_weight for part in parts])
        return _of_guide(log_weight, torch.full_like(log_weight[0], math.nan)), None  # draws may all be equal
    points = scored(latents, PILOT)
    return _of_guide(points.log_weight(points.log_guide), points.resolution), points


def _of_guide(log_weight: Tensor, resolution: Tensor) -> Pilot:
    pareto_k = estimators.pareto_k(log_weight, resolution).nan_to_num(math.inf, neginf=-math.inf)
    return Pilot(pareto_k, estimators.ess(log_weight) / PILOT, pareto_k == -math.inf, (log_weight > -math.inf).any(0))


def pilot(latents: Latents, proposal: Proposal, by_guide: Points) -> Pilot:
    """Draws of a proposal, and those that the guide has made: they may have met what it misses."""
    points = scored(latents, proposal.students.sample(PILOT))
    num_guide = math.ceil(DEFENCE / (1 - DEFENCE) * PILOT)
    log_weight = _log_weight(joined([points, by_guide.first(num_guide)]), proposal, num_guide / (PILOT + num_guide))
    both = joined([points, by_guide])
    pareto_k = estimators.pareto_k(log_weight, both.resolution).nan_to_num(math.inf, neginf=-math.inf)
    misses = _misses(_log_weight(points, proposal, 0.0), _log_weight(both, proposal, 0.5))
    return Pilot(
        torch.where(misses, math.inf, pareto_k),
        estimators.ess(log_weight) / len(log_weight),
        _is_posterior(proposal.mixture, both),
        (log_weight > -math.inf).any(0),
    )


def _misses(own: Tensor, both: Tensor) -> Tensor:
    """Whether draws of a proposal by themselves find less than those of the guide beside them do: (n,)."""
    less = estimators.log_evidence(both) - estimators.log_evidence(own)
    se = (estimators.log_evidence_se(own).square() + estimators.log_evidence_se(both).square()).sqrt()
    return less > MISSED + 3 * se


def _is_posterior(mixture: Mixture, points: Points) -> Tensor:
    """Whether the posterior is the very Gaussian that was found, wherever anything was drawn: (n,)."""
    if len(mixture.components) > 1:
        return torch.zeros_like(points.resolution, dtype=torch.bool)
    away = points.log_joint - mixture.students(math.inf, 1.0).log_prob(points.u)
    return (_spread(away) <= points.resolution) & (points.resolution <= estimators.FINE)
