"""What no graph can hold: a look at the value of a tensor, refused by the line that takes it."""

import contextlib
import os
import traceback
from collections.abc import Sequence
from contextlib import ContextDecorator
from pathlib import Path
from typing import Any

import pyro
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae.pairs
from pyrovae.base.errors import InputError
from pyrovae.pairs.traces import family, site_at

_LIBRARIES = tuple(str(Path(file).parent) + os.sep for file in (pyro.__file__, torch.__file__, pyrovae.pairs.__file__))


class Untraceable(InputError):
    """A function cannot be a graph; the message says why, and where."""


class Unseen(TorchDispatchMode, ContextDecorator):
    """Refuses every look at the value of a tensor.

    The tracer itself lets one at a parameter pass (test_a_look_at_a_value_is_refused_by_its_line, "of a live tensor").
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _looks(func, args):
            raise Untraceable(f"{line_of(None)}: the value of a tensor decides what comes next")
        return func(*args, **(kwargs or {}))


class OneHot(TorchFunctionMode, ContextDecorator):
    """Classes as vectors of zeros and one, without the look at them that torch takes first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.one_hot and len(args) == 2 and not kwargs and args[1] > 0:
            return (args[0][..., None] == torch.arange(args[1], device=args[0].device)).long()
        return func(*args, **(kwargs or {}))


def _looks(func: Any, args: Sequence[Any]) -> bool:
    """Whether what an operation gives, or its shape, is decided on the host by a tensor's value."""
    if func is torch.ops.aten.index.Tensor:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def line_of(error: BaseException | None) -> str:
    """Site and line of the caller's own code, "site 'z' (Normal), file.py, line 7", of an error or this call."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    walked = [*(traceback.walk_tb(error.__traceback__) if error else reversed([*traceback.walk_stack(None)]))]
    frames = traceback.StackSummary.extract(walked)
    own = [frame for frame in frames if not frame.filename.startswith((*_LIBRARIES, contextlib.__file__, "<"))]
    frame = (own or frames)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno} ({(frame.line or '').strip()})"
    site = site_at(walked)
    return f"site '{site['name']}' ({family(site['fn'])}), {place}" if site else place
