"""One run of a pair as two traces: their sample sites, and the log density of one site."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from pyrovae.base.errors import InputError

Program = Callable[..., Any]


# --------------------------------------------------------------------------------------------------- runs


def plain_traces(model: Program, guide: Program, args: Sequence[Any]) -> tuple[Trace, Trace]:
    """One run of the guide, and of the model on what it drew: (model trace, guide trace).

    Raises:
        InputError: without the table of shapes that Pyro appends; for sizes that do not fit a plate, with advice.
    """
    try:
        guide_trace = poutine.trace(guide).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    except (ValueError, RuntimeError) as error:
        message = re.split(r"\n\s*Trace Shapes:", str(error))[0].strip()
        if "Shape mismatch inside plate" in message:
            raise InputError(
                f"{message}; does the distribution lack .to_event(n) over a datum's dimensions? (With a parameter for "
                "each datum, give batch_size= the number of data.)"
            ) from error
        if isinstance(error, InputError):
            raise type(error)(message) from error
        if message != str(error).strip():
            raise type(error)(message) from error
        raise
    return model_trace, guide_trace


def sites(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace by name, without those that plates and ``pyro.deterministic`` make."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not isinstance(site["fn"], _Subsample)
        and not (site["infer"] or {}).get("_deterministic")
    }


def num_rows(args: Sequence[Any]) -> int:
    """How many data a tuple of arguments holds: the first dimension of its first tensor."""
    for arg in args:
        if isinstance(arg, Tensor) and arg.dim() > 0:
            return len(arg)
    raise InputError("model and guide need a tensor argument whose first dimension is the datum; none was given")


def site_log_prob(site: dict) -> Tensor:
    """Log density of a site, of its batch shape: with its mask and without its scale."""
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    mask = site["mask"]
    return log_prob if mask is None else torch.where(torch.as_tensor(mask, device=log_prob.device), log_prob, 0.0)
