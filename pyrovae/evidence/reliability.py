"""How far a mean of log p(x) over data is to be trusted: what every record with one says of it, in the same words."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.forms.tables import text
from pyrovae.base.records import mean_and_se, number
from pyrovae.evidence import estimators

ERRORS_GIVEN_FIT = "all errors are given this one fit; data SE holds the Monte-Carlo noise already"
UNRELIABLE_FRACTION = 0.05  # of data whose k-hat is too high or undefined, above which their mean is not to be trusted

FEWEST_EFFECTIVE = 5  # draws that must carry the evidence of a datum
MISSED = 0.03  # nats that other draws may find beside an estimate that is taken

UNRELIABLE = "unreliable: fraction of data whose evidence may be too low by more than the error says"

WHERE_DRAWN = (  # said under diagnostics that find nothing
    "k-hat and ESS see only where draws fall: a mode the guide misses shows in defensive=, calibrate, bidirectional"
)

UNRESOLVED = "the digits of the programs' dtype do not tell the weights apart: evaluate with dtype='float64'"


def evidence_and_errors(log_evidence: Tensor, mc_se: Tensor) -> dict[str, float | None]:
    """Mean of log p(x) over data (N,) with its standard errors and its bias, for JSON."""
    return mean_and_se(log_evidence, mc_se) | {"bias": number(estimators.log_evidence_bias(mc_se).mean())}


def is_unreliable(
    pareto_k: Tensor,
    ess: Tensor,
    num_weights: Tensor | int,
    skew: Tensor | None = None,
    annealed: Tensor | None = None,
) -> Tensor:
    """Whether nothing vouches for the evidence of a datum, or for draws by their weights: (N,) each -> (N,).

    Its k-hat is above the threshold or undefined, fewer than five effective draws carry it, of which k-hat tells
    little; or, where it is annealed, the weights of its few chains are too skewed for the error that is stated.
    """
    counts, most = torch.as_tensor(num_weights, device=pareto_k.device).expand_as(pareto_k), torch.zeros_like(pareto_k)
    for count in counts.unique().tolist():
        most[counts == count] = estimators.pareto_k_threshold(int(count))
    doubted = ~(pareto_k <= most) | (ess < FEWEST_EFFECTIVE)
    if skew is not None and annealed is not None:
        doubted = doubted | (annealed & estimators.is_skewed_for_few(skew, counts))
    return doubted & (pareto_k != -math.inf)


def finds_more(log_weight: Tensor, evidence: Tensor, se: Tensor) -> Tensor:
    """Whether weights (K, N) find more than an estimate (N,) with an error (N,), by ``MISSED`` and 3 errors: (N,).

    An error that is undefined counts for nothing, as where no draw of the estimate has a density.
    """
    errors = torch.stack([se, estimators.log_evidence_se(log_weight)]).nan_to_num(0.0)
    return estimators.log_evidence(log_weight) - evidence > MISSED + 3 * errors.norm(dim=0)


def fraction_unreliable(pareto_k: Tensor, num_particles: int) -> float:
    """Fraction of the data (N,) whose evidence nothing vouches for: k-hat above its threshold, or undefined."""
    unreliable = (pareto_k > estimators.pareto_k_threshold(num_particles)) | pareto_k.isnan()
    return unreliable.double().mean().item()


def fraction_skewed(skewness: Tensor, num_draws: int, pareto_k: Tensor) -> float:
    """Fraction of the data (N,) whose Monte-Carlo error may be too small, as the terms of its mean are too skewed."""
    return (estimators.is_skewed(skewness, num_draws) & (pareto_k != -math.inf)).double().mean().item()


def skewed_errors(fractions: Mapping[str, float], rule: str) -> list[str]:
    """A line on the Monte-Carlo errors that may be too small for more than 5 % of the data; none where there are none.

    Args:
        fractions: quantity -> fraction of the data.
        rule: how many draws there are, and of what.
    """
    many = {name: fraction for name, fraction in fractions.items() if fraction > UNRELIABLE_FRACTION}
    found = [f"{name} ({fraction:.0%} of data)" for name, fraction in many.items()]
    return [f"MC SE may be too small, as terms are too skewed for {rule}: {', '.join(found)}"] if found else []


def effective_size(of: str, size: Mapping[str, Any]) -> str:
    """A line on the effective sample sizes of the data."""
    return f"effective sample size of {of}: median {text(size['median'], '.1f')}, least {text(size['min'], '.1f')}"
