"""Perceptrons compute what their formulas say."""

import torch
from torch import nn

from pyrovae.programs.networks import Residual, gated, mlp


def test_hidden_layers_have_the_widths_asked_for():
    layers = [layer for layer in mlp((2, 3), 16, 8)(5).network if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(6, 16), (16, 8), (8, 5)]
    assert sum(isinstance(layer, nn.ReLU) for layer in mlp(6, 16, 8)(5).network) == 2


def test_a_plain_perceptron_is_what_it_was():
    """Names and initial weights of runs that were fitted before."""
    module = mlp((2, 3), 16, seed=3)(5)
    assert list(module.state_dict()) == [f"network.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")]
    torch.manual_seed(3)
    by_hand = [nn.Linear(6, 16), nn.Linear(16, 5)]
    assert torch.equal(module.network[0].weight, by_hand[0].weight)
    assert torch.equal(module.network[2].bias, by_hand[1].bias)


def test_layers_are_added_to_what_they_read():
    module = mlp(3, 4, 4, activation=nn.Tanh, normalization=nn.LayerNorm, residual=True, seed=0)(2)
    first, second, last = module.network
    assert isinstance(first, Residual) and isinstance(second.shortcut, nn.Identity)
    x = torch.randn(7, 3)
    (linear, norm, _), (linear2, norm2, _) = first.change, second.change
    h = x @ first.shortcut.weight.T + torch.tanh(norm(linear(x)))
    h = h + torch.tanh(norm2(linear2(h)))
    torch.testing.assert_close(module(x), last(h))


def test_layers_gate_themselves():
    module = gated(3, 4, 5, seed=0)(2).double()
    h = x = torch.randn(7, 3).double()
    for width, layer in zip((4, 5), (module.network[0], module.network[2]), strict=True):
        (w, v), (b, c) = layer.weight.split(width), layer.bias.split(width)
        h = (h @ w.T + b) * torch.sigmoid(h @ v.T + c)
    torch.testing.assert_close(module(x), module.network[-1](h), rtol=1e-12, atol=1e-12)
