"""Networks of data with missing entries: what they read, in which shape, and that missing entries say nothing."""

import math

import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.networks.masked import masked_input, set_encoder, shape_beside_mask


class Echo(nn.Module):
    """Gives what it reads."""

    def forward(self, x):
        return x


ROWS = torch.tensor([[1.0, math.nan], [3.0, math.nan]])


@pytest.mark.parametrize(("fill", "rows", "filled"), [("zero", None, 0.0), ("mean", ROWS, 2.0), ("learned", ROWS, 2.0)])
def test_a_vector_is_read_beside_its_mask(fill, rows, filled):
    network = masked_input(2, lambda shape: Echo(), fill=fill, rows=rows)(0)
    x = torch.tensor([[math.nan, 5.0], [7.0, math.nan]])
    assert network(x).tolist() == [[filled, 5.0, 0.0, 1.0], [7.0, 0.0, 1.0, 0.0]]
    assert isinstance(network.fill, nn.Parameter) == (fill == "learned")


@pytest.mark.parametrize("shape", [(6,), (8, 8), (3, 8, 8), (2, 2, 4, 4)])
def test_masks_are_channels_of_events_of_any_shape(shape):
    network = masked_input(shape, lambda shape: Echo())(0)
    read = network(torch.full((4, 5, *shape), math.nan))
    assert read.shape[2:] == shape_beside_mask(shape)
    assert not read.any()


def test_convolutions_read_masks_as_channels():
    x = torch.rand(3, 8, 8)
    network = masked_input((8, 8), lambda shape: pv.networks.conv_encoder(shape, channels=(4,), seed=0))(5)
    assert network(x).shape == (3, 5)
    gone = x.clone()
    gone[:, 0, 0] = math.nan
    filled = x.clone()
    filled[:, 0, 0] = 0.0
    assert not torch.allclose(network(gone), network(filled))  # what is missing is no zero


def test_a_set_says_nothing_of_what_is_missing():
    network = set_encoder(5, 16, seed=0)(3)
    x = torch.randn(4, 5)
    gone = x.clone()
    gone[:, 2] = math.nan
    loss = network(gone).square().sum()
    loss.backward()
    assert network.embedding.grad.isfinite().all()
    assert not network.embedding.grad[2].any()
    assert torch.equal(network(torch.full((1, 5), math.nan)), network.of_sum(torch.zeros(1, 50)))
    assert network(x.expand(7, 4, 5)).shape == (7, 4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masked_input(2, lambda shape: Echo(), fill="median"), "fill is one of zero, mean, learned, got 'med"),
        (lambda: masked_input(2, lambda shape: Echo(), fill="mean"), "needs the data whose means are filled in"),
        (lambda: masked_input(3, lambda shape: Echo(), fill="mean", rows=ROWS), r"shape \(N, 3\), got \(2, 2\)"),
        (lambda: set_encoder(5, 0), "each width must be at least 1"),
        (lambda: set_encoder(5, 4)(2)(torch.zeros(2, 6)), r"reads events of shape \(5,\), but it was given"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
