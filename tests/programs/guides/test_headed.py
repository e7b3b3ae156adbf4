"""A network, then a head: covariances that go with the datum, any network."""

import torch
from torch import nn

import pyrovae as pv


def test_networks_of_a_user_serve_too():
    guide = pv.guides.full_normal()((2,), lambda size: nn.Linear(4, size))
    assert guide(torch.zeros(5, 4)).rsample().shape == (5, 2)


def test_coordinates_are_correlated_as_the_network_says():
    torch.manual_seed(0)
    guide = pv.guides.full_normal()((2,), lambda size: nn.Linear(4, size))
    with torch.no_grad():
        guide.network.weight.zero_()
        guide.network.bias.copy_(torch.tensor([0.0, 0.0, 0.5413, 0.5413, 2.0]))  # unit scales, and 2 below the diagonal
        z = guide(torch.zeros(1, 4)).sample((20_000,))[:, 0]
    correlation = torch.corrcoef(z.T)[0, 1]
    assert abs(correlation - 2 / 5**0.5) < 5 * (1 - 0.8) / 20_000**0.5  # 5 standard errors


def test_a_flow_has_the_same_weights_for_the_same_network():
    one, other = (pv.guides.spline_flow()((3,), pv.networks.mlp(4, 5, seed=1)) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
