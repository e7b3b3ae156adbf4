"""What networks are made of: any leading dimensions, what is added to what, widths checked."""

from collections.abc import Callable

from torch import Size, Tensor, nn

from pyrovae.base.errors import InputError, whole

NetworkBuilder = Callable[[int], nn.Module]
Normalization = Callable[[int], nn.Module]


class OnEvents(nn.Module):
    """Lets a network that takes one batch dimension take any number of leading dimensions.

    Torch's convolutions refuse an input with both particles and data in front; here, once, those are folded
    into one dimension and unfolded again.

    Args:
        network: (N, P) -> (N, Q), with at least one parameter; P is the number of elements of ``in_shape``.
        in_shape: shape of one event, the last dimensions of an input.

    Raises:
        InputError: in the forward pass, if an input does not end in ``in_shape``.
    """

    def __init__(self, network: nn.Module, in_shape: Size) -> None:
        super().__init__()
        self.network, self.in_shape = network, in_shape

    def forward(self, c: Tensor) -> Tensor:
        lead = c.dim() - len(self.in_shape)
        if lead < 0 or c.shape[lead:] != self.in_shape:
            raise InputError(
                f"the network reads events of shape {tuple(self.in_shape)}, "
                f"but it was given a tensor of shape {tuple(c.shape)}"
            )
        # Counts and bits come as they are stored; the network computes in the precision of its weights.
        rows = c.reshape(-1, self.in_shape.numel()).to(next(self.parameters()).dtype)
        out = self.network(rows)
        return out.reshape(*c.shape[:lead], out.shape[-1])


class Residual(nn.Module):
    """shortcut(h) + change(h): a layer that has only the difference to learn (He et al. 2016, arXiv:1512.03385).

    Args:
        change: any module.
        shortcut: one that gives the same shape; the identity where None.
    """

    def __init__(self, change: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.change, self.shortcut = change, shortcut or nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return self.shortcut(h) + self.change(h)


def normalized(width: int, normalization: Normalization | None) -> list[nn.Module]:
    """What stands behind a layer of this width: its normalization, or nothing."""
    return [] if normalization is None else [normalization(width)]


def as_size(shape: int | tuple[int, ...]) -> Size:
    """A shape; an int is that of a vector."""
    return Size([shape] if isinstance(shape, int) else shape)


def check_widths(**layers: tuple[int, ...]) -> None:
    """Raises InputError, by the name of the argument, unless there are widths, each a whole number from 1."""
    for name, widths in layers.items():
        if min((whole(name, width) for width in widths), default=0) < 1:
            raise InputError(f"{name}: each width must be at least 1, got {widths}")
