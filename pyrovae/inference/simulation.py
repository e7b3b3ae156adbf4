"""Data simulated from a model with the latents that made them: (z, x) ~ p(z) p(x|z), x in the place of the observed.

Whatever is asked of the truth behind data (calibration, bounds from above) starts here. Programs take their data as
arguments, so the drawn x is written back into them: a probe with numbered entries shows which entry is seen where.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.inference.pairs import Program, sites


class Simulated(NamedTuple):
    """n data of a model and the latents that made them."""

    args: tuple[Any, ...]  # what the programs take, with x as drawn
    latents: dict[str, Tensor]  # site -> its values, as a run of the model holds them


def simulate(model: Program, template: Sequence[Any], num_data: int) -> Simulated:
    """Draws latents and data from a model; for use inside ``blocks.undisturbed``, which keeps the random state.

    Args:
        model: program of p(x, z).
        template: arguments as the programs take them, a few rows; covariates are conditioned on, row by row, and
            repeated as often as needed.
        num_data: n.

    Raises:
        InputError: naming the site, if what the model observes is not an argument, or a part of one, as it is.
    """
    args = [_repeated(arg, num_data) for arg in template]
    trace = poutine.trace(poutine.uncondition(model)).get_trace(*args)
    found = sites(trace)
    observed = {name: site["value"] for name, site in found.items() if site["infer"].get("was_observed")}
    latents = {name: site["value"] for name, site in found.items() if name not in observed}
    for name, value in observed.items():
        if isinstance(found[name]["fn"], dist.Unit):
            raise InputError(f"site '{name}' is a factor: a model with factors cannot be simulated from")
        number, index = _seen_by(model, args, name)
        written = args[number].clone().flatten()
        written[index.flatten()] = value.to(written).expand(index.shape).flatten()
        args[number] = written.reshape(args[number].shape)
    return Simulated(tuple(args), latents)


def _seen_by(model: Program, args: Sequence[Any], name: str) -> tuple[int, Tensor]:
    """Which argument an observed site shows, and which of its entries stands at each place of the site's value."""
    for number, arg in enumerate(args):
        if isinstance(arg, Tensor) and arg.numel() > 0:
            first, second = (_probe(model, args, number, name, seed) for seed in range(2))
            if first is not None and second is not None and torch.equal(first, second):
                return number, first
    raise InputError(
        f"site '{name}' observes something computed from the arguments: data simulated from the model cannot be "
        f"handed back to the programs. Give what '{name}' observes as an argument of its own"
    )


def _probe(model: Program, args: Sequence[Any], number: int, name: str, seed: int) -> Tensor | None:
    """The entries of one argument that a site shows, found by numbering them in an order of no meaning."""
    arg = args[number]
    order = torch.randperm(arg.numel(), generator=torch.Generator().manual_seed(seed)).to(arg.device)
    numbered = order.reshape(arg.shape).to(arg.dtype)
    seen = _value_at(model, [*args[:number], numbered, *args[number + 1 :]], name)
    index = _as_index(seen, torch.arange(arg.numel(), device=arg.device).to(arg.dtype))
    return None if index is None else order.argsort()[index]


def _value_at(model: Program, args: Sequence[Any], name: str) -> Tensor | None:
    try:
        with torch.random.fork_rng(), pyro.validation_enabled(False):
            site = poutine.trace(model).get_trace(*args).nodes[name]
    except (RuntimeError, ValueError, IndexError, KeyError):
        return None  # numbers in the place of labels, say: then this argument is no observation
    return site["value"] if site["is_observed"] and isinstance(site["value"], Tensor) else None


def _as_index(seen: Tensor | None, numbers: Tensor) -> Tensor | None:
    """The entries that a value consists of, or None where it holds anything but numbers of entries, each once."""
    if seen is None or seen.dtype != numbers.dtype or not seen.isfinite().all():
        return None
    index = seen.long()
    inside = (index >= 0) & (index < len(numbers))
    if not inside.all() or not torch.equal(numbers[index], seen) or len(index.unique()) != index.numel():
        return None
    return index


def _repeated(arg: Any, num_data: int) -> Any:
    if not isinstance(arg, Tensor) or arg.dim() == 0:
        return arg
    return arg[torch.arange(num_data, device=arg.device) % len(arg)]
