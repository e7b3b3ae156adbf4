"""Perceptrons: affine layers, each followed by a nonlinearity; or by a gate of its own, h * sigmoid(g)."""

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from pyrovae.programs.networks.events import (
    NetworkBuilder,
    Normalization,
    OnEvents,
    Residual,
    as_size,
    check_widths,
    normalized,
)
from pyrovae.programs.parameters import seeded


def mlp(
    in_shape: int | tuple[int, ...],
    *hidden: int,
    activation: Callable[[], nn.Module] = nn.ReLU,
    normalization: Normalization | None = None,
    residual: bool = False,
    seed: int | None = None,
) -> NetworkBuilder:
    r"""A multilayer perceptron with layers ``hidden`` between its input and its output.

    .. math:: h_{l+1} = \phi(\nu(W_l h_l + b_l)), \quad
        \text{and with residual } h_{l+1} = S_l h_l + \phi(\nu(W_l h_l + b_l))

    Args:
        in_shape: shape of one input (flattened), or its length.
        hidden: widths of the hidden layers; none makes the map affine.
        activation: constructor of the nonlinearity.
        normalization: width -> the module behind each hidden layer, as ``nn.LayerNorm``; ``nn.BatchNorm1d`` takes its
            means over particles and data alike, in training from the batch, in an evaluation from the fit.
        residual: each hidden layer adds its input, by a learned matrix where widths differ.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if a width is below 1; in the forward pass, if an input has another shape.

    References:
        He, Zhang, Ren and Sun (2016), Deep residual learning, arXiv:1512.03385.
        Ba, Kiros and Hinton (2016), Layer normalization, arXiv:1607.06450.

    Example:
        >>> import torch
        >>> mlp((8, 8), 32)(5)(torch.zeros(7, 3, 8, 8)).shape
        torch.Size([7, 3, 5])
        >>> mlp((8, 8), 32, 32, normalization=nn.LayerNorm, residual=True)(5)(torch.zeros(7, 3, 8, 8)).shape
        torch.Size([7, 3, 5])
    """

    def layer(before: int, after: int) -> list[nn.Module]:
        parts = [nn.Linear(before, after), *normalized(after, normalization), activation()]
        if not residual:
            return parts
        return [Residual(nn.Sequential(*parts), None if before == after else nn.Linear(before, after, bias=False))]

    return _stacked(in_shape, hidden, layer, seed)


def gated(in_shape: int | tuple[int, ...], *hidden: int, seed: int | None = None) -> NetworkBuilder:
    r"""A perceptron whose layers gate themselves; the network of the VampPrior's experiments.

    .. math:: h_{l+1} = (W_l h_l + b_l) \odot \sigma(V_l h_l + c_l)

    Args:
        in_shape: shape of one input (flattened), or its length.
        hidden: widths of the hidden layers; none makes the map affine.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if a width is below 1; in the forward pass, if an input has another shape.

    References:
        Dauphin, Fan, Auli and Grangier (2017), Language modeling with gated convolutional networks, arXiv:1612.08083.
        Tomczak and Welling (2018), VAE with a VampPrior, arXiv:1705.07120.

    Example:
        >>> import torch
        >>> gated((8, 8), 300, 300)(5)(torch.zeros(7, 3, 8, 8)).shape
        torch.Size([7, 3, 5])
    """
    # One product gives both halves; nn.GLU is the first times the sigmoid of the second.
    return _stacked(in_shape, hidden, lambda before, after: [nn.Linear(before, 2 * after), nn.GLU()], seed)


def _stacked(
    in_shape: int | tuple[int, ...],
    hidden: tuple[int, ...],
    layer: Callable[[int, int], list[nn.Module]],
    seed: int | None,
) -> NetworkBuilder:
    """Layers of these widths one after another, then an affine one."""
    shape = as_size(in_shape)
    check_widths(hidden=hidden or (1,))

    def build(num_outputs: int) -> nn.Module:
        widths = [shape.numel(), *hidden]
        with seeded(seed):
            layers = [module for before, after in pairwise(widths) for module in layer(before, after)]
            return OnEvents(nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs)), shape)

    return build
