r"""Estimators: pure functions of a table of log densities, (K, N) -> (N,), in nats and in float64.

With z_1..z_K ~ q(z|x) for each of N data and log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x):

.. math::
    \mathrm{ELBO} = \tfrac1K \sum_k \log w_k \;\le\; \log \hat p(x) = \log \tfrac1K \sum_k w_k

Every estimator has its Monte-Carlo standard error beside it, named ``..._se``. Nothing here knows Pyro or a model.
Those of the weights' Pareto tail stand in a module of their own and are named here too.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.evidence.pareto import FEWEST_WEIGHTS as FEWEST_WEIGHTS
from pyrovae.evidence.pareto import FINE as FINE
from pyrovae.evidence.pareto import ParetoTail as ParetoTail
from pyrovae.evidence.pareto import pareto_k as pareto_k
from pyrovae.evidence.pareto import pareto_k_threshold as pareto_k_threshold
from pyrovae.evidence.pareto import pareto_tail as pareto_tail
from pyrovae.evidence.pareto import psis as psis

FEWEST_DRAWS = 16  # fewer tell neither their spread nor their skewness


def mean(values: Tensor) -> Tensor:
    """Mean over particles: values (K, N) -> (N,)."""
    return values.double().mean(0)


def mean_se(values: Tensor) -> Tensor:
    """Standard error of :func:`mean`: sd over particles / sqrt(K), (K, N) -> (N,); NaN for K = 1."""
    return values.double().std(0) / math.sqrt(len(values)) if len(values) > 1 else _nan(values)


def skewness(values: Tensor) -> Tensor:
    r"""What :func:`mean_se` is worth: skewness G of each datum's K values, (K, ..., N) -> (N,); 0 where they are equal.

    Of strata (K, J, N), whose means are added up, it is that of one draw of each. By Cochran's rule, +-1.96 standard
    errors of a mean hold it in at least 94 of 100 cases from K > 25 G^2 draws on (:func:`is_skewed`).

    .. math:: G = \sum_j m_{3j} \Big/ \Big(\sum_j m_{2j}\Big)^{3/2}

    References:
        Cochran (1977), Sampling Techniques, third edition, Wiley, section 2.15.
    """
    values = values.double()
    away = (values - values.mean(0)).flatten(1, -2) if values.dim() > 2 else (values - values.mean(0))[:, None]
    square = away * away  # two products, as pow(3) is slower
    second, third = square.mean(0).sum(0), (square * away).mean(0).sum(0)
    return torch.where(second == 0, 0.0, third / second.pow(1.5))


def is_skewed(skew: Tensor, num_draws: int) -> Tensor:
    """Where a standard error may be too small: fewer than 16 draws, or than 25 G^2 (or G is NaN): (N,) -> (N,).

    Example:
        >>> is_skewed(torch.tensor([1.0, -3.0, math.nan]), 100)
        tensor([False,  True,  True])
    """
    return ~(skew.square() * 25 < num_draws) | (num_draws < FEWEST_DRAWS)


def is_skewed_for_few(skew: Tensor, num_draws: Tensor | int) -> Tensor:
    """Where not even a standard error that :func:`few_draws_factor` widens is enough: (N,) -> (N,).

    Few draws show a skewness by chance, so that their G^2 may be greater by 70 / K than Cochran's K / 25; fewer than 16
    hide one (measured, see ``tests/benchmarks/coverage.py``).
    """
    return ~(skew.square() < num_draws / 25 + 70 / num_draws) | (num_draws < FEWEST_DRAWS)


def few_draws_factor(values: Tensor) -> Tensor:
    r"""What a standard error from few draws lacks: (K, N) -> (N,), at least 1.

    The factor by which +-1.96 standard errors of a mean of K values hold it in 95 of 100 cases to the order of 1/K,
    with their skewness G and excess kurtosis H. The last term stands for Student's quantile, and is within 2 % of it.

    .. math:: 1 + \tfrac1K \Big( \tfrac{z^4 + 2 z^2 - 3}{18} G^2 - \tfrac{z^2 - 3}{12} H \Big)
        + \tfrac{z^2 + 1}{4 (K - 2)}, \qquad z = 1.96

    References:
        Hall (1992), The Bootstrap and Edgeworth Expansion, Springer, section 2.6.
    """
    away = values.double() - values.double().mean(0)
    second, fourth = (away.pow(power).mean(0) for power in (2, 4))
    excess = torch.where(second == 0, 0.0, fourth / second.square() - 3)
    z2 = 1.96**2
    lacking = (z2**2 + 2 * z2 - 3) / 18 * skewness(values).square() - (z2 - 3) / 12 * excess
    return 1 + (lacking / len(values) + (z2 + 1) / 4 / max(len(values) - 2, 0.22)).clamp(min=0)


def mean_se_of_few(values: Tensor) -> Tensor:
    """Standard error of a mean of few values, widened by :func:`few_draws_factor`: (K, N) -> (N,); NaN for K = 1."""
    return mean_se(values) * few_draws_factor(values)


def elbo(log_weight: Tensor) -> Tensor:
    """Evidence lower bound, mean log w: (K, N) -> (N,) nats.

    Example:
        >>> elbo(torch.tensor([[0.0], [2.0]]))
        tensor([1.], dtype=torch.float64)
    """
    return mean(log_weight)


def log_evidence(log_weight: Tensor) -> Tensor:
    """Importance-sampled log p(x), logsumexp log w - log K: (K, N) -> (N,) nats; a lower bound in expectation.

    References:
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, arXiv:1509.00519.
    """
    return torch.logsumexp(log_weight.double(), 0) - math.log(len(log_weight))


def log_evidence_se(log_weight: Tensor) -> Tensor:
    """Standard error of :func:`log_evidence` by the delta method: sd(w / mean w) / sqrt(K), (K, N) -> (N,)."""
    return mean_se(relative_weight(log_weight))


def log_evidence_se_of_few(log_weight: Tensor) -> Tensor:
    """Standard error of :func:`log_evidence` of few draws, such as chains: the delta method's, widened, (K, N) -> (N,).

    Of 16 weights the plain one holds log p(x) in 88 to 96 of 100 cases, this one in 93 to 97 where no few of them
    outweigh the others (:func:`few_draws_factor`).
    """
    return mean_se_of_few(relative_weight(log_weight))


def log_evidence_se_of_strata(strata: Sequence[Tensor]) -> Tensor:
    r"""Standard error of :func:`log_evidence` of all draws together, where so many are of each stratum by design.

    .. math:: se^2 = \sum_s (K_s / K)^2 \, \mathrm{var}_s(w) / K_s \, / \, \bar w^2

    Args:
        strata: log weights, (K_s, N) each.

    References:
        Owen and Zhou (2000), Safe and effective importance sampling, JASA 95:135.
    """
    second, _ = _moments_of_strata(strata)
    return second.sqrt()


def skewness_of_strata(strata: Sequence[Tensor]) -> Tensor:
    """What :func:`log_evidence_se_of_strata` is worth: the skewness of the mean, times the root of K."""
    second, third = _moments_of_strata(strata)
    return torch.where(second == 0, 0.0, third / second.pow(1.5)) * sum(map(len, strata)) ** 0.5


def difference_of_independent(
    of_first: tuple[Tensor, Tensor], of_second: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Standard error and skewness of the difference of two means of as many independent draws, from those of each."""
    (first, skew), (second, other) = of_first, of_second
    variance = first.square() + second.square()
    third = skew * first.pow(3) - other * second.pow(3)
    return variance.sqrt(), torch.where(variance == 0, 0.0, third / variance.pow(1.5))


def _moments_of_strata(strata: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Second and third central moment of the mean of relative weights, (N,) each."""
    together = torch.cat([part.double() for part in strata])
    weights = relative_weight(together).split([len(part) for part in strata])
    second, third = torch.zeros_like(together[0]), torch.zeros_like(together[0])
    for weight in weights:
        away, fraction = weight - weight.mean(0), len(weight) / len(together)
        second = second + fraction**2 * (away * away).sum(0) / (len(weight) * (len(weight) - 1) or math.nan)
        third = third + fraction**3 * (away * away * away).sum(0) / len(weight) ** 3
    return second, third


def log_evidence_bias(se: Tensor) -> Tensor:
    """Bias of :func:`log_evidence`, -se^2 / 2 for each datum: (N,) -> (N,) nats. It does not shrink with N.

    The second term of the delta method (Nowozin 2018, arXiv:1806.04542); itself too small where k-hat is high.
    """
    return -se.square() / 2


def log_evidence_jackknife(log_weight: Tensor) -> Tensor:
    r"""Evidence without the 1/K term of its bias: (K, N) -> (N,) nats. No longer a lower bound, not even on average.

    .. math:: K \, L_K - \tfrac{K-1}{K} \sum_k L_{K-1}^{(-k)}

    with L_K the :func:`log_evidence` of all weights and the others those without weight k. NaN for K = 1; +inf where
    one weight alone is not zero, as there is no evidence without it.

    References:
        Nowozin (2018), Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
        variational inference, ICLR, arXiv:1806.04542 (there JVI-1).

    Example:
        >>> weight = torch.tensor([[1.0], [3.0]])
        >>> float(log_evidence_jackknife(weight.log()).exp())  # 2 log 2 - (log 1 + log 3) / 2
        2.309...
    """
    return mean(_pseudo_values(log_weight))


def log_evidence_jackknife_se(log_weight: Tensor) -> Tensor:
    """Standard error of :func:`log_evidence_jackknife`: sd of the jackknife's pseudo-values / sqrt(K), (K, N) -> (N,).

    References:
        Tukey (1958), Bias and confidence in not quite large samples, Annals of Mathematical Statistics 29:614.
    """
    return mean_se(_pseudo_values(log_weight))


def _pseudo_values(log_weight: Tensor) -> Tensor:
    """K L_K - (K - 1) L_{K-1} without weight k, (K, N): their mean is the jackknife, their spread its error."""
    num_particles, evidence = len(log_weight), log_evidence(log_weight)
    if num_particles == 1:
        return torch.full_like(log_weight, math.nan, dtype=torch.float64)
    log_fraction = log_weight.double() - evidence - math.log(num_particles)  # log w_k / sum w
    largest = log_fraction.argmax(0, keepdim=True)
    rest = torch.log1p(-log_fraction.exp())
    # 1 - w / sum w cancels for the largest weight: there the others are summed by themselves.
    rest.scatter_(0, largest, log_fraction.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True))
    values = evidence + (num_particles - 1) * (math.log1p(-1 / num_particles) - rest)
    return torch.where(evidence == -math.inf, -math.inf, values)


def kl_posterior(log_weight: Tensor) -> Tensor:
    """Estimate of KL(q(z|x) || p(z|x)): log evidence - ELBO, (K, N) -> (N,) nats; >= 0, biased down."""
    return log_evidence(log_weight) - elbo(log_weight)


def kl_posterior_se(log_weight: Tensor) -> Tensor:
    """Standard error of :func:`kl_posterior`, (K, N) -> (N,).

    Evidence and ELBO come from the same draws, so their errors are taken together, never in quadrature.
    """
    return mean_se(relative_weight(log_weight) - log_weight.double())


def relative_weight(log_weight: Tensor) -> Tensor:
    """Weights divided by their mean over particles, w / mean w: (K, N) -> (K, N)."""
    return (log_weight.double() - log_evidence(log_weight)).exp()


def ess(log_weight: Tensor) -> Tensor:
    """Effective sample size (sum w)^2 / sum w^2 of K, (K, N) -> (N,).

    References:
        Kong (1992), A note on importance sampling using standardized weights.
    """
    log_weight = log_weight.double()
    return (2 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2 * log_weight, 0)).exp()


def log_evidence_psis(log_weight: Tensor, resolution: Tensor | float = 1e-12) -> Tensor:
    """Evidence of the :func:`psis` weights, log of their mean: (K, N) -> (N,) nats."""
    return log_evidence(psis(log_weight, resolution))


def _nan(values: Tensor) -> Tensor:
    return torch.full(values.shape[1:], math.nan, dtype=torch.float64, device=values.device)
