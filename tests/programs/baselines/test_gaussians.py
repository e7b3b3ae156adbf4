"""Normal baselines against scikit-learn's fits and SciPy's densities, with gaps and without."""

import math

import numpy as np
import pytest
import torch
from examples.baselines import rows_of
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis

from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.gaussians import factor_analysis, factors_of, normal, of_normals, ppca
from pyrovae.programs.oracles import factor_analysis as factor_model


@pytest.fixture(scope="module")
def rows():
    """300 training rows and 300 others of two factors, columns of unlike scales."""
    x, _ = factor_model(6, 2, seed=1).draw(600, seed=0)
    x = x * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0, 1.0], dtype=torch.float64)
    return rows_of(x[:300], ["real"] * 6)._replace(valid=x[300:])


def test_normal_is_the_maximum_likelihood_normal(rows):
    expected = multivariate_normal(rows.train.mean(0).numpy(), np.cov(rows.train.numpy().T, bias=True))
    np.testing.assert_allclose(normal(rows).log_prob(rows.valid), expected.logpdf(rows.valid.numpy()), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_ppca_is_scikit_learns(rows, size):
    """Which divides by N - 1: so does a fit to rows whose covariance is as much larger."""
    n = len(rows.train)
    centre = rows.train.mean(0)
    larger = rows._replace(train=centre + (rows.train - centre) * math.sqrt(n / (n - 1)))
    expected = PCA(size, svd_solver="full").fit(rows.train.numpy()).score_samples(rows.valid.numpy())
    np.testing.assert_allclose(ppca(larger, size).log_prob(rows.valid), expected, rtol=1e-8)


@pytest.mark.parametrize("size", [1, 2])
def test_factor_analysis_is_scikit_learns(rows, size):
    """To what its tolerance leaves: the same log-likelihood to 1e-5 nats per datum, 0.03 for any row it has not seen."""
    oracle = FactorAnalysis(size, tol=1e-6, max_iter=20_000, svd_method="lapack").fit(rows.train.numpy())
    found = factor_analysis(rows, size)
    assert abs(float(found.log_prob(rows.train).mean()) - oracle.score(rows.train.numpy())) < 1e-5
    np.testing.assert_allclose(found.log_prob(rows.valid), oracle.score_samples(rows.valid.numpy()), atol=0.03)


def test_one_factor_of_three_values_reproduces_their_correlations():
    loadings = torch.tensor([0.8, 0.6, 0.5], dtype=torch.float64)
    correlation = loadings.outer(loadings).fill_diagonal_(1.0)
    found, noise = factors_of(correlation, 1)
    torch.testing.assert_close(found.abs().flatten(), loadings, rtol=0, atol=1e-3)
    torch.testing.assert_close(noise, 1 - loadings.square(), rtol=0, atol=1e-3)


def test_sizes_are_chosen_by_the_validation_rows(rows):
    assert factor_analysis(rows).about == "factor analysis, 2 factors"
    scores = {size: float(ppca(rows, size).log_prob(rows.valid).mean()) for size in (1, 2, 3, 4)}
    assert ppca(rows).about == f"probabilistic PCA, {max(scores, key=scores.get)} axes"


def test_missing_entries_are_integrated_out(rows):
    found = normal(rows)
    x = rows.valid[:4].clone()
    x[0, 1] = x[1, [0, 2, 5]] = x[2] = math.nan
    loc, covariance = rows.train.mean(0).numpy(), np.cov(rows.train.numpy().T, bias=True)
    expected = []
    for row in x:
        seen = (~row.isnan()).nonzero().flatten().numpy()
        part = multivariate_normal(loc[seen], covariance[np.ix_(seen, seen)]) if len(seen) else None
        expected.append(part.logpdf(row[seen].numpy()) if part else 0.0)
    np.testing.assert_allclose(found.log_prob(x), expected, rtol=1e-9, atol=1e-9)


def test_a_mixture_of_normals_integrates_them_out_within_each_component():
    weight = torch.tensor([0.3, 0.7], dtype=torch.float64)
    loc = torch.tensor([[0.0, 1.0], [4.0, -1.0]], dtype=torch.float64)
    covariance = torch.tensor([[[1.0, 0.5], [0.5, 2.0]], [[1.0, -0.3], [-0.3, 0.5]]], dtype=torch.float64)
    x = torch.tensor([[0.5, math.nan], [0.5, 0.2]], dtype=torch.float64)
    ((found, values),) = of_normals(weight, loc, covariance, x).values()
    both = [multivariate_normal(m, c) for m, c in zip(loc.numpy(), covariance.numpy(), strict=True)]
    first = [multivariate_normal(m[0], c[0, 0]) for m, c in zip(loc.numpy(), covariance.numpy(), strict=True)]
    expected = [sum(w * p.pdf(0.5) for w, p in zip([0.3, 0.7], first, strict=True))]
    expected += [sum(w * p.pdf([0.5, 0.2]) for w, p in zip([0.3, 0.7], both, strict=True))]
    np.testing.assert_allclose(found.log_prob(values), np.log(expected), rtol=1e-9)


def test_rows_with_gaps_are_left_out_of_the_fit_and_told(rows):
    gap = torch.full((1, 6), math.nan, dtype=torch.float64)
    found = normal(rows._replace(train=torch.cat([rows.train, gap])))
    assert found.about == "normal, full covariance; fitted without 1 rows that have gaps"
    assert torch.equal(found.log_prob(rows.valid), normal(rows).log_prob(rows.valid))


def test_what_has_no_density_is_refused(rows):
    twins = rows._replace(train=torch.cat([rows.train[:, :1], rows.train[:, :1] * 2], 1), kinds=("real", "real"))
    with pytest.raises(InputError, match="leave the covariance of 2 values singular; take 'ppca'"):
        normal(twins)
    assert factor_analysis(twins, 1).log_prob(twins.train).isfinite().all()
    with pytest.raises(InputError, match="num_factors must be at most 5, one fewer than there are values, got 6"):
        factor_analysis(rows, 6)
    with pytest.raises(InputError, match="num_axes must be at least 1"):
        ppca(rows, 0)
