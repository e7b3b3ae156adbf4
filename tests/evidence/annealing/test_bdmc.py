"""Bounds from both sides against every continuous oracle."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.evidence import estimators
from pyrovae.evidence.annealing.bdmc import Bidirectional, bidirectional
from pyrovae.evidence.annealing.paths import from_guide, from_prior

N = 50
CONTINUOUS = [name for name in pv.oracles.EXAMPLES if name not in ("bernoulli mixture", "gaussian mixture")]


def mean_and_se(values):
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


FROM = [(name, from_prior) for name in CONTINUOUS if name != "mixture prior"]
FROM += [(name, from_guide) for name in ("ppca", "gamma-poisson", "mixture prior")]


@pytest.mark.parametrize(("name", "start"), FROM, ids=[f"{name}, {start.__name__}" for name, start in FROM])
def test_both_bounds_hold_and_are_tight(name, start):
    """Lower at most exact + 3 SE, upper at least exact - 3 SE (one side, 0.1 % each), both within 0.05 nat."""
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(2, seed=0)
    many = start is from_prior and name in ("ppca", "factor analysis")
    settings = {"num_chains": 64 if name == "mixture prior" else 16}  # chains do not cross from mode to mode
    settings |= {
        "num_temperatures": 400 if many else 100,
        "num_leapfrog": 3,
        "num_particles": 10,
        "start": start,
        "seed": 1,
    }
    bounds = bidirectional(oracle.model, pv.widened(oracle.guide, 1.3, shift=0.3), x, num_data=N, **settings)
    exact = oracle.log_evidence(bounds.data[0])
    (below, below_se), (above, above_se) = (mean_and_se(bound - exact) for bound in (bounds.lower, bounds.upper))
    assert below <= 3 * below_se and abs(below) < 0.05
    assert above >= -3 * above_se and abs(above) < 0.05


def test_the_width_tells_chains_that_do_not_cross_between_modes():
    """From a prior of three far modes the bounds still hold, and their width says that they are not to be trusted."""
    oracle = pv.oracles.EXAMPLES["mixture prior"]()
    x, _ = oracle.draw(2, seed=0)
    bounds = bidirectional(oracle.model, oracle.guide, x, num_temperatures=100, start=from_prior, num_particles=10)
    exact = oracle.log_evidence(bounds.data[0])
    (below, below_se), (above, above_se) = (mean_and_se(bound - exact) for bound in (bounds.lower, bounds.upper))
    assert below <= 3 * below_se and above >= -3 * above_se
    assert bounds.width.mean() > 0.2


def test_the_width_shrinks_with_the_number_of_temperatures():
    oracle = pv.oracles.ppca(20, 3, collinearity=0.9)
    x, _ = oracle.draw(2, seed=0)
    widths = [
        bidirectional(
            oracle.model, oracle.mean_field_guide(), x, num_temperatures=t, start=from_prior, num_particles=10
        ).width.mean()
        for t in (4, 16, 64)
    ]
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


def of(upper, lower=0.0):
    """A record of these bounds, (N,)."""
    lower = torch.as_tensor(lower, dtype=torch.float64).expand_as(upper)
    return Bidirectional(lower, upper, lower, (), 10, 16, 5, 1000, "guide", 0)


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])
def test_errors_over_few_data_are_worth_what_they_say(spread):
    """Of 40,000 runs of 16 data with log-normal widths +-1.96 SE hold the mean in 93 to 97 %, or many runs say so."""
    generator = torch.Generator().manual_seed(2)
    table, truth = (spread * torch.randn(16, 40_000, generator=generator).double()).exp(), math.exp(spread**2 / 2)
    mean, se = table.mean(0), estimators.mean_se_of_few(table)
    told = of(table[:, 0]).numbers()["width"]
    assert told == {"mean": pytest.approx(float(mean[0])), "data_se": pytest.approx(float(se[0]))}
    inside = ((mean - truth).abs() <= 1.96 * se).double().mean()
    doubted = sum("width" in of(column).skewed for column in table.T[:200]) / 200
    assert 0.93 < inside < 0.97 or doubted > 0.05


def test_the_record_says_where_data_are_too_few_or_too_skewed():
    even = torch.linspace(-1, 1, 40, dtype=torch.float64)
    one_far = torch.cat([torch.zeros(39, dtype=torch.float64), torch.tensor([50.0], dtype=torch.float64)])
    assert of(even).skewed == () and "too skewed" not in of(even).summary()
    assert of(one_far).skewed == ("upper", "width", "importance_shortfall")
    assert "too few or too skewed: upper, width" in of(one_far).summary()
    assert "lower" in of(even[:8]).skewed
