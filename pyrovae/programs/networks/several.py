"""A network of several inputs, side by side: p(x | z, y) reads a latent and a label, q(z | x, y) data and a label."""

from collections.abc import Sequence

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn
from torch.nn.functional import linear

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.networks.events import NetworkBuilder, OnEvents, as_size


class OneHot(nn.Module):
    r"""Class numbers as unit vectors.

    .. math:: y \mapsto e_y \in \{0, 1\}^C

    Args:
        num_classes: C.

    Raises:
        InputError: in the forward pass, for a label outside 0..C-1, wherever Pyro checks values: not in the steps of a
            fit, which has looked at all rows before the first.

    Example:
        >>> OneHot(3)(torch.tensor([2, 0]))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes)
        self.classes = nn.Buffer(torch.arange(num_classes), persistent=False)

    def __len__(self) -> int:
        return len(self.classes)

    def forward(self, y: Tensor) -> Tensor:
        """(...) -> (..., C)."""
        found = y[..., None] == self.classes
        if is_validation_enabled() and not found.any(-1).all():
            bad = y[~found.any(-1)][0].item()
            raise InputError(f"labels are the classes 0..{len(self) - 1}, got {bad:g}: give one of them for each row")
        return found.to(torch.get_default_dtype())


class Beside(nn.Module):
    r"""Several inputs read by one network, each as one vector.

    .. math:: W [a, b] + c = W_a a + W_b b + c

    A first layer that is affine takes each input by itself, in its own leading dimensions: where a label is tried at
    every class, what it does with an image is done once.

    Args:
        inputs: of each, the shape of one event (an int is a vector of that length), or what reads it: a module
            (...) -> (..., F).
        network: what reads them side by side, (..., P) -> (..., Q).
    """

    def __init__(self, inputs: Sequence[int | tuple[int, ...] | nn.Module], network: nn.Module) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(one if isinstance(one, nn.Module) else _Flat(one) for one in inputs)
        self.network = network

    def forward(self, *given: Tensor) -> Tensor:
        if len(given) != len(self.inputs):
            raise InputError(f"the network reads {len(self.inputs)} inputs, but it was given {len(given)}")
        dtype = next(self.network.parameters()).dtype
        parts = [read(one).to(dtype) for read, one in zip(self.inputs, given, strict=True)]
        layers = self.network.network if isinstance(self.network, OnEvents) else None
        first = layers[0] if isinstance(layers, nn.Sequential) else None
        sizes = [part.shape[-1] for part in parts]
        if type(first) is not nn.Linear or sum(sizes) != first.in_features:
            shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
            return self.network(torch.cat([part.expand(*shape, -1) for part in parts], -1))
        of_each = [linear(part, weight) for part, weight in zip(parts, first.weight.split(sizes, 1), strict=True)]
        total = sum(of_each[1:], start=of_each[0]) + first.bias
        rows = layers[1:](total.reshape(-1, total.shape[-1]))  # type: ignore[index]
        return rows.reshape(*total.shape[:-1], -1)


class _Flat(nn.Module):
    """Events of one shape as vectors."""

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.shape = as_size(shape)

    def forward(self, value: Tensor) -> Tensor:
        lead = value.dim() - len(self.shape)
        if lead < 0 or value.shape[lead:] != self.shape:
            raise InputError(
                f"the network reads events of shape {tuple(self.shape)}, but it was given a tensor of shape "
                f"{tuple(value.shape)}"
            )
        return value.reshape(*value.shape[:lead], self.shape.numel())


def beside(inputs: Sequence[int | tuple[int, ...] | nn.Module], network: NetworkBuilder) -> NetworkBuilder:
    """A network that reads several inputs, each flattened, one behind the other.

    Args:
        inputs: of each, the shape of one event (an int is a vector of that length), or what reads it: a module
            (...) -> (..., F), as :class:`OneHot`.
        network: as :func:`pyrovae.networks.mlp` gives one, for all their numbers together.

    Raises:
        InputError: in the forward pass, for another number of inputs or one of another shape.

    Example:
        >>> import pyrovae as pv
        >>> network = beside([2, OneHot(3)], pv.networks.mlp(2 + 3, 32))(5)  # p(x | z, y): a latent, and a label
        >>> network(torch.zeros(7, 4, 2), torch.tensor([0, 1, 2, 0])).shape
        torch.Size([7, 4, 5])
    """
    return lambda num_outputs: Beside(inputs, network(num_outputs))
