"""What networks are made of."""

import torch
from torch import nn

from pyrovae.programs.networks import OnEvents, Residual


def test_a_users_own_network_gains_leading_dimensions():
    module = OnEvents(nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 4), nn.Flatten()), torch.Size((4, 4)))
    assert module(torch.zeros(5, 3, 4, 4)).shape == (5, 3, 2)


def test_what_is_added_to_what():
    h = torch.randn(4, 3)
    twice, zero = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    nn.init.eye_(twice.weight).data.mul_(2)
    nn.init.zeros_(zero.weight)
    assert torch.equal(Residual(twice)(h), 3 * h)
    assert torch.equal(Residual(zero, twice)(h), 2 * h)
