"""Networks in bfloat16, densities in float32: the products of linear and convolutional layers are rounded.

A bfloat16 has eight bits of precision: enough for the sums of products in a network, whose weights stay float32, and
far too few for a log density of hundreds of nats or for a covariance. So the inputs of a layer's product are rounded,
its result is taken back to float32 before anything else happens to it, and other products are left alone.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from pyrovae.base.errors import InputError
from pyrovae.inference.pairs import Program

PRECISIONS = ("float32", "bfloat16")

_LAYERS = ("linear", "bilinear", *(f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)))
_PRODUCTS = frozenset(getattr(torch.nn.functional, name) for name in _LAYERS)


class _RoundedProducts(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(_rounded, (args, kwargs or {}))
        out = func(*args, **kwargs)
        return out.float() if isinstance(out, Tensor) and out.dtype == torch.bfloat16 else out


def in_precision(program: Program, precision: str) -> Program:
    """The program with the products of its layers in ``precision``; parameters and densities keep their own.

    Args:
        program: model or guide.
        precision: "float32" changes nothing; "bfloat16" rounds the float32 inputs of linear layers and convolutions.

    Raises:
        InputError: for another precision.

    References:
        Micikevicius et al. (2018), Mixed precision training, arXiv:1710.03740.
        Kalamkar et al. (2019), A study of BFLOAT16 for deep learning training, arXiv:1905.12322.

    Example:
        >>> linear = in_precision(torch.nn.functional.linear, "bfloat16")
        >>> linear(torch.ones(1), torch.full((1, 1), 1 / 3))
        tensor([0.3340])
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "float32":
        return program

    @functools.wraps(program, updated=())
    def rounded(*args: Any, **kwargs: Any) -> Any:
        with _RoundedProducts():
            return program(*args, **kwargs)

    return rounded


def _rounded(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value
