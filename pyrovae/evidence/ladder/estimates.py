r"""What frozen proposals give: fresh draws of them, and pilots that tell which is good enough.

K draws, a tenth of them from the encoder, are weighed by the density of both (the balance heuristic),

.. math:: \hat p(x) = \frac1K \sum_k \frac{p(x, u_k)}{(1 - a) \, q(u_k) + a \, q_0(u_k)}, \qquad E[\hat p(x)] = p(x)

so that no weight is above 1 / a times what it is by the encoder.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.base.random import is_common
from pyrovae.evidence import estimators
from pyrovae.evidence.ladder.adaptation.mirrors import Shapes, by_mirror, images, mirrors
from pyrovae.evidence.ladder.adaptation.mixtures import Mixture
from pyrovae.evidence.ladder.points import Points, joined, scored
from pyrovae.evidence.ladder.rungs import PILOT, Bar, Beyond, Proposal
from pyrovae.evidence.ladder.summed import Summed
from pyrovae.evidence.proposals.students import Students
from pyrovae.evidence.reliability import finds_more
from pyrovae.evidence.resampling import resampled
from pyrovae.pairs.latents import MOVED_AWAY, Latents, Values
from pyrovae.pairs.terms import sum_by_role

DEFENCE = 0.1  # of the draws are from the encoder
AWAY = 250  # draws of the guide, moved away from their mean: they show its tails
INFINITE = 0.5  # k-hat of the terms of a second moment above which there may be none
FEW = 10  # draws, at which most posteriors are seen to be no Gaussian
RARE = 1e-3  # of the density of guide, prior, modes that were found or a draw turned, below which a proposal is blind
LOST = 0.001  # of a posterior, that may be where it is
TURNED, LOST_BY_TURN = 12, 0.01  # draws of a pilot, and what one of them may stand for where it is blind
LEAST = 0.02  # effective of its draws, as draws beyond it tell
FEW_VALUES = 64  # of discrete latents together, which are worth a sum to see what the guide's draws miss
NUM_MOVED = 50  # draws onto a support and back


class Estimate(NamedTuple):
    """Log weights of fresh draws for n data, by strata (K_s, n): the proposal's, and the encoder's."""

    strata: list[Tensor]
    resolution: Tensor  # (n,): what rounding can make of equal weights
    cost: int  # decoder passes for each datum
    points: Sequence[Tensor] = ()  # of each stratum, (K_s, n, D), where they are kept
    mixed: Sequence[Tensor] = ()  # their log weights by the density of all strata together; none: the strata are those

    def beside(self, before: "Estimate | None") -> "Estimate":
        """With other such draws, of as many strata, which count as well."""
        if before is None:
            return self
        strata = [torch.cat(each) for each in zip(before.strata, self.strata, strict=True)]
        points = [torch.cat(each) for each in zip(before.points, self.points, strict=True)]
        mixed = [torch.cat(each) for each in zip(before.mixed, self.mixed, strict=True)]
        return self._replace(strata=strata, points=points, mixed=mixed)

    def of(self, rows: Tensor) -> "Estimate":
        """That of some of the data."""
        strata, points, mixed = ([part[:, rows] for part in parts] for parts in (self.strata, self.points, self.mixed))
        return self._replace(strata=strata, resolution=self.resolution[rows], points=points, mixed=mixed)

    def draws(self, latents: Latents, num_draws: int) -> Values | None:
        """Latents in proportion to the weights, site -> (L, n, ...); None where none are asked for.

        Where a proposal is the posterior, each weight is log p(x), of the encoder's draws too; but these are not draws
        of the posterior: they count by the density of both.
        """
        if not num_draws:
            return None
        log_weight = torch.cat(list(self.mixed or self.strata))
        u = resampled({"u": torch.cat(list(self.points))}, log_weight, num_draws)["u"]
        parts = [latents.values_at(part) for part in u.split(latents.part_sizes(num_draws))]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

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


def by_proposal(latents: Latents, proposal: Proposal, num_particles: int, *, keep: bool = False) -> Estimate:
    """K fresh draws of a frozen proposal, a tenth of them the encoder's, weighed by the density of both.

    Where a proposal is held to be the posterior, and neither its draws nor the encoder's gainsay it, weights are one.

    Args:
        latents: of n data.
        proposal: for each of them.
        num_particles: K.
        keep: whether the points go with their weights.
    """
    of_guide, students = num_guide(num_particles), proposal.students
    parts = [scored(latents, students.sample(num_particles - of_guide))]
    if of_guide:
        parts.append(scored(latents, of_guide))
    resolution = torch.stack([part.resolution for part in parts]).amax(0)
    each = [(part, students.log_prob(part.u)) for part in parts]
    strata = mixed = [_log_weight(*part, of_guide / num_particles) for part in each]
    if proposal.exact:
        alone = [_log_weight(*part, 0.0) for part in each]
        constant = _spread(torch.cat(alone)) <= resolution
        strata = [torch.where(constant, *pair) for pair in zip(alone, strata, strict=True)]
    kept = ([part.u for part in parts], mixed) if keep else ((), ())
    return Estimate(strata, resolution, num_particles, *kept)


def num_guide(num_draws: int) -> int:
    """How many of so many draws are the encoder's: two at least, as one has no variance, and none of a few."""
    return max(2, math.ceil(DEFENCE * num_draws)) if num_draws > 3 else 0


def _log_weight(points: Points, log_density: Tensor, fraction: float) -> Tensor:
    """log p(x, u) by the density of a proposal's mixture with a fraction of the encoder."""
    return points.log_weight(defended(log_density, points.log_guide, fraction))


def defended(log_density: Tensor, log_guide: Tensor, fraction: float) -> Tensor:
    """The density of a mixture with a fraction of the encoder."""
    if not fraction:
        return log_density
    return torch.logaddexp(math.log1p(-fraction) + log_density, math.log(fraction) + log_guide)


def _spread(log_weight: Tensor) -> Tensor:
    return log_weight.amax(0) - log_weight.amin(0)


def rounded_away(latents: Latents, students: Students) -> Tensor:
    """Whether a posterior lies where the number format of a support ends, so that no density there is right: (n,)."""
    return latents.rounds_away(students.sample(NUM_MOVED)) > MOVED_AWAY


class Pilot(NamedTuple):
    """What some draws say of a proposal, (n,) each."""

    pareto_k: Tensor
    ess: Tensor  # of all draws, as a fraction
    exact: Tensor  # whether the posterior is that very Gaussian
    reached: Tensor  # whether a draw has a density
    misses: Tensor  # whether there is more than it finds
    mirrors: Tensor | None = None  # whether each turns its draws into what it misses, (M, n)

    def good(self, bar: Bar) -> Tensor:
        """Whether it is good enough, (n,)."""
        return self.exact | (self.pareto_k <= bar.pareto_k) & (self.ess >= bar.ess) & ~self.misses

    def doubted(self, rows: Tensor) -> "Pilot":
        """With the k-hat of weights without a variance for some of the data, (n,)."""
        return self._replace(
            pareto_k=torch.where(rows, math.inf, self.pareto_k),
            exact=self.exact & ~rows,
            misses=self.misses | rows,
        )


def first_pilot(latents: Latents, most: float) -> tuple[Pilot, Points | None, int]:
    """Draws of the guide by itself, their points, and decoder passes for each datum.

    Of a guide that draws classes, which are summed out here, there are points where the classes are few and at most so
    many passes pay for them: what their sum finds beside its draws, these miss.
    """
    if latents.particles.structure.has_discrete:
        sizes = [PILOT] if is_common() else latents.part_sizes(PILOT)
        parts = [sum_by_role(latents.particles.log_terms(size)) for size in sizes]
        log_weight = torch.cat([part.log_weight for part in parts])
        looked = _of_guide(log_weight, torch.full_like(log_weight[0], math.nan))  # draws may all be equal
        cost = PILOT + latents.num_values * (PILOT if latents.sites else 1)
        if not isinstance(latents, Summed) or latents.num_values > FEW_VALUES or cost > most:
            return looked, None, PILOT
        points = scored(latents, PILOT) if latents.sites else None
        summed = points.log_weight(points.log_guide) if points else latents.log_evidence()[None]
        return looked.doubted(_misses(log_weight, summed)), points, cost
    points = scored(latents, PILOT)
    return _of_guide(points.log_weight(points.log_guide), points.resolution), points, PILOT


def lacks_variance(latents: Latents, by_guide: Points) -> Tensor:
    r"""Whether the weights of a guide's draws have no finite variance, as far as points beyond them tell: (n,).

    A guide that is too narrow looks good by its own few draws, as none is where the weights are large. Draws that are
    moved away from their mean, f times as far, have a known density q' and are terms of the same second moment,

    .. math:: E_q[w^2] = E_{q'}[p^2 / (q \, q')], \qquad q'(m + f (u - m)) = f^{-D} q(u), \qquad f = 1 + D^{-1/2}

    whose own k-hat is then large: for a Gaussian that is half as wide as it should be 3, where that of w is 0.75.
    """
    start, mean, num_dims = by_guide.first(AWAY), by_guide.u.double().mean(0), by_guide.u.shape[-1]
    factor = 1 + num_dims**-0.5
    points = scored(latents, (mean + factor * (start.u.double() - mean)).to(start.u.dtype))
    log_density = start.log_guide - num_dims * math.log(factor)
    term = 2 * points.log_joint - points.log_guide - log_density
    term = torch.where(points.log_joint == -math.inf, -math.inf, term)
    pareto_k = estimators.pareto_k(term, points.resolution).nan_to_num(math.inf, neginf=-math.inf)
    return (pareto_k > INFINITE) | ~(term < math.inf).all(0)


def _of_guide(log_weight: Tensor, resolution: Tensor) -> Pilot:
    pareto_k = estimators.pareto_k(log_weight, resolution).nan_to_num(math.inf, neginf=-math.inf)
    reached = (log_weight > -math.inf).any(0)
    return Pilot(
        pareto_k, estimators.ess(log_weight) / PILOT, pareto_k == -math.inf, reached, torch.zeros_like(reached)
    )


def pilot(latents: Latents, proposal: Proposal, beyond: Beyond) -> Pilot:
    """Draws of a proposal, and those beyond it: they may have met what it misses."""
    students = proposal.students
    own = scored(latents, students.sample(PILOT))
    both, turned = joined([own, beyond.by_guide]), by_mirrors(latents, own, students, many=beyond.mirrored)
    known, others, balance = beyond.beside(own)
    log_density = students.log_prob(known.u)  # once for all that is asked of it
    of_guide = math.ceil(DEFENCE / (1 - DEFENCE) * PILOT)
    first, defence = both.first(PILOT + of_guide), of_guide / (PILOT + of_guide)
    log_weight = _log_weight(first, log_density[: PILOT + of_guide], defence)
    pareto_k = estimators.pareto_k(log_weight, both.resolution).nan_to_num(math.inf, neginf=-math.inf)
    misses = _misses(_log_weight(own, log_density[:PILOT], 0.0), _log_weight(both, log_density[: len(both.u)], 0.5))
    if len(others) > 1:
        balance = torch.logaddexp(balance, log_density + math.log(PILOT))
        misses |= _is_blind(known, log_density, others, balance)
    misses |= turned.any(0)
    return Pilot(
        pareto_k,
        estimators.ess(log_weight) / len(log_weight),
        _is_posterior(proposal.mixture, both) & ~misses,
        (log_weight > -math.inf).any(0),
        misses,
        turned,
    )


def num_turned(shapes: Shapes, *, many: bool = False) -> int:
    """Draws of a pilot that are turned, by each mirror as many: a few, or nearly all."""
    return _of_each(shapes, many=many) * len(mirrors(shapes))


def _of_each(shapes: Shapes, *, many: bool) -> int:
    number = len(mirrors(shapes))
    return max(1, PILOT // number if many else math.ceil(TURNED / number))


def pilot_cost(shapes: Shapes, *, many: bool = False) -> int:
    """Decoder passes of :func:`pilot` for each datum."""
    return PILOT + num_turned(shapes, many=many)


def by_mirrors(latents: Latents, drawn: Points, students: Students | None = None, *, many: bool = False) -> Tensor:
    """Whether each mirror turns draws of a proposal into what that would hardly draw, though it holds much: (M, n).

    Args:
        latents: of n data.
        drawn: draws of the proposal.
        students: the proposal; the guide if None.
        many: whether nearly all of them are turned, as some have led to what was missed before.
    """

    def log_own(points: Points) -> Tensor:
        return points.log_guide if students is None else students.log_prob(points.u)

    u, which = images(latents, drawn.u, _of_each(latents.shapes, many=many))
    turned, source = scored(latents, u), log_own(drawn)
    log_source = source.gather(0, which)  # the density of images too, as mirrors leave volumes as they are
    mass = turned.log_weight(log_source) - estimators.log_evidence(drawn.log_weight(source))
    lost = is_rare(log_own(turned), log_source) & (mass > math.log(LOST_BY_TURN))
    return by_mirror(lost, latents.shapes).any(0)


def is_rare(log_density: Tensor, log_source: Tensor) -> Tensor:
    """Whether images, by their density, are hardly drawn by what drew their sources: (R, n) each."""
    return log_density < log_source + math.log(RARE)


def misses_mode(guide: Beyond) -> Tensor:
    """Whether the guide itself is blind where draws of the prior led: (n,)."""
    known, others, balance = guide.beside(guide.by_guide.first(0))
    return _is_blind(known, known.log_guide, others, balance)


def _is_blind(points: Points, log_own: Tensor, others: Tensor, balance: Tensor) -> Tensor:
    """Whether a proposal would hardly draw where some of all weights lie, or few of its draws would count: (n,).

    Args:
        points: K that several densities drew.
        log_own: of the proposal there, (K, n).
        others: the other densities there, (S, K, n).
        balance: of all that drew them, each as often as it did, (K, n).
    """
    log_weight = points.log_weight(balance)
    most = torch.maximum(others.amax(0), points.log_prior)
    lost = _mass(log_weight, log_own < most + math.log(RARE))
    second = (log_weight + points.log_weight(log_own)).logsumexp(0)  # moment of its weights
    ess = (2 * log_weight.logsumexp(0) - second).exp()
    return (lost > LOST) | (ess < LEAST)


def _misses(own: Tensor, both: Tensor) -> Tensor:
    """Whether draws of a proposal by themselves find less than those of the guide beside them do: (n,)."""
    return finds_more(both, estimators.log_evidence(own), estimators.log_evidence_se(own))


def _mass(log_weight: Tensor, those: Tensor) -> Tensor:
    """The part of all weights (K, n) that some hold: (n,)."""
    part = log_weight.where(those, -math.inf).logsumexp(0) - log_weight.logsumexp(0)
    return part.exp().nan_to_num(0.0)


def _is_posterior(mixture: Mixture, points: Points) -> Tensor:
    """Whether the posterior is the very Gaussian that was found, wherever anything was drawn: (n,)."""
    if len(mixture.components) > 1:
        return torch.zeros_like(points.resolution, dtype=torch.bool)
    constant = points.resolution <= estimators.FINE
    for part in (points.first(FEW), points):
        if constant.any():
            away = part.log_joint - mixture.students(math.inf, 1.0).log_prob(part.u)
            constant = constant & (_spread(away) <= points.resolution)
    return constant
