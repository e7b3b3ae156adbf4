r"""The posterior of one datum by sampling importance resampling: the guide's draws, taken anew by their weights.

.. math:: z_k \sim q(z \mid x), \qquad w_k = p(x, z_k) / q(z_k \mid x), \qquad P(\text{take } z_k) = w_k / \sum_j w_j

It takes discrete latents too, and is as good as the guide's coverage of the posterior.
"""

import math
from typing import NamedTuple

import torch

from pyrovae.base.random import seed_everything
from pyrovae.evidence import estimators
from pyrovae.evidence.resampling import resample
from pyrovae.pairs.checks import looks
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.terms import LogTerms, SiteTerms, check_finite
from pyrovae.posteriors.methods import Answer, Evidence, Plan, weighted_moments
from pyrovae.posteriors.unconstrained import of_one_datum


class Weights(NamedTuple):
    """How good the importance weights are."""

    ess: float  # effective sample size (sum w)^2 / sum w^2
    pareto_k: float  # -inf where the guide is exact, NaN where undefined, see estimators.pareto_k
    num_particles: int  # K
    is_one_point: bool = False  # whether all K draws are one and the same value
    is_rounded: bool = False  # whether the weights differ by less than rounding can make of equal ones

    @property
    def threshold(self) -> float:
        """The k-hat above which the weights cannot be trusted."""
        return estimators.pareto_k_threshold(self.num_particles)

    def lines(self) -> list[str]:
        shape = {-math.inf: "the guide is exact", math.inf: "weights span more than doubles do"}.get(
            self.pareto_k, f"Pareto k-hat {self.pareto_k:.2f} (threshold {self.threshold:.2f})"
        )
        if math.isnan(self.pareto_k):
            why = "all draws are equal" if self.is_one_point else "few particles, or discrete latents"
            shape = f"Pareto k-hat undefined ({why})"
        return [f"{self.num_particles} particles of the guide: effective sample size {self.ess:.1f}; {shape}"]

    def doubts(self) -> list[str]:
        """Whether the guide misses too much of the posterior."""
        if self.is_one_point:
            return [
                f"all {self.num_particles} draws of the guide are one and the same value: nothing tells what it "
                "misses. Raise num_particles, or widen the guide"
            ]
        if self.is_rounded:
            return [
                f"the digits of the programs' dtype do not tell the weights of {self.num_particles} particles apart: "
                "log p(x) may be off by more than its error; run the programs in double precision"
            ]
        if not self.pareto_k > self.threshold:
            return []
        return [
            f"the Pareto k-hat of the weights is {self.pareto_k:.2f}, above {self.threshold:.2f}: the guide misses a "
            "part of the posterior, and so do these draws. Raise num_particles, or use method='nuts' or method='grid'"
        ]


def by_resampling(latents: Latents, plan: Plan) -> Answer:
    """The posterior of one datum from K weighted draws of the guide.

    Moments are those of all K weighted particles. Equal draws stand side by side, so that an effective sample size
    that looks at autocorrelation sees them.

    Raises:
        InputError: if the guide has auxiliary draws, and so no density at given latents, or cannot draw all that the
            prior can.
        FloatingPointError: naming the site, where a density is NaN or a weight is infinite; if all are zero.

    References:
        Rubin (1987), comment on The calculation of posterior distributions by data augmentation, JASA 82:543.
    """
    looks.check_supports(latents.particles.shown)
    seed_everything("reference", plan.seed, 1)
    values, terms = _particles(latents, plan.num_particles)
    log_weight = terms.log_weight
    rows = resample(log_weight, plan.num_draws).squeeze(1)
    weight = log_weight.squeeze(1).softmax(0)
    moments = weighted_moments(values, weight)
    spread = {name: (value.double() - moments.mean[name]).square() for name, value in values.items()}
    error = {name: torch.tensordot(weight.square(), square, 1).sqrt() for name, square in spread.items()}
    evidence = Evidence(estimators.log_evidence(log_weight).item(), estimators.log_evidence_se(log_weight).item())
    is_one_point = all(bool((value == value[:1]).all()) for value in values.values())
    resolution = math.nan if is_one_point else terms.resolution  # equal draws have equal weights
    shape = estimators.pareto_k(log_weight, resolution).item()
    enough = plan.num_particles >= estimators.FEWEST_WEIGHTS and not latents.structure.has_discrete
    is_rounded = enough and math.isnan(shape) and not is_one_point
    weights = Weights(estimators.ess(log_weight).item(), shape, plan.num_particles, is_one_point, is_rounded)
    return Answer({name: value[rows][None] for name, value in values.items()}, moments, error, evidence, weights)


def _particles(latents: Latents, num_particles: int) -> tuple[Values, LogTerms]:
    """Draws of the guide, site -> (K, *event), and their table of densities, (K, 1) each."""
    parts = [_drawn(latents, size) for size in latents.part_sizes(num_particles)]
    values = {name: torch.cat([part[name] for part, _ in parts]) for name in latents.sites}
    return values, LogTerms(*map(torch.cat, zip(*(terms for _, terms in parts), strict=True)))


def _drawn(latents: Latents, num_particles: int) -> tuple[Values, LogTerms]:
    values = latents.draw(num_particles)
    joint, guide = latents.log_joint(values), latents.site_log_guide(values)
    likelihood = {", ".join(latents.structure.observed): joint.log_likelihood}
    check_finite(SiteTerms(likelihood, {", ".join(latents.sites): joint.log_prior}, guide))
    log_guide = torch.stack([*guide.values()]).sum(0)
    dtype = log_guide.dtype  # of the programs: it says how finely weights are resolved
    terms = LogTerms(joint.log_likelihood.to(dtype), joint.log_prior.to(dtype), log_guide)
    return of_one_datum(values), terms
