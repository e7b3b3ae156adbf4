"""Bounds from both sides against every continuous oracle."""

import math

import pytest

import pyrovae as pv
from pyrovae.evidence.annealing.bdmc import bidirectional
from pyrovae.evidence.annealing.paths import from_guide, from_prior

N = 100
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
