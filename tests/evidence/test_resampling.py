"""Weighted draws taken anew: in proportion to their weights, in no order."""

import math

import pytest
import torch

from pyrovae.evidence.resampling import resample, resampled


def test_equal_weights_give_a_subset():
    rows = resample(torch.zeros(1000, 5), 99)
    assert rows.shape == (99, 5)
    assert all(len(column.unique()) == 99 for column in rows.T)


def test_each_particle_is_taken_its_share():
    # The mean of 4,000 numbers that are a share rounded up or down: 4 standard errors, at most half each.
    torch.manual_seed(0)
    log_weight = torch.randn(6, 1).double()
    share = 10 * log_weight.softmax(0)
    rows = resample(log_weight.expand(6, 4000), 10)
    taken = torch.stack([(rows == row).sum(0) for row in range(6)]).double()
    assert ((taken - share).abs() < 1).all()
    assert (taken.mean(1) - share[:, 0]).abs().max() < 4 * 0.5 / 4000**0.5


def test_weights_that_are_all_zero_are_refused():
    log_weight = torch.zeros(4, 3)
    log_weight[:, 1] = -torch.inf
    with pytest.raises(FloatingPointError, match="the importance weights of 1 of 3 data are all zero"):
        resample(log_weight, 2)


def test_values_follow_their_weights_in_no_order():
    torch.manual_seed(0)
    values = {"z": torch.arange(4.0)[:, None].expand(4, 2000), "y": torch.arange(4.0)[:, None, None].expand(4, 2000, 3)}
    log_weight = torch.tensor([0.0, -math.inf, 0.0, math.log(2)])[:, None].expand(4, 2000)
    found = resampled(values, log_weight, 4)
    assert torch.equal(found["z"][..., None].expand(-1, -1, 3), found["y"])
    # The first draw of each is that of a class of probability 1/4, 0, 1/4, 1/2: 5 standard errors.
    share = torch.stack([(found["z"][0] == row).double().mean() for row in range(4)])
    assert ((share - torch.tensor([0.25, 0.0, 0.25, 0.5])).abs() <= 5 * (0.25 / 2000) ** 0.5).all()


def test_data_without_a_weight_keep_their_draws():
    found = resampled({"z": torch.arange(3.0)[:, None]}, torch.full((3, 1), -math.inf), 3)
    assert sorted(found["z"].flatten().tolist()) == [0.0, 1.0, 2.0]
