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

from pyrovae.base.errors import InputError
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.supports import scored
from pyrovae.pairs.traces import Program, site_log_prob, sites_of


class Simulated(NamedTuple):
    """n data of a model and the latents that made them."""

    args: tuple[Any, ...]  # what the programs take, with x as drawn
    latents: dict[str, Tensor]  # site -> its values, as a run of the model holds them


def simulate(model: Program, template: Sequence[Any], rows: slice) -> Simulated:
    """Draws latents and data from a model; for use inside ``isolated``, which keeps the random state.

    Args:
        model: program of p(x, z).
        template: arguments as the programs take them, a few rows; covariates are conditioned on, row by row, and
            repeated as often as needed. Entries that are NaN stay so: they are missing from the simulated data too.
        rows: which data of an endless repetition of the template to simulate, from ``rows.start`` to ``rows.stop``,
            so that blocks of data have the covariates that one run would have.

    Raises:
        InputError: naming the site, if what the model observes is not an argument, or a part of one, as it is; if
            a distribution of the model depends on the data.
    """
    args = [_repeated(arg, rows) for arg in template]
    found = sites_of(poutine.uncondition(model), *args)
    observed = [name for name, site in found.items() if site["infer"].get("was_observed")]
    latents = {name: site["value"] for name, site in found.items() if name not in observed}
    for name in observed:
        if isinstance(found[name]["fn"], dist.Unit):
            raise InputError(f"site '{name}' is a factor: a model with factors cannot be simulated from")
    with preserve_rng_state(), pyro.validation_enabled(False):  # missing entries and numbers are no data to validate
        for name in observed:
            number, index = _seen_by(model, args, name)
            args[number] = _written(args[number], index, found[name]["value"])
        _check_data_independence(model, args, found, latents)
    return Simulated(tuple(args), latents)


def _written(arg: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """An argument with a site's value at the entries that the site shows; what is missing stays missing."""
    written = arg.clone().flatten()
    written[index.flatten()] = value.to(written).expand(index.shape).flatten()
    return torch.where(arg.isnan(), arg, written.reshape(arg.shape))


def _check_data_independence(
    model: Program, args: Sequence[Any], found: dict[str, Any], latents: dict[str, Tensor]
) -> None:
    """Demands that on the simulated data each site has the distribution that it was drawn from."""
    again = sites_of(poutine.condition(model, data=latents), *args)
    for name, site in found.items():
        if name not in again or not _same_distribution(site, again[name]):
            raise InputError(
                f"site '{name}': its distribution depends on the data themselves, so data simulated in one run are not "
                f"the model's; let '{name}' read latents, covariates and what pyro.sample returns for other sites"
            )


def _same_distribution(site: Any, other: Any) -> bool:
    """Whether two runs of a site give its value in the first one density, where the same entries count in both."""
    value, event_dim = site["value"], len(site["fn"].event_shape)
    differ = scored(site, value, 0) != scored(other, value, 0)
    alike = ~differ.reshape(*differ.shape[: differ.dim() - event_dim], -1).any(-1)
    first, second = (torch.where(alike, site_log_prob({**one, "value": value}), 0.0) for one in (site, other))
    tolerance = 1e-8 if first.dtype == torch.float64 else 1e-4
    return torch.allclose(first, second, rtol=tolerance, atol=10 * tolerance, equal_nan=True)


def _seen_by(model: Program, args: Sequence[Any], name: str) -> tuple[int, Tensor]:
    """Which argument an observed site shows, and which of its entries stands at each place of the site's value."""
    value = sites_of(model, *args)[name]["value"]
    for number, arg in enumerate(args):
        if _may_hold(arg, value):
            first, second = (_probe(model, args, number, name, seed) for seed in range(2))
            if first is not None and second is not None and torch.equal(first, second):
                return number, first
    raise InputError(
        f"site '{name}' observes something computed from the arguments: data simulated from the model cannot be "
        f"handed back to the programs. Give what '{name}' observes as an argument of its own"
    )


def _may_hold(arg: Any, value: Any) -> bool:
    """Whether a site's value can be entries of an argument; others are not probed, labels out of range fail on CUDA."""
    tensors = isinstance(arg, Tensor) and isinstance(value, Tensor)
    return tensors and arg.dtype == value.dtype and arg.numel() >= value.numel() > 0


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
        site = sites_of(model, *args)[name]
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


def _repeated(arg: Any, rows: slice) -> Any:
    if not isinstance(arg, Tensor) or arg.dim() == 0:
        return arg
    return arg[torch.arange(rows.start, rows.stop, device=arg.device) % len(arg)]
