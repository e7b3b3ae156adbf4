"""What is summed up particle block by particle block against the same on a whole table."""

import math

import pytest
import torch

from pyrovae.inference import estimators
from pyrovae.inference.evaluation import WEIGHTS_AT_ONCE, RunningMean, Weights, importance_sampling, in_slices


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def running(table, sizes):
    mean = RunningMean()
    for part in table.split(sizes):
        mean.add(part)
    return mean


SPLITS = {"whole": [100], "even": [50, 50], "uneven": [1, 70, 29], "one-by-one": [1] * 100}


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("offset", [0.0, -1e6])
def test_running_mean_is_that_of_the_whole(sizes, offset):
    table = doubles(100, 7) + offset
    mean = running(table, sizes)
    torch.testing.assert_close(mean.mean, estimators.mean(table), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(mean.se, estimators.mean_se(table), rtol=1e-8, atol=0)


def test_running_mean_of_one_has_no_error():
    mean = running(doubles(1, 3), [1])
    assert torch.equal(mean.mean, doubles(1, 3)[0]) and mean.se.isnan().all()


def test_running_mean_sums_in_float64():
    assert torch.equal(running(torch.full((100_000, 1), 0.1), 1000).mean, torch.tensor([0.1]).double())


@pytest.mark.parametrize("where", [0, 40, 99])
def test_running_mean_keeps_a_density_of_zero(where):
    table = doubles(100, 2)
    table[where, 0] = -math.inf
    mean = running(table, [30, 30, 40])
    assert mean.mean[0] == -math.inf and mean.mean[1].isfinite()
    assert mean.se.isnan().tolist() == [True, False]


def test_slices_are_the_whole(monkeypatch):
    log_weight, resolution = 3 * doubles(200, 9), torch.full((9,), 1e-12).double()
    block = Weights(log_weight, RunningMean(), RunningMean(), resolution, resolution)
    monkeypatch.setattr("pyrovae.inference.evaluation.WEIGHTS_AT_ONCE", 200 * 4)
    widths = []

    def reduce(*columns):
        widths.append(columns[0].shape[1])
        return importance_sampling(*columns)

    sliced, whole = in_slices(reduce, block), importance_sampling(log_weight, resolution)
    assert widths == [4, 4, 1] and WEIGHTS_AT_ONCE >= 2**16
    for name, column in whole.items():
        torch.testing.assert_close(sliced[name], column, rtol=1e-12, atol=1e-12)
