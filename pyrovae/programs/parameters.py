"""What the modules of this folder share: seeded draws, tensors and weights registered, arguments checked."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError


@contextmanager
def seeded(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Draws inside come from ``seed``, and the global generator is put back afterwards; None changes nothing.

    Args:
        seed: of the draws.
        device: whose generator is meant; None is torch's default device. No other one is touched.
    """
    if seed is None:
        yield
        return
    device, generator = device or torch.get_default_device(), torch.default_generator
    if cuda := device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
    with torch.random.fork_rng(devices=[device] if cuda else []):
        generator.manual_seed(seed)
        yield


def register_tensors(module: nn.Module, shape: torch.Size, **tensors: Tensor) -> None:
    """Registers tensors of one shape (or scalars) on the module: a parameter as such, any other as a buffer.

    Args:
        module: whose attributes they become.
        shape: of each of them; a buffer is a copy of this shape, of a scalar too.
        tensors: by the name of the attribute.

    Raises:
        InputError: by its name, for a tensor of another shape.
    """
    for name, tensor in tensors.items():
        if tensor.shape not in (shape, torch.Size([])):
            raise InputError(f"expected {name} of shape {tuple(shape)}; got {tuple(tensor.shape)}")
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(name, tensor)
        else:
            module.register_buffer(name, tensor.detach().expand(shape).clone())


def register_module(module: nn.Module) -> None:
    """Makes the module's weights, where it has any, parameters of the running program, under its class's name."""
    if next(module.parameters(), None) is not None:
        pyro.module(type(module).__name__, module)


def check_rows(x: Tensor, event_shape: torch.Size) -> None:
    """Raises InputError unless ``x`` has the shape (N, *event_shape)."""
    if x.ndim == 0 or x.shape[1:] != event_shape:
        expected = ", ".join(["N", *map(str, event_shape)])
        raise InputError(f"expected data of shape ({expected}); got {tuple(x.shape)}")


def check_positive(**tensors: Tensor) -> None:
    """Raises InputError, by its name, for a tensor that is not positive everywhere."""
    for name, tensor in tensors.items():
        if not bool((tensor > 0).all()):
            raise InputError(f"{name} must be positive everywhere; got {float(tensor.min()):g}")


def check_proportions(weights: Tensor) -> None:
    """Raises InputError unless these are proportions of components, shape (C,), that sum to one."""
    if weights.ndim != 1 or not bool((weights >= 0).all()) or abs(float(weights.sum()) - 1) > 1e-5:
        raise InputError("weights must be proportions of shape (C,): not negative, and summing to one")
