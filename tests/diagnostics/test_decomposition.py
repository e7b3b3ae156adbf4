"""Errors of a mean over draws and over data, and what makes a dimension collapsed."""

import math

import pytest
import torch
from examples.codes import doubles

from pyrovae.diagnostics import decomposition as parts


def test_variance_of_two_stages_is_estimated_without_bias():
    """24 of 40 data, 2 draws each, in 10,000 repetitions: the variance of the mean within 4 sqrt(2 / 10,000)."""
    truth, repetitions = 0.4 * doubles(40), 10_000
    chosen = torch.rand(repetitions, 40, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :24]
    values = truth[chosen].T + doubles(2, 24, repetitions, seed=2)
    mean, mc_se, data_se = torch.tensor(parts.estimates(values, 40)).T
    assert abs((mc_se.square().mean() / mean.var()).item() - 1) < 4 * math.sqrt(2 / repetitions)
    torch.testing.assert_close(data_se, (values.mean(0).std(0) / math.sqrt(24)).float())


@pytest.mark.parametrize(
    ("kl", "active", "collapsed"), [(0.009, False, True), (0.009, True, False), (0.3, False, False)]
)
def test_collapse_takes_both_a_small_kl_and_a_mean_that_does_not_move(kl, active, collapsed):
    estimate = parts.Estimate(kl, 0.0, 0.0)
    assert parts.Dimension("z", estimate, estimate, 0.0, active).collapsed == collapsed
