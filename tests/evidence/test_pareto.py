"""k-hat and smoothed weights against another implementation, and where there is no tail to fit."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from arviz_stats.base.array import array_stats

from pyrovae.evidence import estimators as est

LIMIT = {"rtol": 1e-12, "atol": 1e-12}


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_weights(num_particles, num_data, width, seed=0, dim=3):
    """Posterior N(0, I), guide N(0, width^2 I): log p / q, (K, N)."""
    eps = doubles(num_particles, num_data, dim, seed=seed)
    return (dim * math.log(width) + (eps**2 - (width * eps) ** 2).sum(-1) / 2).double()


def same(actual, expected):
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(actual.shape)
    torch.testing.assert_close(actual, expected, equal_nan=True, **LIMIT)


@pytest.mark.parametrize("num_particles", [25, 100, 1000, 5000])
@pytest.mark.parametrize("width", [0.3, 0.5, 0.8, 1.3])
def test_pareto_k_is_that_of_arviz(num_particles, width):
    table = log_weights(num_particles, 20, width, seed=num_particles) - 700.0
    theirs = [float(array_stats.psislw(-column.numpy())[1]) for column in table.T]  # psislw negates its input
    np.testing.assert_allclose(est.pareto_k(table).numpy(), theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_particles", [25, 100, 1000, 5000])
@pytest.mark.parametrize("width", [0.3, 0.5, 0.8, 1.3])
def test_psis_is_that_of_arviz(num_particles, width):
    table = log_weights(num_particles, 20, width, seed=num_particles) - 700.0
    theirs = [array_stats.psislw(-column.numpy())[0] for column in table.T]  # negated, and normalised there
    ours = est.psis(table)
    np.testing.assert_allclose((ours - ours.logsumexp(0)).T.numpy(), theirs, rtol=0, atol=1e-10)
    same(est.log_evidence_psis(table), ours.logsumexp(0) - math.log(num_particles))


@pytest.mark.parametrize("width", [0.3, 0.8, 1.3])
def test_psis_tames_the_tail_alone(width):
    table = log_weights(1000, 20, width)
    smooth, (raw, rows) = est.psis(table), table.sort(0)
    size = math.floor(3 * math.sqrt(1000))
    smoothed = smooth.gather(0, rows)
    assert torch.equal(smoothed[:-size], raw[:-size]) and not torch.equal(smoothed[-size:], raw[-size:])
    assert (smoothed.diff(dim=0) >= 0).all() and (smoothed[-1] <= raw[-1]).all()


def test_psis_lowers_the_spread_of_the_evidence():
    table = log_weights(1000, 400, 0.5)
    assert est.log_evidence_psis(table).std() < 0.8 * est.log_evidence(table).std()


def test_pareto_k_tells_narrow_guides_from_wide():
    shapes = [est.pareto_k(log_weights(1000, 200, width)) for width in (1.3, 0.8, 0.5, 0.3)]
    medians = [float(shape.median()) for shape in shapes]
    assert medians == sorted(medians) and len(set(medians)) == 4
    assert (shapes[0] < 0.5).all()
    assert (shapes[-1] > 0.7).double().mean() >= 0.8


TIED = torch.where(doubles(1000, 1) > 0, 0.0, -1.0)
NAN_INSIDE = log_weights(1000, 1, 0.8).index_fill(0, torch.tensor([500]), math.nan)
SHAPES = {  # name: (table, k-hat)
    "exact": (torch.full((1000, 1), -123.456), -math.inf),
    "exact-to-rounding": (-100 + 1e-13 * doubles(1000, 1), -math.inf),
    "exact-few-particles": (torch.full((2, 1), -3.0), -math.inf),
    "one-particle": (doubles(1, 1), math.nan),
    "too-few-particles": (doubles(24, 1), math.nan),
    "nan": (NAN_INSIDE, math.nan),
    "tied": (TIED, math.nan),
    "all-zero-but-one": (torch.cat([torch.zeros(1, 1), torch.full((999, 1), -math.inf)]), math.nan),
    "wider-than-doubles": (1000 * doubles(1000, 1), math.inf),
}


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_pareto_k_where_there_is_no_fit(case):
    table, value = case
    same(est.pareto_k(table), value)


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_psis_leaves_weights_without_a_fit(case):
    same(est.psis(case[0]), case[0].double())


def test_pareto_k_of_each_datum_stands_alone():
    table = torch.cat([log_weights(1000, 2, 0.8), SHAPES["exact"][0], NAN_INSIDE, TIED], 1)
    alone = torch.cat([est.pareto_k(column[:, None]) for column in table.T])
    same(est.pareto_k(table), alone)
    assert est.pareto_k(table)[:2].isfinite().all()


def test_pareto_k_grows_past_all_bounds():
    shapes = [est.pareto_k(scale * doubles(1000, 5)) for scale in (1, 10, 100, 300, 1000)]
    assert all((a < b).all() for a, b in pairwise(shapes))


@pytest.mark.parametrize(
    "num_particles, threshold", [(10, 0.0), (100, 0.5), (1000, 2 / 3), (10**6, 0.7), (1, math.nan)]
)
def test_threshold(num_particles, threshold):
    assert est.pareto_k_threshold(num_particles) == pytest.approx(threshold, nan_ok=True)
