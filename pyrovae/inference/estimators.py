r"""Estimators: pure functions of a table of log densities, (K, N) -> (N,), in nats and in float64.

With z_1..z_K ~ q(z|x) for each of N data and log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x):

.. math::
    \mathrm{ELBO} = \tfrac1K \sum_k \log w_k \;\le\; \log \hat p(x) = \log \tfrac1K \sum_k w_k

Every estimator has its Monte-Carlo standard error beside it, named ``..._se``. Nothing here knows Pyro or a model.
"""

import math

import torch
from torch import Tensor


def mean(values: Tensor) -> Tensor:
    """Mean over particles: values (K, N) -> (N,)."""
    return values.double().mean(0)


def mean_se(values: Tensor) -> Tensor:
    """Standard error of :func:`mean`: sd over particles / sqrt(K), (K, N) -> (N,); NaN for K = 1."""
    return values.double().std(0) / math.sqrt(len(values)) if len(values) > 1 else _nan(values)


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


def log_evidence_bias(se: Tensor) -> Tensor:
    """Bias of :func:`log_evidence`, -se^2 / 2 for each datum: (N,) -> (N,) nats. It does not shrink with N.

    The second term of the delta method (Nowozin 2018, arXiv:1806.04542); itself too small where k-hat is high.
    """
    return -se.square() / 2


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


def pareto_k(log_weight: Tensor, resolution: Tensor | float = 1e-12) -> Tensor:
    """Shape of the generalized Pareto tail of each datum's own weights: (K, N) -> (N,).

    Above :func:`pareto_k_threshold` the evidence of that datum cannot be trusted. The tail is the largest
    min(K/5, 3 sqrt K) weights; the fit is that of Zhang and Stephens with the weak prior of PSIS.

    Args:
        log_weight: (K, N).
        resolution: nats, scalar or (N,): weights that differ by less are equal to rounding.

    Returns:
        (N,); -inf where the weights are constant to ``resolution`` (the guide is exact), +inf where the tail
        spans more than doubles do, NaN where k-hat is undefined (K < 25, a NaN, or a tail of mostly equal
        weights, as discrete latents give).

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25:72.
        Zhang and Stephens (2009), A new and efficient estimation method for the generalized Pareto
        distribution, Technometrics 51:316.
    """
    log_weight = log_weight.double()
    num_particles = len(log_weight)
    exact = (log_weight.amax(0) - log_weight.amin(0) <= resolution) & log_weight.isfinite().all(0)
    exact = exact & (num_particles > 1)
    if num_particles < 25:
        return torch.where(exact, -math.inf, _nan(log_weight))
    size = math.floor(min(num_particles / 5, 3 * math.sqrt(num_particles)))
    top = torch.topk(log_weight, size + 1, dim=0).values.flip(0)  # ascending; row 0 is the cutoff
    tail = (top[1:] - top[-1]).exp() - (top[0] - top[-1]).exp()
    spread_out = _quartile(tail) < 1e-300  # one weight in 10^300 of another: no fit, and no doubt either
    shape = torch.where(spread_out, math.inf, _generalized_pareto_shape(tail))
    defined = ~log_weight.isnan().any(0) & _mostly_distinct(top) & ~shape.isnan()
    return torch.where(exact, -math.inf, torch.where(defined, shape, math.nan))


def pareto_k_threshold(num_particles: int) -> float:
    """The k-hat above which K weights are not enough: min(1 - 1/log10 K, 0.7) (Vehtari et al. 2024).

    Example:
        >>> round(pareto_k_threshold(1000), 3)
        0.667
    """
    return min(1 - 1 / math.log10(num_particles), 0.7) if num_particles > 1 else math.nan


def _generalized_pareto_shape(tail: Tensor) -> Tensor:
    """Posterior mean of the shape under Zhang and Stephens' prior: excesses (M, N), ascending, -> (N,)."""
    size, num_points = len(tail), 30 + math.isqrt(len(tail))
    points = torch.arange(1, num_points + 1, dtype=tail.dtype, device=tail.device) - 0.5
    theta = (1 - (num_points / points).sqrt())[:, None] / (3 * _quartile(tail)) + 1 / tail[-1]  # (points, N)
    shape = torch.stack([torch.log1p(-t * tail).mean(0) for t in theta])
    profile = size * ((-theta / shape).log() - shape - 1)  # log likelihood of each theta
    best = (profile.softmax(0) * theta).sum(0)
    shape = torch.log1p(-best * tail).mean(0)
    return (size * shape + 10 * 0.5) / (size + 10)  # ten observations' worth of shape 1/2


def _quartile(ascending: Tensor) -> Tensor:
    return ascending[int(len(ascending) / 4 + 0.5) - 1]


def _mostly_distinct(ascending: Tensor) -> Tensor:
    """Whether most of a datum's largest weights differ, (M, N) -> (N,): rounding makes few ties, discreteness many."""
    return (ascending.diff(dim=0) > 0).double().mean(0) > 0.5


def _nan(values: Tensor) -> Tensor:
    return torch.full(values.shape[1:], math.nan, dtype=torch.float64, device=values.device)
