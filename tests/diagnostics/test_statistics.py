"""Ranks, p-values and statistics against their definitions and scipy."""

import math

import pyro.distributions as dist
import pytest
import torch
from examples.checks import STANDARD_ERRORS
from torch.distributions import constraints

from pyrovae.diagnostics import statistics as discrepancies
from pyrovae.diagnostics.statistics import default_statistics, ks_band, ks_distance, ks_p_value, p_value, randomised_pit

NAN = math.nan

P_VALUES = {
    "above all": ([1.0, 2.0, 3.0], 4.0, 0.5 / 4),
    "below all": ([1.0, 2.0, 3.0], 0.0, 3.5 / 4),
    "two ties": ([1.0, 2.0, 2.0, 3.0, 3.0], 2.0, 3.5 / 6),
    "ties to rounding": ([0.1 + 0.2, 5.0], 0.3, 2.0 / 3),
    "not seen": ([1.0, 2.0], math.nan, math.nan),
}


@pytest.mark.parametrize("replicated, observed, expected", P_VALUES.values(), ids=P_VALUES.keys())
def test_p_value_counts_ties_half_and_the_observed_as_one(replicated, observed, expected):
    p = p_value(torch.tensor(replicated, dtype=torch.float64), torch.tensor(observed, dtype=torch.float64))
    assert p.item() == pytest.approx(expected, rel=1e-12, nan_ok=True)


EXCHANGEABLE = {
    "bernoulli": dist.Bernoulli(0.3),
    "geometric": dist.Geometric(0.4),
    "normal": dist.Normal(0.0, 1.0),
}


@pytest.mark.parametrize("family", EXCHANGEABLE.values(), ids=EXCHANGEABLE.keys())
def test_the_rank_is_uniform_already_with_two_replications(family):
    torch.manual_seed(0)
    observed, replicated = family.sample((100_000,)), family.sample((2, 100_000))
    u = randomised_pit((replicated < observed).sum(0), (replicated == observed).sum(0), 2)
    assert ks_distance(u).item() < ks_band(100_000, level=1 - 1e-4)  # 0.007; without v it would be 1 / 6 at least
    assert p_value(replicated, observed).mean().item() == pytest.approx(0.5, abs=STANDARD_ERRORS * 0.29 / 316)


def test_ks_distance_and_its_bound_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    u = torch.rand(80, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** torch.tensor([1, 1.2, 2])
    found = [stats.kstest(column.numpy(), "uniform") for column in u.unbind(1)]
    torch.testing.assert_close(ks_distance(u), torch.tensor([one.statistic for one in found]).double())
    bound, exact = ks_p_value(ks_distance(u), torch.tensor(80)), torch.tensor([one.pvalue for one in found])
    assert ((bound >= exact) & (bound < 1.2 * exact + 0.02)).all()


def test_ks_distance_leaves_out_what_is_not_seen(monkeypatch):
    u = torch.tensor([[0.25, 0.9, math.nan], [math.nan, 0.2, math.nan], [0.75, math.nan, math.nan]])
    expected = torch.tensor([0.25, 0.4, math.nan])
    torch.testing.assert_close(ks_distance(u), expected, equal_nan=True)
    monkeypatch.setattr(discrepancies, "_COLUMNS_AT_ONCE", 1)
    torch.testing.assert_close(ks_distance(u[:, :, None]), expected[:, None], equal_nan=True)


STATISTICS = {
    "mean": [2.0, 3.0],
    "sd": [math.sqrt(2.0), 0.0],
    "square": [6.0, 9.0],
    "zeros": [0.25, 0.0],
    "smallest": [0.0, 3.0],
    "largest": [4.0, 3.0],
}


@pytest.mark.parametrize("name, expected", STATISTICS.items(), ids=STATISTICS.keys())
def test_statistics_leave_out_what_is_masked(name, expected):
    rows = torch.tensor([[[0.0, 2.0], [2.0, 4.0]], [[NAN, 3.0], [NAN, NAN]]], dtype=torch.float64)
    torch.testing.assert_close(getattr(discrepancies, name)(rows), torch.tensor(expected, dtype=torch.float64))


DEFAULTS = {
    "binary": (constraints.boolean, 9, ["mean"]),
    "counts": (constraints.nonnegative_integer, 9, ["mean", "sd", "zeros", "max"]),
    "bounded counts": (constraints.integer_interval(0, 4), 9, ["mean", "sd", "zeros", "max"]),
    "reals": (constraints.real, 9, ["mean", "sd", "min", "max"]),
    "unknown": (None, 9, ["mean", "sd", "min", "max"]),
    "one count": (constraints.nonnegative_integer, 1, ["mean", "square", "zeros"]),
    "one real": (constraints.real, 1, ["mean", "square"]),
}


@pytest.mark.parametrize("support, size, expected", DEFAULTS.values(), ids=DEFAULTS.keys())
def test_default_statistics_follow_the_support(support, size, expected):
    assert list(default_statistics(support, size)) == expected
