"""A report's columns, made of a few data at a time."""

import torch

from pyrovae.evidence.evaluate import importance_sampling, in_slices
from pyrovae.evidence.importance import WEIGHTS_AT_ONCE, Weights
from pyrovae.evidence.running_sums import Moments


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_slices_are_the_whole(monkeypatch):
    log_weight, resolution = 3 * doubles(200, 9), torch.full((9,), 1e-12).double()
    block = Weights(log_weight, Moments(log_weight[:2], log_weight[:2]), resolution, resolution)
    assert min(WEIGHTS_AT_ONCE.values()) >= 2**16
    monkeypatch.setitem(WEIGHTS_AT_ONCE, "cpu", 200 * 4)
    widths = []

    def reduce(*columns):
        widths.append(columns[0].shape[1])
        return importance_sampling(*columns)

    sliced, whole = in_slices(reduce, block), importance_sampling(log_weight, resolution)
    assert widths == [4, 4, 1]
    for name, column in whole.items():
        torch.testing.assert_close(sliced[name], column, rtol=1e-12, atol=1e-12)
