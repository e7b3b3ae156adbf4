"""Operators on images by name: masks for inpainting and outfilling, grey, coarse and blurred pictures, and noise."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, nearest
from pyrovae.base.random import stream
from pyrovae.pairs.operators.impulses import salt_and_pepper
from pyrovae.pairs.operators.linear_maps import linear
from pyrovae.pairs.operators.masked import entries
from pyrovae.pairs.operators.operator import Operator

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def _image(shape: Sequence[int], task: str) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        InputError: for data that are no images.
    """
    if len(shape) not in (2, 3):
        raise InputError(f"{task}: expected images (H, W) or (C, H, W), got data of shape {tuple(shape)}")
    channels, height, width = (1, *shape)[-3:]
    return channels, height, width


def _masked(region: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A mask of images from one of rows and columns, which are told as fractions in (0, 1)."""

    def mask(shape: Sequence[int]) -> Tensor:
        _, height, width = _image(shape, "a mask")
        rows, columns = ((torch.arange(size) + 0.5) / size for size in (height, width))
        return region(rows[:, None], columns[None, :]).expand(height, width).expand(tuple(shape)).contiguous()

    return mask


def random_mask(shape: Sequence[int], fraction: float = 0.5, seed: int = 0) -> Tensor:
    """A mask that observes a fraction of the pixels, in all channels alike."""
    _, height, width = _image(shape, "random")
    if not 0 < fraction < 1:
        raise InputError(f"random: expected the fraction that is observed, in (0, 1), got {fraction}")
    order = torch.randperm(height * width, generator=stream("mask", seed))
    seen = torch.zeros(height * width, dtype=torch.bool)
    seen[order[: max(1, round(fraction * height * width))]] = True
    return seen.view(height, width).expand(tuple(shape)).contiguous()


# Name -> what is hidden of an image: (shape, *numbers) -> booleans, True where a pixel is observed.
MASKS: dict[str, Callable[..., Tensor]] = {
    "lower-half": _masked(lambda row, column: (row < 0.5) & (column < 1)),
    "upper-half": _masked(lambda row, column: (row > 0.5) & (column < 1)),
    "left": _masked(lambda row, column: (row < 1) & (column > 0.5)),
    "right": _masked(lambda row, column: (row < 1) & (column < 0.5)),
    "quadrant": _masked(lambda row, column: (row < 0.5) | (column < 0.5)),
    "centre": _masked(lambda row, column: ((row - 0.5).abs() < 0.25) & ((column - 0.5).abs() < 0.25)),
    "random": random_mask,
}


@checked
def grey(shape: Sequence[int], weights: Sequence[float] = LUMINANCE, noise: float = 0.0) -> Operator:
    """Observes the weighted sum of colour channels: colorization.

    Args:
        shape: of colour images, (3, H, W).
        weights: of the channels.
        noise: standard deviation of what is added.

    Raises:
        InputError: for images without so many channels.
    """
    channels, height, width = _image(shape, "grey")
    if channels != len(weights) or len(shape) != 3:
        raise InputError(f"grey: expected images ({len(weights)}, H, W), got data of shape {tuple(shape)}")
    matrix = torch.kron(torch.tensor([weights]).double(), torch.eye(height * width).double())
    return linear(matrix, shape=shape, of_shape=(height, width), noise=noise, name="grey")


def _averaging(size: int, block: int) -> Tensor:
    return torch.kron(torch.eye(size // block).double(), torch.full((1, block), 1 / block).double())


@checked
def coarse(shape: Sequence[int], block: int = 2, noise: float = 0.0) -> Operator:
    """Observes the means of blocks of pixels: super-resolution.

    Args:
        shape: of images, (H, W) or (C, H, W).
        block: pixels along the side of a block, which divides both sizes.
        noise: standard deviation of what is added.

    Raises:
        InputError: for images that do not come apart into such blocks.
    """
    channels, height, width = _image(shape, "coarse")
    if block < 2 or height % block or width % block:
        raise InputError(
            f"coarse: blocks of {block} x {block} do not divide images of {height} x {width}; take another size"
        )
    matrix = torch.kron(_averaging(height, block), _averaging(width, block))
    of_shape = (*shape[:-2], height // block, width // block)
    whole = torch.kron(torch.eye(channels).double(), matrix)
    return linear(whole, shape=shape, of_shape=of_shape, noise=noise, name=f"coarse {block}")


def _smoothing(size: int, width: float) -> Tensor:
    away = torch.arange(size).double()[:, None] - torch.arange(size).double()
    return (-(away / width).square() / 2).softmax(1)


@checked
def blur(shape: Sequence[int], width: float = 1.0, noise: float = 0.05) -> Operator:
    """Observes images under a Gaussian blur, whose weights sum to one at the borders too: restoration.

    Args:
        shape: of images, (H, W) or (C, H, W).
        width: standard deviation of the kernel in pixels.
        noise: standard deviation of what is added, above 0: a blur alone is not told from rounding.

    Raises:
        InputError: for a width or noise that is not positive.
    """
    channels, height, columns = _image(shape, "blur")
    if not (0 < width < math.inf and noise > 0):
        raise InputError(f"blur: expected a positive width and positive noise, got {width} and {noise}")
    matrix = torch.kron(_smoothing(height, width), _smoothing(columns, width))
    whole = torch.kron(torch.eye(channels).double(), matrix)
    return linear(whole, shape=shape, of_shape=shape, noise=noise, name=f"blur {width:g}")


# Name -> task on images: (shape, *numbers) -> operator.
TASKS: dict[str, Callable[..., Operator]] = {
    "grey": lambda shape, noise=0.0: grey(shape, noise=noise),
    "coarse": lambda shape, block=2, noise=0.0: coarse(shape, int(block), noise),
    "blur": blur,
    "salt-and-pepper": salt_and_pepper,
}


def named(text: str, shape: Sequence[int]) -> Operator:
    """An operator from its name and numbers: ``"lower-half"``, ``"random:0.5"``, ``"coarse:2"``, ``"blur:1,0.05"``.

    Raises:
        InputError: for another name, or numbers that it does not take.

    Example:
        >>> named("coarse:4", (1, 28, 28))
        coarse 4: (1, 28, 28) -> (1, 7, 7)
    """
    name, _, given = text.partition(":")
    if name not in (*MASKS, *TASKS):
        choices = (*MASKS, *TASKS)
        raise InputError(f"expected one of {', '.join(choices)}, got '{name}'{nearest(name, choices)}")
    try:
        numbers = [float(number) for number in given.split(",") if given]
        if name in MASKS:
            return entries(MASKS[name](tuple(shape), *numbers), name=text)
        return TASKS[name](tuple(shape), *numbers)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{text}': expected {name}, or numbers after it as in {name}:0.5, got '{given}'") from error
