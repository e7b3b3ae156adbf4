"""Rungs of the ladder: what makes a proposal from the last one, what it costs, and what its pilot must show."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.ladder.adaptation import modes as seeking
from pyrovae.evidence.ladder.adaptation.mirrors import MOST_IMAGES, mirrored
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture
from pyrovae.evidence.ladder.adaptation.moments import moments, moments_cost
from pyrovae.evidence.ladder.adaptation.newton import laplace, laplace_cost, newton, newton_cost, started
from pyrovae.evidence.ladder.points import Points, at_values, joined, of_prior, scored
from pyrovae.evidence.proposals.students import Students
from pyrovae.pairs.latents import Latents, Values

WIDENED = 1.1  # a proposal is so many times as wide as the Gaussian that was found
PILOT = 250  # draws that tell whether a proposal is good
STARTS = 250  # draws of each that show where components of a mixture may start
OF_PRIOR = 100  # draws, which tell what a proposal misses
SEARCHED, OF_SEARCH = 3, 1000  # coordinates, up to which so many draws of the prior come near most modes
OF_MODES = 0.1  # of the draws of a proposal are from these
MOST_COORDINATES = 200  # for which curvature is worth its gradients
FEW_COORDINATES = 20  # for which moments are worth their draws


class Bar(NamedTuple):
    """What a pilot must show of a proposal that is taken."""

    pareto_k: float  # at most
    ess: float  # effective of its draws, at least


# A pilot's k-hat is known to 0.2 or so. Where the next rung is cheap, a proposal of infinite variance is not worth it.
STRICT, USUAL = Bar(0.25, 0.4), Bar(0.5, 0.2)


class Proposal(NamedTuple):
    """What is drawn from for each of n data: a mixture, or the posterior itself where that is a Gaussian.

    A part of a mixture are the modes that were found from the prior, where such were looked for: what adaptation
    forgets of them it still draws.
    """

    mixture: Mixture
    modes: Mixture | None = None
    exact: bool = False

    @property
    def whole(self) -> Mixture:
        return self.mixture if self.exact or self.modes is None else self.mixture.beside(self.modes, OF_MODES)

    @property
    def students(self) -> Students:
        return self.mixture.students(math.inf, 1.0) if self.exact else wide(self.whole)

    def of(self, rows: Tensor) -> "Proposal":
        """Those of some of the data."""
        return Proposal(self.mixture.of(rows), self.modes and self.modes.of(rows), self.exact)

    @classmethod
    def joined(cls, proposals: "Sequence[Proposal]") -> "Proposal":
        """Those of unlike data, of as many components each, and exact or not alike."""
        modes = [one.modes for one in proposals if one.modes is not None]
        mixture = Mixture.joined([one.mixture for one in proposals])
        return cls(mixture, Mixture.joined(modes) if modes else None, proposals[0].exact)


def wide(mixture: Mixture) -> Students:
    """With tails: Student's t of at least 20 degrees of freedom, and of no more spread in length than many have."""
    return mixture.students(max(20.0, 2.0 * mixture.num_dims), WIDENED)


class Beyond(NamedTuple):
    """Points that tell what a proposal misses: draws of the guide; of the prior, where there are few coordinates; and
    where these lead, where there are very few, or where starts lead that were given.
    """

    by_guide: Points
    by_prior: Points | None = None
    modes: Mixture | None = None  # found from draws of the prior, or from starts
    by_modes: Points | None = None  # draws of their mixture
    log_modes: Tensor | None = None  # its density at all of these points, (K, n)
    num_starts: int = 0
    mirrors: Tensor | None = None  # whether each turned draws of a proposal into what that missed, (M, n)

    @classmethod
    def drawn(
        cls, latents: Latents, by_guide: Points, *, search: bool = True, starts: Values | None = None
    ) -> "Beyond":
        """Those of the guide, and what the prior adds, with or without a search for modes from there.

        Args:
            latents: of n data.
            by_guide: draws of the guide.
            search: whether modes are sought from draws of the prior where there are very few coordinates.
            starts: latents, site -> (S, n, ...), from where they are sought where there are more.
        """
        num_dims = by_guide.u.shape[-1]
        if num_dims > FEW_COORDINATES and starts is None:  # in many, ratios of densities are rarely near one
            return cls(by_guide)
        if num_dims <= SEARCHED and search:
            by_prior = of_prior(latents, OF_SEARCH)
            modes = seeking.sought(latents, by_prior.u, by_prior.log_prior, by_prior.log_joint)
            return cls(by_guide, by_prior.first(OF_PRIOR))._with(latents, modes)
        by_prior = of_prior(latents, OF_PRIOR)
        if starts is None:
            return cls(by_guide, by_prior)
        points = at_values(latents, starts)
        modes = seeking.sought_from(latents, points.u, points.log_joint)
        return cls(by_guide, by_prior, num_starts=len(points.u))._with(latents, modes)

    def _with(self, latents: Latents, modes: Mixture) -> "Beyond":
        """With modes that were found, and draws of them."""
        found = self._replace(modes=modes, by_modes=scored(latents, wide(modes).sample(PILOT)))
        return found._replace(log_modes=wide(modes).log_prob(found.points.u))

    @property
    def begin(self) -> Gaussian:
        """Where to begin to climb: where the guide draws; at the heaviest mode where starts led to some."""
        if self.modes is not None and self.num_starts:
            return self.modes.heaviest
        return started(self.by_guide.u, self.by_guide.log_joint)

    @property
    def mirrored(self) -> bool:
        """Whether mirrors led to what proposals missed, and no search from the prior is there to find it."""
        searched = self.modes is not None and not self.num_starts
        return not searched and self.mirrors is not None and bool(self.mirrors.any())

    def and_by(self, mirrors: Tensor | None) -> "Beyond":
        """With some more that did."""
        return (
            self
            if mirrors is None
            else self._replace(mirrors=mirrors if self.mirrors is None else mirrors | self.mirrors)
        )

    @property
    def points(self) -> Points:
        """All of them."""
        return joined([one for one in (self.by_guide, self.by_prior, self.by_modes) if one is not None])

    @property
    def cost(self) -> int:
        """Decoder passes of the others."""
        if self.modes is not None:
            return search_cost(self.modes.num_dims, self.num_starts)
        return len(self.by_prior.u) if self.by_prior else 0

    def beside(self, own: Points) -> tuple[Points, Tensor, Tensor]:
        """All points, others in front; the densities there that drew these, (S, K, n); and their balance, (K, n)."""
        known = joined([own, self.points])
        each = [(known.log_guide, self.by_guide)]
        if self.by_prior:
            each.append((known.log_prior, self.by_prior))
        if self.by_modes and self.modes and self.log_modes is not None:
            each.append((torch.cat([wide(self.modes).log_prob(own.u), self.log_modes]), self.by_modes))
        balance = torch.stack([density + math.log(len(drawn.u)) for density, drawn in each]).logsumexp(0)
        return known, torch.stack([density for density, _ in each]), balance

    def of(self, rows: Tensor) -> "Beyond":
        """Those of some of the data."""
        by_prior, by_modes = (one and one.of(rows) for one in (self.by_prior, self.by_modes))
        log_modes = None if self.log_modes is None else self.log_modes[:, rows]
        modes = self.modes and self.modes.of(rows)
        mirrors = None if self.mirrors is None else self.mirrors[:, rows]
        return Beyond(self.by_guide.of(rows), by_prior, modes, by_modes, log_modes, self.num_starts, mirrors)


def num_of(starts: Values | None) -> int:
    """How many latents of each datum there are, site -> (S, n, ...)."""
    return len(next(iter(starts.values()))) if starts else 0


def search_cost(num_dims: int, num_starts: int = 0) -> int:
    """Decoder passes of a look for modes: of a search, or of draws of the prior alone; two for each start, to be made
    and to be scored.
    """
    if num_dims <= SEARCHED:
        return OF_SEARCH + seeking.sought_cost(num_dims) + PILOT
    return OF_PRIOR + (2 * num_starts + seeking.started_cost(num_dims) + PILOT if num_starts else 0)


class Rung(NamedTuple):
    """What makes a proposal from the last one and draws of the guide, and what it costs."""

    route: str
    adapt: Callable[[Latents, Mixture, Beyond], Mixture]
    cost: Callable[[int], int]  # coordinates -> decoder passes for each datum
    most: int = MOST_COORDINATES  # for which it is worth that
    bar: Bar = USUAL
    again: bool = False  # whether it goes on with the mixture of the last one
    tentative: bool = False  # whether it is a start for the next one, which may serve as it is
    of_modes: bool = False  # whether it takes modes that were found, where there are too many coordinates for moments
    of_mirrors: bool = False  # whether it is for proposals that miss the mirror image of a mode


def _laplace(latents: Latents, near: Mixture, _: Beyond) -> Mixture:
    return Mixture.alone(laplace(latents, near.components[0]))


def _newton(latents: Latents, near: Mixture, _: Beyond) -> Mixture:
    return Mixture.alone(newton(latents, near.components[0]))


def _mixture(latents: Latents, near: Mixture, beyond: Beyond) -> Mixture:
    """Starts from draws of guide, prior, last proposal and what was sought, weighed against all of them."""
    own = wide(near)
    drawn = [beyond.by_guide, scored(latents, own.sample(STARTS)), of_prior(latents, STARTS)]
    found = joined([*drawn, *([beyond.by_modes] if beyond.by_modes else [])])
    each = [found.log_guide, found.log_prior, own.log_prob(found.u)]
    total = torch.stack([*each, *([wide(beyond.modes).log_prob(found.u)] if beyond.modes else [])]).logsumexp(0)
    log_weight = (found.log_joint - total).nan_to_num(-math.inf, -math.inf, -math.inf)
    start = seeking.apart(latents, near, found.u, log_weight)
    return moments(latents, start if beyond.modes is None else start.beside(beyond.modes), wide)


def _moments(latents: Latents, near: Mixture, _: Beyond) -> Mixture:
    return moments(latents, near, wide)


def _of_modes(latents: Latents, _: Mixture, beyond: Beyond) -> Mixture:
    """The modes that were found, each by Newton's method: where draws are too few for moments."""
    assert beyond.modes is not None
    return seeking.each_by_newton(latents, beyond.modes)


def _of_modes_cost(num_dims: int) -> int:
    return seeking.NUM_KEPT * (newton_cost(num_dims) + 1)


def _mirrored(latents: Latents, near: Mixture, beyond: Beyond) -> Mixture:
    """A mode, and what it becomes by mirrors that lead to what it alone misses."""
    return near if beyond.mirrors is None else mirrored(latents, near, beyond.mirrors)


def _mixture_cost(num_dims: int) -> int:
    starts = (seeking.NUM_COMPONENTS - 1) * laplace_cost(num_dims)
    return 3 * STARTS + starts + moments_cost(num_dims)


RUNGS = (
    Rung("Laplace", _laplace, laplace_cost, FEW_COORDINATES, STRICT, tentative=True),
    *[Rung("Newton", _newton, newton_cost)] * 3,
    Rung("moments", _moments, moments_cost, FEW_COORDINATES),
    Rung("mixture", _mirrored, lambda num_dims: MOST_IMAGES, of_mirrors=True),
    Rung("mixture", _mixture, _mixture_cost, FEW_COORDINATES),
    Rung("mixture", _moments, moments_cost, FEW_COORDINATES, again=True),
    Rung("mixture", _of_modes, _of_modes_cost, of_modes=True),
)
