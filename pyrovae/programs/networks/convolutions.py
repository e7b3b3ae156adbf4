"""Convolutional networks of images: an encoder halves them, a decoder doubles them, residual blocks between."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Size, nn

from pyrovae.base.errors import InputError, whole
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

Activation = Callable[[], nn.Module]


def conv_encoder(
    image_shape: tuple[int, ...],
    *,
    channels: tuple[int, ...] = (32, 64),
    hidden: int = 256,
    num_blocks: int = 0,
    activation: Activation = nn.ReLU,
    normalization: Normalization | None = None,
    seed: int | None = None,
) -> NetworkBuilder:
    """Convolutions of stride 2, one for each of ``channels``, then one hidden layer.

    Args:
        image_shape: (H, W) or (C, H, W) of one image.
        channels: of each convolution (3x3, stride 2: each halves height and width, rounded up).
        hidden: width of the layer between the last convolution and the output.
        num_blocks: residual blocks behind each convolution: two more of 3x3 that are added to what they read.
        activation: constructor of the nonlinearity.
        normalization: number of channels -> the module before each nonlinearity of images, as ``nn.BatchNorm2d`` or
            ``lambda channels: nn.GroupNorm(1, channels)``.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if the shape is not an image's, or a width is below 1; in the forward pass, if an input has
            another shape.

    References:
        He, Zhang, Ren and Sun (2016), Identity mappings in deep residual networks, arXiv:1603.05027.

    Example:
        >>> import torch
        >>> conv_encoder((28, 28))(10)(torch.zeros(4, 2, 28, 28)).shape
        torch.Size([4, 2, 10])
    """
    depth, height, width = _image(image_shape)
    check_widths(channels=channels, hidden=(hidden,))
    stage = _stage(num_blocks, activation, normalization)

    def build(num_outputs: int) -> nn.Module:
        with seeded(seed):
            layers: list[nn.Module] = [nn.Unflatten(1, (depth, height, width))]
            for before, after in pairwise((depth, *channels)):
                layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), *stage(after)]
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
    num_blocks: int = 0,
    activation: Activation = nn.ReLU,
    normalization: Normalization | None = None,
    seed: int | None = None,
) -> NetworkBuilder:
    """One hidden layer, then transposed convolutions that double height and width up to ``image_shape``.

    Args:
        in_shape: shape of one latent (flattened), or its length.
        image_shape: (H, W) or (C, H, W) of one image; outputs are one or more whole images, one after another.
        channels: of each transposed convolution's input (4x4, stride 2: each doubles height and width, and the
            last image is cut to its size).
        hidden: width of the first layer.
        num_blocks: residual blocks before each transposed convolution, as those of :func:`conv_encoder`.
        activation: constructor of the nonlinearity.
        normalization: number of channels -> the module before each nonlinearity of images.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        InputError: if the shape is not an image's, a width is below 1, or the number of outputs is not a
            multiple of the image's size; in the forward pass, if an input has another shape.

    Example:
        >>> import torch
        >>> conv_decoder(10, (28, 28))(784)(torch.zeros(4, 2, 10)).shape
        torch.Size([4, 2, 784])
    """
    shape = as_size(in_shape)
    _, height, width = _image(image_shape)
    check_widths(channels=channels, hidden=(hidden,))
    stage = _stage(num_blocks, activation, normalization)

    def build(num_outputs: int) -> nn.Module:
        _check_whole_images(num_outputs, image_shape)
        h, w = _halved(height, width, len(channels))
        with seeded(seed):
            layers = [nn.Linear(shape.numel(), hidden), activation(), nn.Linear(hidden, channels[0] * h * w)]
            layers += [nn.Unflatten(1, (channels[0], h, w)), *stage(channels[0])]
            for before, after in pairwise(channels):
                layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), *stage(after)]
            layers.append(nn.ConvTranspose2d(channels[-1], num_outputs // (height * width), 4, stride=2, padding=1))
            cut = (0, width - w * 2 ** len(channels), 0, height - h * 2 ** len(channels))
            return OnEvents(nn.Sequential(*layers, nn.ZeroPad2d(cut), nn.Flatten()), shape)  # negative, it cuts

    return build


def _stage(
    num_blocks: int, activation: Activation, normalization: Normalization | None
) -> Callable[[int], list[nn.Module]]:
    """What stands between two convolutions: blocks of two more, then the nonlinearity."""
    if whole("num_blocks", num_blocks) < 0:
        raise InputError(f"num_blocks must not be negative, got {num_blocks}")

    def before_it(channels: int) -> list[nn.Module]:
        return [*normalized(channels, normalization), activation()]

    def block(channels: int) -> nn.Module:
        halves = ([*before_it(channels), nn.Conv2d(channels, channels, 3, padding=1)] for _ in range(2))
        return Residual(nn.Sequential(*(module for half in halves for module in half)))

    return lambda channels: [*(block(channels) for _ in range(num_blocks)), *before_it(channels)]


def _check_whole_images(num_outputs: int, image_shape: tuple[int, ...]) -> None:
    num_pixels = Size(image_shape).numel()
    if num_outputs % num_pixels:
        raise InputError(
            f"conv_decoder draws images of shape {tuple(image_shape)}, but the family needs {num_outputs} numbers, "
            f"not a multiple of {num_pixels}: give image_shape the shape of the data"
        )


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"an image has shape (H, W) or (C, H, W), got {tuple(shape)}")
    return (1, *shape) if len(shape) == 2 else tuple(shape)  # type: ignore[return-value]


def _halved(height: int, width: int, times: int) -> tuple[int, int]:
    return math.ceil(height / 2**times), math.ceil(width / 2**times)
