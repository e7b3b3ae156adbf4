"""Missing entries against the dense Normal of each datum's own entries."""

import math

import pyro
import pytest
import torch
from examples.exact import close, log_weights
from torch.distributions import MultivariateNormal

from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.linear_gaussian import factor_analysis
from pyrovae.programs.oracles.missing_entries import MissingEntries, missing_entries


@pytest.fixture
def oracle():
    return missing_entries(6, 2, missing=0.4)


def dense(oracle, row):
    """Mean, covariance and loadings of the observed entries of one datum, and which these are."""
    seen, complete = ~row.isnan(), oracle.complete
    loadings = complete.loadings[seen]
    return complete.bias[seen], loadings @ loadings.T + complete.noise_scale[seen].square().diag(), loadings, seen


def test_evidence_is_the_dense_normal_of_what_is_seen(oracle):
    x, _ = oracle.draw(100, seed=1)
    for row, evidence in zip(x, oracle.log_evidence(x), strict=True):
        mean, covariance, _, seen = dense(oracle, row)
        if seen.any():
            close(evidence, MultivariateNormal(mean, covariance).log_prob(row[seen]))


def test_posterior_is_the_conditional_of_the_dense_joint(oracle):
    x, _ = oracle.draw(50, seed=1)
    posterior = oracle.posterior(x)
    for index, row in enumerate(x):
        mean, covariance, loadings, seen = dense(oracle, row)
        gain = torch.linalg.solve(covariance, loadings)
        close(posterior.mean[index], (row[seen] - mean) @ gain)
        close(posterior.covariance_matrix[index], torch.eye(2, dtype=x.dtype) - loadings.T @ gain)
        close(posterior.precision_matrix[index], oracle.precision(x)[index])


def test_complete_data_are_linear_gaussian(oracle):
    x, _ = oracle.complete.draw(50, seed=1)
    close(oracle.log_evidence(x), oracle.complete.log_evidence(x))
    close(oracle.posterior(x).mean, oracle.complete.posterior(x).mean)


def test_a_datum_of_nothing_has_the_prior_for_its_posterior(oracle):
    x = torch.full((1, 6), math.nan, dtype=torch.float64)
    close(oracle.log_evidence(x), torch.zeros(1, dtype=torch.float64))
    close(oracle.posterior(x).covariance_matrix[0], torch.eye(2, dtype=torch.float64))
    close(log_weights(oracle.model, oracle.guide, x), torch.zeros(1, dtype=torch.float64))


def test_what_lies_under_the_mask_does_not_matter(oracle):
    x, z = oracle.draw(50, seed=1)
    trace = pyro.poutine.trace(pyro.poutine.condition(oracle.model, data={"z": z})).get_trace(x)
    trace.compute_log_prob()
    complete, _ = oracle.complete.draw(50, seed=1)
    normal = torch.distributions.Normal(
        z @ oracle.complete.loadings.T + oracle.complete.bias, oracle.complete.noise_scale
    )
    close(trace.nodes["x"]["log_prob"], (normal.log_prob(complete) * ~x.isnan()).sum(1))


def test_the_share_of_missing_entries(oracle):
    x, _ = oracle.draw(10_000, seed=1)
    # 5 standard errors of a proportion of 60,000.
    assert abs(x.isnan().double().mean() - 0.4) < 5 * math.sqrt(0.24 / 60_000)
    assert not missing_entries(6, 2, missing=0.0).draw(10, seed=0)[0].isnan().any()


@pytest.mark.parametrize("missing", [-0.1, 1.0, math.nan])
def test_a_share_outside_its_range_is_refused(missing):
    with pytest.raises(InputError, match=r"a fraction of entries in \[0, 1\); got"):
        MissingEntries(factor_analysis(6, 2), missing)
