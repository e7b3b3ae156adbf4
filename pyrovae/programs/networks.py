"""Networks: (..., *in) -> (..., out) for any leading dimensions, so that particles can stand before data.

Each function takes what it reads and returns a function of how many numbers it must give, which
:class:`~pyrovae.Conditional` calls with what its family needs.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Size, Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.programs.parameters import seeded

NetworkBuilder = Callable[[int], nn.Module]


def mlp(
    in_shape: int | tuple[int, ...],
    *hidden: int,
    activation: Callable[[], nn.Module] = nn.ReLU,
    seed: int | None = None,
) -> NetworkBuilder:
    """A multilayer perceptron with layers ``hidden`` between its input and its output.

    Args:
        in_shape: shape of one input (flattened), or its length.
        hidden: widths of the hidden layers; none makes the map affine.
        activation: constructor of the nonlinearity.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if a width is below 1; in the forward pass, if an input has another shape.

    Example:
        >>> import torch
        >>> mlp((8, 8), 32)(5)(torch.zeros(7, 3, 8, 8)).shape
        torch.Size([7, 3, 5])
    """
    shape = _size(in_shape)
    _check_widths(hidden=hidden or (1,))

    def build(num_outputs: int) -> nn.Module:
        widths = [shape.numel(), *hidden]
        with seeded(seed):
            layers = [layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), activation())]
            return OnEvents(nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs)), shape)

    return build


def conv_encoder(
    image_shape: tuple[int, ...],
    *,
    channels: tuple[int, ...] = (32, 64),
    hidden: int = 256,
    activation: Callable[[], nn.Module] = nn.ReLU,
    seed: int | None = None,
) -> NetworkBuilder:
    """Convolutions of stride 2, one for each of ``channels``, then one hidden layer.

    Args:
        image_shape: (H, W) or (C, H, W) of one image.
        channels: of each convolution (3x3, stride 2: each halves height and width, rounded up).
        hidden: width of the layer between the last convolution and the output.
        activation: constructor of the nonlinearity.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if the shape is not an image's, or a width is below 1; in the forward pass, if an input has
            another shape.

    Example:
        >>> import torch
        >>> conv_encoder((28, 28))(10)(torch.zeros(4, 2, 28, 28)).shape
        torch.Size([4, 2, 10])
    """
    depth, height, width = _image(image_shape)
    _check_widths(channels=channels, hidden=(hidden,))

    def build(num_outputs: int) -> nn.Module:
        with seeded(seed):
            layers: list[nn.Module] = [nn.Unflatten(1, (depth, height, width))]
            for before, after in zip((depth, *channels[:-1]), channels, strict=True):
                layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), activation()]
            (h, w), last = _halved(height, width, len(channels)), channels[-1]
            layers += [nn.Flatten(), nn.Linear(last * h * w, hidden), activation(), nn.Linear(hidden, num_outputs)]
            return OnEvents(nn.Sequential(*layers), Size(image_shape))

    return build


def conv_decoder(
    in_shape: int | tuple[int, ...],
    image_shape: tuple[int, ...],
    *,
    channels: tuple[int, ...] = (64, 32),
    hidden: int = 256,
    activation: Callable[[], nn.Module] = nn.ReLU,
    seed: int | None = None,
) -> NetworkBuilder:
    """One hidden layer, then transposed convolutions that double height and width up to ``image_shape``.

    Args:
        in_shape: shape of one latent (flattened), or its length.
        image_shape: (H, W) or (C, H, W) of one image; outputs are one or more whole images, one after another.
        channels: of each transposed convolution's input (4x4, stride 2: each doubles height and width, and the
            last image is cut to its size).
        hidden: width of the first layer.
        activation: constructor of the nonlinearity.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if the shape is not an image's, a width is below 1, or the number of outputs is not a
            multiple of the image's size; in the forward pass, if an input has another shape.

    Example:
        >>> import torch
        >>> conv_decoder(10, (28, 28))(784)(torch.zeros(4, 2, 10)).shape
        torch.Size([4, 2, 784])
    """
    shape = _size(in_shape)
    depth, height, width = _image(image_shape)
    _check_widths(channels=channels, hidden=(hidden,))

    def build(num_outputs: int) -> nn.Module:
        if num_outputs % (depth * height * width):
            raise InputError(
                f"conv_decoder draws images of shape {tuple(image_shape)}, but the family needs {num_outputs} numbers, "
                f"not a multiple of {depth * height * width}: give image_shape the shape of the data"
            )
        h, w = _halved(height, width, len(channels))
        with seeded(seed):
            layers = [nn.Linear(shape.numel(), hidden), activation()]
            layers += [nn.Linear(hidden, channels[0] * h * w), activation(), nn.Unflatten(1, (channels[0], h, w))]
            afters = (*channels[1:], num_outputs // (height * width))
            for before, after in zip(channels, afters, strict=True):
                layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), activation()]
            cut = (0, width - w * 2 ** len(channels), 0, height - h * 2 ** len(channels))
            layers[-1] = nn.ZeroPad2d(cut)  # negative, it cuts; in the place of the last activation
            return OnEvents(nn.Sequential(*layers, nn.Flatten()), shape)

    return build


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


def _size(shape: int | tuple[int, ...]) -> Size:
    return Size([shape] if isinstance(shape, int) else shape)


def _check_widths(**layers: tuple[int, ...]) -> None:
    for name, widths in layers.items():
        if min(widths, default=0) < 1:
            raise InputError(f"{name}: each width must be at least 1, got {widths}")


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"an image has shape (H, W) or (C, H, W), got {tuple(shape)}")
    return (1, *shape) if len(shape) == 2 else tuple(shape)  # type: ignore[return-value]


def _halved(height: int, width: int, times: int) -> tuple[int, int]:
    return math.ceil(height / 2**times), math.ceil(width / 2**times)
