r"""EM step by step, for factor analysis and for mixtures of normals: each step can be looked at before the next.

The E step finds q(z) = p(z | x) under the parameters that there are, the M step the best parameters for that q:

.. math:: \theta_{t+1} = \arg\max_\theta \sum_n E_{p_{\theta_t}(z \mid x_n)} [\log p_\theta(x_n, z)], \qquad
    \log p_{\theta_{t+1}}(x) \ge \log p_{\theta_t}(x)

It is a VAE in which encoder and decoder take turns and the encoder is exact, so that the ELBO touches log p(x). Where
an M step is not that maximum, as with a ridge on the covariances of a mixture, log p(x) may fall, and the fit ends.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.base.random import stream
from pyrovae.base.steps import Step
from pyrovae.programs.baselines.em import spread_rows
from pyrovae.programs.oracles.linear_gaussian import LinearGaussian

LEAST_VARIANCE = 1e-6  # of that of a value in all rows: of its noise, or added within a component
Parameters = dict[str, Tensor]


def factor_analysis_steps(
    x: Tensor,
    num_factors: int,
    *,
    num_steps: int = 1000,
    tolerance: float = 1e-7,
    start: Mapping[str, Tensor] | None = None,
    seed: int | None = None,
) -> Iterator[Step]:
    r"""EM for factor analysis, x | z ~ N(W z + m, diag psi), z ~ N(0, I_k), in float64.

    With S the covariance of the data and z_n ~ N(mu_n, C) the posterior, the M step is

    .. math:: W = \Big(\sum_n (x_n - m) \mu_n^T\Big) \Big(N C + \sum_n \mu_n \mu_n^T\Big)^{-1}, \qquad
        \psi = \mathrm{diag}\Big(S - \frac1N W \sum_n \mu_n (x_n - m)^T\Big)

    psi is kept at 1e-6 of the variance of its value or above. Log p(x) never falls all the same: W is the best whatever
    psi is, and what an M step maximises has in each entry of psi one maximum, so that the floor is best where it is
    above that. (A ``start`` below the floor may lose log p(x) in the first step.)

    Args:
        x: data, (N, *shape).
        num_factors: k.
        num_steps: at most.
        tolerance: the fit ends with a step that gains less, in nats per datum.
        start: "loadings" (D, k) and "noise" (D,) to begin at; None begins at the principal axes of the correlations.
        seed: draws loadings to begin at in their place: with many factors, EM may end in a lower maximum from there.

    Yields:
        Each :class:`~pyrovae.base.steps.Step`: parameters "loadings" W, "noise" psi and "loc" m; posterior "mean"
        (N, k) and "covariance" (k, k).

    Raises:
        InputError: for fewer than two data, values that are constant or missing, or k not in 1..D - 1.

    References:
        Rubin and Thayer (1982), EM algorithms for ML factor analysis, Psychometrika 47:69.
        Ghahramani and Hinton (1996), The EM algorithm for mixtures of factor analyzers, CRG-TR-96-1.

    Example:
        >>> import pyrovae as pv
        >>> x, _ = pv.oracles.factor_analysis(6, 2).draw(200, seed=0)
        >>> found = [step.log_evidence for step in factor_analysis_steps(x, 2, num_steps=20)]
        >>> all(a <= b for a, b in zip(found, found[1:]))
        True
    """
    rows = _rows(x)
    check_at_least_one(num_factors=num_factors, num_steps=num_steps)
    if num_factors >= rows.shape[1]:
        raise InputError(f"num_factors must be at most {rows.shape[1] - 1}, one fewer than there are values")
    loc = rows.mean(0)
    centred = rows - loc
    variance = centred.square().mean(0)

    def expect(now: Parameters) -> tuple[Parameters, float]:
        model = LinearGaussian(now["loadings"], loc, now["noise"].sqrt())
        posterior = model.posterior(rows)
        found = {"mean": posterior.mean, "covariance": posterior.covariance_matrix[0]}
        return found, float(model.log_evidence(rows).mean())

    def maximize(posterior: Parameters) -> Parameters:
        mean = posterior["mean"]
        together = centred.T @ mean / len(rows)
        loadings = torch.linalg.solve(posterior["covariance"] + mean.T @ mean / len(rows), together.T).T
        noise = (variance - (loadings * together).sum(1)).clamp_min(LEAST_VARIANCE * variance)
        return {"loadings": loadings, "noise": noise, "loc": loc}

    first = _principal(centred, num_factors) if seed is None else _drawn(variance, num_factors, seed)
    return _alternate(first | {"loc": loc} | dict(start or {}), expect, maximize, num_steps, tolerance)


def _principal(centred: Tensor, num_factors: int) -> Parameters:
    """Probabilistic PCA of standardised data, in their units."""
    scale = centred.square().mean(0).sqrt()
    values, vectors = torch.linalg.eigh((centred / scale).T.cov(correction=0).reshape(len(scale), -1))
    noise = values[:-num_factors].mean().clamp_min(LEAST_VARIANCE)
    axes = vectors[:, -num_factors:] * (values[-num_factors:] - noise).clamp_min(0).sqrt()
    return {"loadings": scale[:, None] * axes, "noise": noise * scale.square()}


def _drawn(variance: Tensor, num_factors: int, seed: int) -> Parameters:
    noise = stream("factor analysis", seed)
    drawn = torch.randn(len(variance), num_factors, generator=noise, dtype=torch.float64) / math.sqrt(num_factors)
    return {"loadings": variance.sqrt()[:, None] * drawn, "noise": variance}


def mixture_steps(
    x: Tensor,
    num_components: int,
    *,
    num_steps: int = 1000,
    tolerance: float = 1e-7,
    least_variance: float = LEAST_VARIANCE,
    start: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Iterator[Step]:
    r"""EM for a mixture of C normals of full covariance, in float64.

    With r_nk = p(k | x_n), the M step is

    .. math:: w_k = \frac1N \sum_n r_{nk}, \quad m_k = \frac{\sum_n r_{nk} x_n}{\sum_n r_{nk}}, \quad
        S_k = \frac{\sum_n r_{nk} (x_n - m_k)(x_n - m_k)^T}{\sum_n r_{nk}} + \epsilon \, \mathrm{diag}(\mathrm{var}\, x)

    With epsilon > 0 this M step maximises :math:`E_q[\log p(x, z)] - \frac12 \sum_k \mathrm{tr}(S_k^{-1} R)
    \sum_n r_{nk}`, R being the ridge, while the E step knows nothing of R: log p(x) then may fall, in particular where
    a component is hardly wider than the ridge. A step that falls is the last, as it gains less than the tolerance.

    Args:
        x: data, (N, *shape).
        num_components: C.
        num_steps: at most.
        tolerance: the fit ends with a step that gains less, in nats per datum.
        least_variance: epsilon, which keeps a component from a single datum; at 0 the ridge is none.
        start: "weights" (C,), "means" (C, D) and "covariances" (C, D, D) to begin at; None begins at rows far from each
            other, with equal weights and the covariance of all data.
        seed: of the choice of these rows.

    Yields:
        Each :class:`~pyrovae.base.steps.Step`: parameters as in ``start``; posterior "responsibility", r, (N, C).

    Raises:
        InputError: for fewer than two data, values that are constant or missing, or C not in 1..N.

    References:
        Dempster, Laird and Rubin (1977), doi:10.1111/j.2517-6161.1977.tb01600.x.

    Example:
        >>> x = torch.cat([torch.randn(100, 2), torch.randn(100, 2) + 8])
        >>> *_, last = mixture_steps(x, 2)
        >>> [round(weight, 2) for weight in last.parameters["weights"].tolist()]
        [0.5, 0.5]
    """
    rows = _rows(x)
    check_at_least_one(num_components=num_components, num_steps=num_steps)
    if num_components > len(rows):
        raise InputError(f"num_components must be at most {len(rows)}, the data, got {num_components}")
    covariance = rows.T.cov(correction=0).reshape(rows.shape[1], -1)
    ridge = least_variance * covariance.diagonal().diag()

    def expect(now: Parameters) -> tuple[Parameters, float]:
        each = dist.MultivariateNormal(now["means"], now["covariances"])
        log_joint = now["weights"].log() + each.log_prob(rows[:, None])
        return {"responsibility": log_joint.softmax(1)}, float(log_joint.logsumexp(1).mean())

    def maximize(posterior: Parameters) -> Parameters:
        weight = posterior["responsibility"]
        count = weight.sum(0).clamp_min(1e-12)
        means = weight.T @ rows / count[:, None]
        away = (rows - means[:, None]) * (weight.T / count[:, None]).sqrt()[..., None]  # (C, N, D)
        return {"weights": count / count.sum(), "means": means, "covariances": away.mT @ away + ridge}

    means = rows[spread_rows(rows, num_components, stream("mixture", seed))]
    weights = torch.full((num_components,), 1 / num_components, dtype=torch.float64)
    first = {"weights": weights, "means": means, "covariances": (covariance + ridge).expand(num_components, -1, -1)}
    return _alternate(first | dict(start or {}), expect, maximize, num_steps, tolerance)


def _rows(x: Tensor) -> Tensor:
    """Data as rows, (N, D), float64."""
    rows = x.detach().double().flatten(1).cpu()
    if len(rows) < 2 or not bool(rows.isfinite().all()):
        raise InputError(f"EM takes two data or more without missing values, got {len(rows)}")
    if constant := int((rows == rows[0]).all(0).sum()):
        raise InputError(
            f"{constant} of {rows.shape[1]} values are constant, where no density has a bound: leave them out"
        )
    return rows


def _alternate(
    parameters: Parameters,
    expect: Callable[[Parameters], tuple[Parameters, float]],
    maximize: Callable[[Parameters], Parameters],
    num_steps: int,
    tolerance: float,
) -> Iterator[Step]:
    """E steps and M steps in turns."""
    before = -math.inf
    for _ in range(num_steps):
        posterior, log_evidence = expect(parameters)
        yield Step(parameters, posterior, log_evidence)
        if log_evidence - before < tolerance:
            return
        before, parameters = log_evidence, maximize(posterior)
