"""What a record says of its own trust: fractions by hand, and words for what is beyond 5 % of the data alone."""

import math

import pytest
import torch

from pyrovae.evidence import estimators
from pyrovae.evidence.reliability import (
    UNRELIABLE_FRACTION,
    effective_size,
    evidence_and_errors,
    fraction_skewed,
    fraction_unreliable,
    skewed_errors,
)


def test_the_mean_has_its_errors_and_its_bias():
    log_evidence, mc_se = torch.tensor([-1.0, -2.0, -6.0]).double(), torch.tensor([0.3, 0.0, 0.4]).double()
    found = evidence_and_errors(log_evidence, mc_se)
    assert found["mean"] == pytest.approx(-3)
    assert found["data_se"] == pytest.approx(math.sqrt(7 / 3))
    assert found["mc_se"] == pytest.approx(0.5 / 3)
    assert found["bias"] == pytest.approx(-(0.09 + 0.16) / 2 / 3)  # minus half the variance of the log, delta method


def test_data_without_a_k_hat_are_as_unreliable_as_those_above_the_threshold():
    threshold = estimators.pareto_k_threshold(1000)
    k = torch.tensor([threshold + 0.01, threshold - 0.01, math.nan, -math.inf])
    assert fraction_unreliable(k, 1000) == 0.5


def test_exact_data_are_never_called_skewed():
    skewness, k = torch.tensor([1e6, 1e6, 0.0]), torch.tensor([0.1, -math.inf, 0.1])
    assert fraction_skewed(skewness, 1000, k) == pytest.approx(1 / 3)


def test_errors_are_told_of_where_many_data_have_them():
    above, below = UNRELIABLE_FRACTION + 0.05, UNRELIABLE_FRACTION
    (line,) = skewed_errors({"elbo": above, "log_evidence": below}, "K = 10")
    assert "elbo (10% of data)" in line and "K = 10" in line and "log_evidence" not in line
    assert skewed_errors({"elbo": below}, "K = 10") == []


def test_an_undefined_size_is_a_dash():
    assert effective_size("9", {"median": None, "min": 2.0}) == "effective sample size of 9: median -, least 2.0"
