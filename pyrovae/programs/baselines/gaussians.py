r"""Normal baselines, fitted by maximum likelihood to the mean m and the covariance S of the rows without gaps.

.. math:: x \sim N(m, S), \qquad x \sim N(m, W W^T + \sigma^2 I), \qquad x \sim N(m, W W^T + \mathrm{diag}(\psi))

A row with missing entries has the normal of those that are there. To standardise columns changes nothing in the first
and the last; probabilistic PCA goes by the unit of the data.
"""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.baselines.rows import Baseline, Rows, Sites, best_size, check_density

MOST_STEPS = 10_000
TOLERANCE = 1e-8  # nats per datum that a step of factor analysis must gain
LEAST_NOISE = 1e-6  # of the variance of a value


def normal(rows: Rows) -> Baseline:
    """One normal of full covariance.

    Raises:
        InputError: if columns are masses or constant, or the covariance is singular.
    """
    check_density(rows, "normal")
    loc, covariance = _moments(rows)
    scale = covariance.diagonal().sqrt()
    if torch.linalg.eigvalsh(covariance / scale.outer(scale))[0] < 1e-10:
        raise InputError(
            f"baseline 'normal': {len(rows.complete())} training rows of {rows.name} leave the covariance of "
            f"{len(loc)} values singular; take 'ppca' or 'factor-analysis'"
        )
    return _baseline(f"normal, full covariance{rows.gaps()}", loc, covariance)


def ppca(rows: Rows, num_axes: int | None = None) -> Baseline:
    """Probabilistic PCA in closed form.

    Args:
        rows: what it is fitted to.
        num_axes: k; None takes the best of 1, 2, 4, ... by the validation rows.

    Raises:
        InputError: if columns are masses or constant, or k is not in 1..D - 1.

    References:
        Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61:611.
    """
    check_density(rows, "ppca")
    loc, covariance = _moments(rows)
    values, vectors = torch.linalg.eigh(covariance)

    def fit(size: int) -> Baseline:
        _check_size("num_axes", size, len(loc) - 1)
        noise = values[:-size].mean().clamp_min(LEAST_NOISE * covariance.diagonal().mean())
        axes = vectors[:, -size:] * (values[-size:] - noise).clamp_min(0).sqrt()
        return _baseline(f"probabilistic PCA, {size} axes{rows.gaps()}", loc, axes @ axes.T + noise * _eye(loc))

    return best_size(fit, rows.valid, len(loc) - 1) if num_axes is None else fit(num_axes)


def factor_analysis(rows: Rows, num_factors: int | None = None) -> Baseline:
    """Factor analysis.

    Args:
        rows: what it is fitted to.
        num_factors: k; None takes the best of 1, 2, 4, ... by the validation rows.

    Raises:
        InputError: if columns are masses or constant, or k is not in 1..D - 1.

    References:
        Rubin and Thayer (1982), EM algorithms for ML factor analysis, Psychometrika 47:69.
        Barber (2012), Bayesian Reasoning and Machine Learning, section 21.2 (the steps).
    """
    check_density(rows, "factor-analysis")
    loc, covariance = _moments(rows)
    scale = covariance.diagonal().sqrt()
    correlation = covariance / scale.outer(scale)

    def fit(size: int) -> Baseline:
        _check_size("num_factors", size, len(loc) - 1)
        loadings, noise = factors_of(correlation, size)
        found = scale.outer(scale) * (loadings @ loadings.T + noise.diag())
        return _baseline(f"factor analysis, {size} factors{rows.gaps()}", loc, found)

    return best_size(fit, rows.valid, len(loc) - 1) if num_factors is None else fit(num_factors)


def factors_of(correlation: Tensor, num_factors: int) -> tuple[Tensor, Tensor]:
    r"""Maximum-likelihood loadings W (D, k) and noise variances psi (D,) of a correlation matrix R (D, D).

    Given psi the best W follows from the eigenvalues l_i and vectors u_i of psi^-1/2 R psi^-1/2, and then psi is what W
    leaves of the variances:

    .. math:: W = \psi^{1/2} (u_i \sqrt{(l_i - 1)_+})_{i \le k}, \qquad \psi = \mathrm{diag}(R - W W^T)
    """
    noise, before = torch.ones_like(correlation[0]), math.inf
    for _ in range(MOST_STEPS):
        root = noise.sqrt()
        values, vectors = torch.linalg.eigh(correlation / root.outer(root))
        above = values[-num_factors:].clamp_min(1.0)
        loss = float(above.log().sum() + values.sum() - above.sum() + noise.log().sum()) / 2
        loadings = root[:, None] * vectors[:, -num_factors:] * (above - 1).sqrt()
        if before - loss < TOLERANCE:
            break
        before, noise = loss, (1 - loadings.square().sum(1)).clamp_min(LEAST_NOISE)
    return loadings, noise


def of_normals(weight: Tensor, loc: Tensor, covariance: Tensor, x: Tensor) -> Sites:
    """What a mixture of C normals (one of them: a normal) observes of rows.

    Args:
        weight: of the components, (C,).
        loc: (C, D).
        covariance: (C, D, D).
        x: (N, D), NaN where missing.
    """
    seen = ~x.isnan()
    if seen.all():
        each = dist.MultivariateNormal(loc, covariance)
    else:
        # A missing entry counts as an independent one at its mean, whose variance makes its density there 1.
        both = seen[:, None, :, None] & seen[:, None, None, :]
        covariance = torch.where(both, covariance, _eye(loc[0]) / (2 * math.pi))
        each = dist.MultivariateNormal(loc.where(seen[:, None], 0.0), covariance)
    return {"x": (dist.MixtureSameFamily(dist.Categorical(weight), each), x.where(seen, 0.0))}


def _baseline(about: str, loc: Tensor, covariance: Tensor) -> Baseline:
    one = torch.ones(1, dtype=torch.float64)
    return Baseline(about, lambda x: of_normals(one, loc[None], covariance[None], x))


def _moments(rows: Rows) -> tuple[Tensor, Tensor]:
    train = rows.complete()
    return train.mean(0), train.T.cov(correction=0).reshape(train.shape[1], -1)


def _check_size(name: str, size: int, most: int) -> None:
    check_at_least_one(**{name: size})
    if size > most:
        raise InputError(f"{name} must be at most {most}, one fewer than there are values, got {size}")


def _eye(like: Tensor) -> Tensor:
    return torch.ones_like(like).diag()
