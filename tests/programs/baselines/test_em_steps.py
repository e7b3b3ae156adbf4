"""EM step by step against scikit-learn's fits, against its own fixed point, and as a path that never falls."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.base.steps import Steps
from pyrovae.programs.baselines.em_steps import factor_analysis_steps, mixture_steps
from pyrovae.programs.oracles import factor_analysis


@pytest.fixture(scope="module")
def rows():
    """400 rows of two factors on scales from 0.1 to 10."""
    x, _ = factor_analysis(8, 2, seed=1).draw(400, seed=0)
    return x * torch.logspace(-1, 1, 8, dtype=torch.float64)


@pytest.fixture(scope="module")
def groups():
    """Three groups of unlike sizes and shapes in a plane, on a scale of 1 and of 1000."""
    noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    which = torch.arange(600) % 6
    centre = torch.tensor([[0.0, 0], [0, 0], [0, 0], [4, 1], [4, 1], [-3, 5]]).double()[which]
    return (noise * torch.tensor([1.0, 0.5]) + centre) * torch.tensor([1.0, 1000.0]).double()


@pytest.fixture(scope="module")
def factors(rows):
    return Steps.of("factors", rows, factor_analysis_steps(rows, 2, num_steps=5000, tolerance=1e-9))


def test_factor_analysis_is_scikit_learns(rows, factors):
    """Evidence to 1e-4 nats per datum, loadings up to a rotation, noise; both to what their tolerances leave."""
    oracle = FactorAnalysis(2, tol=1e-8, max_iter=50_000, svd_method="lapack").fit(rows.numpy())
    assert float(factors.log_evidence[-1]) == pytest.approx(oracle.score(rows.numpy()), abs=1e-4)
    loadings, noise = (factors.parameters[name][-1].numpy() for name in ("loadings", "noise"))
    scale = rows.std(0, correction=0).numpy()
    shared, expected = (
        one / np.outer(scale, scale) for one in (loadings @ loadings.T, oracle.components_.T @ oracle.components_)
    )
    np.testing.assert_allclose(shared, expected, atol=2e-3)
    np.testing.assert_allclose(noise / scale**2, oracle.noise_variance_ / scale**2, atol=2e-3)


def test_of_digits_it_is_scikit_learns_too():
    """Eight factors of 52 pixels: evidence to 1e-5, loadings up to a rotation to 1e-2 of up to 4.8."""
    x = pv.data.load("digits").train.x.flatten(1).double()
    x = x[:, x.std(0) > 0.5]
    *_, last = factor_analysis_steps(x, 8, tolerance=1e-9)
    oracle = FactorAnalysis(8, tol=1e-7, max_iter=5000, svd_method="lapack").fit(x.numpy())
    assert last.log_evidence == pytest.approx(oracle.score(x.numpy()), abs=1e-5)
    loadings, expected = last.parameters["loadings"].numpy(), oracle.components_.T
    left, _, right = np.linalg.svd(loadings.T @ expected)
    np.testing.assert_allclose(loadings @ left @ right, expected, atol=1e-2)


def test_from_a_drawn_start_many_factors_may_end_lower():
    x = pv.data.load("digits").train.x.flatten(1).double()
    x = x[:, x.std(0) > 0.5]
    *_, best = factor_analysis_steps(x, 8, tolerance=1e-6)
    *_, lower = factor_analysis_steps(x, 8, tolerance=1e-6, seed=2)
    assert 0.01 < best.log_evidence - lower.log_evidence < 0.1


def test_its_posterior_is_that_of_the_model(rows, factors):
    loadings, noise, loc = (factors.parameters[name][3] for name in ("loadings", "noise", "loc"))
    model = pv.oracles.LinearGaussian(loadings, loc, noise.sqrt())
    torch.testing.assert_close(factors.posterior["mean"][3], model.posterior(rows).mean)
    torch.testing.assert_close(factors.log_evidence[3], model.log_evidence(rows).mean())


def test_the_end_is_the_baselines_maximum(rows, factors):
    from examples.baselines import rows_of

    found = pv.baselines.BASELINES["factor-analysis"](rows_of(rows), 2).log_prob(rows).mean()
    assert float(found) == pytest.approx(float(factors.log_evidence[-1]), abs=1e-4)


def test_a_mixture_takes_the_steps_of_scikit_learns(groups):
    """From the same start, whose covariances it gives: the evidence after 1, 2, 3, ... steps, and all parameters."""
    steps = list(mixture_steps(groups, 3, num_steps=8, tolerance=0.0, least_variance=1e-9))
    first = steps[0].parameters
    start = {"weights_init": first["weights"].numpy(), "means_init": first["means"].numpy()}
    start["precisions_init"] = np.linalg.inv(first["covariances"].numpy())
    for taken, step in enumerate(steps[1:], start=1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            oracle = GaussianMixture(3, max_iter=taken, tol=0.0, reg_covar=0.0, **start).fit(groups.numpy())
        assert step.log_evidence == pytest.approx(oracle.score(groups.numpy()), abs=1e-6)
        np.testing.assert_allclose(step.parameters["means"], oracle.means_, rtol=1e-5, atol=1e-5)


def test_its_end_is_scikit_learns(groups):
    *_, last = mixture_steps(groups, 3, seed=1)
    oracle = GaussianMixture(3, n_init=5, max_iter=1000, tol=1e-7, random_state=0).fit(groups.numpy())
    assert last.log_evidence == pytest.approx(oracle.score(groups.numpy()), abs=0.1)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_evidence_never_falls(rows, groups, size, seed):
    for steps in (
        factor_analysis_steps(rows, size, num_steps=60, seed=seed, tolerance=-1.0),
        mixture_steps(groups, size, num_steps=60, seed=seed, tolerance=-1.0, least_variance=0.0),
    ):
        found = [step.log_evidence for step in steps]
        assert len(found) == 60 and min(b - a for a, b in itertools.pairwise(found)) > -1e-9


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_at_the_floor_of_its_noise_factor_analysis_never_falls(seed):
    """Two values are one and the same, which a factor explains in full: their noise ends at the floor."""
    drawn = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = drawn[:, [0, 0, 1, 2, 3]]
    steps = list(factor_analysis_steps(x, 2, num_steps=60, seed=seed, tolerance=-1.0))
    assert len(steps) == 60 and min(b.log_evidence - a.log_evidence for a, b in itertools.pairwise(steps)) > -1e-9
    noise = steps[-1].parameters["noise"] / x.var(0, correction=0)
    torch.testing.assert_close(noise[:2], torch.full((2,), 1e-6, dtype=torch.float64))


def test_with_a_ridge_a_mixture_may_fall_and_the_fit_ends_there(groups):
    """Four components for three groups, at a ridge of a fifth of all variance."""
    how = {"num_steps": 60, "least_variance": 0.2}
    found = [step.log_evidence for step in mixture_steps(groups, 4, tolerance=-1.0, **how)]
    assert min(b - a for a, b in itertools.pairwise(found)) < -1e-3
    ended = [step.log_evidence for step in mixture_steps(groups, 4, tolerance=0.0, **how)]
    assert len(ended) < 60 and ended[-1] < ended[-2] and ended[:-1] == sorted(ended[:-1])


def test_one_component_is_the_normal_of_the_moments(groups):
    *_, last = mixture_steps(groups, 1, least_variance=0.0)
    oracle = torch.distributions.MultivariateNormal(groups.mean(0), groups.T.cov(correction=0))
    assert last.log_evidence == pytest.approx(float(oracle.log_prob(groups).mean()), rel=1e-12)


def test_they_begin_where_they_are_told_to(groups):
    *_, last = mixture_steps(groups, 3, num_steps=5)
    again = next(mixture_steps(groups, 3, start=last.parameters))
    assert again.log_evidence == last.log_evidence


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda x: factor_analysis_steps(x, 8), "num_factors must be at most 7, one fewer than there are values"),
        (lambda x: factor_analysis_steps(x, 0), "num_factors must be at least 1"),
        (lambda x: mixture_steps(x, 401), "num_components must be at most 400, the data, got 401"),
        (lambda x: mixture_steps(x[:1], 1), "EM takes two data or more without missing values, got 1"),
        (lambda x: mixture_steps(x * torch.nan, 1), "without missing values"),
        (lambda x: mixture_steps(x * 0, 1), "8 of 8 values are constant"),
    ],
)
def test_what_cannot_be_fitted(rows, steps, message):
    with pytest.raises(InputError, match=message):
        steps(rows)
