"""What the modules of this folder share: seeded draws, numbers that are fixed or learned, arguments checked."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.base.random import preserve_rng_state, seed_torch


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draws inside come from ``seed``, and the global generators are put back afterwards; None changes nothing."""
    if seed is None:
        yield
        return
    torch.empty(0)  # starts CUDA where that is the default device, so that its generators are there
    with preserve_rng_state():
        seed_torch(seed)
        yield


def learned_or_fixed(name: str, tensor: Tensor, shape: torch.Size, *, positive: bool = False) -> Tensor:
    """What a module holds of a tensor of some shape, or a scalar: a parameter as it is, any other as a buffer.

    A buffer is a copy of the full shape, of a scalar too.

    Raises:
        InputError: by its name, for a tensor of another shape, or one that must be positive and is not.
    """
    if positive and not bool((tensor > 0).all()):
        raise InputError(f"{name} must be positive everywhere; got {float(tensor.min()):g}")
    if tensor.shape not in (shape, torch.Size([])):
        raise InputError(f"expected {name} of shape {tuple(shape)}; got {tuple(tensor.shape)}")
    return tensor if isinstance(tensor, nn.Parameter) else nn.Buffer(tensor.detach().expand(shape).clone())


def register_module(module: nn.Module) -> None:
    """Makes the module's weights, where it has any, parameters of the running program, under its class's name."""
    if next(module.parameters(), None) is not None:
        pyro.module(type(module).__name__, module)


def check_rows(x: Tensor, event_shape: torch.Size) -> None:
    """Raises InputError unless ``x`` has the shape (N, *event_shape)."""
    if x.ndim == 0 or x.shape[1:] != event_shape:
        expected = ", ".join(["N", *map(str, event_shape)])
        raise InputError(f"expected data of shape ({expected}); got {tuple(x.shape)}")


def check_proportions(weights: Tensor) -> None:
    """Raises InputError unless these are proportions of components, shape (C,), that sum to one."""
    if weights.ndim != 1 or not bool((weights >= 0).all()) or abs(float(weights.sum()) - 1) > 1e-5:
        raise InputError("weights must be proportions of shape (C,): not negative, and summing to one")
