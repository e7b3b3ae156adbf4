"""Data simulated from a model with the latents that made them: (z, x) ~ p(z) p(x|z), x in the place of the observed.

Whatever is asked of the truth behind data (calibration, bounds from above, training on it) starts here. Programs take
their data as arguments, so the drawn x is written back into them: probes of 0 and 1 show which entry is seen where.
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
from pyrovae.pairs.checks.parameters import check_parameters
from pyrovae.pairs.checks.runs import CHANGES
from pyrovae.pairs.handlers import scorable, unconditioned
from pyrovae.pairs.supports import cut_off, scored
from pyrovae.pairs.terms import agree
from pyrovae.pairs.traces import GIVEN, Program, each_batched, site_log_prob, sites_of

_COMPUTED = (
    "site '{name}' observes something computed from the arguments: data simulated from the model cannot be handed back "
    "to the programs. Give what '{name}' observes as an argument of its own"
)


_MOVES = (
    "site '{name}': which entries of the arguments it observes depends on what is in them, so data cannot be simulated "
    "in each step of a fit. Let '{name}' observe an argument, or a part of one at the same place for every datum"
)


class Place(NamedTuple):
    """Where a site's value stands in the arguments: entry ``entries[i]`` of one is entry ``shown[i]`` of the value."""

    argument: int
    entries: Tensor
    shown: Tensor
    layout: Tensor  # the same, in the shape of the value: -1 for what is not shown


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
    return _simulated_and_places(model, args)[0]


class Simulator:
    """Simulates again and again from a model, given other covariates each time, and looks at no value of a tensor.

    A graph can hold a draw: where the observed stands was found once, as the model was shown to be one that
    :func:`simulate` takes. The arguments of a draw are as many rows as those of the look.

    Raises:
        InputError: as :func:`simulate`; and naming the site, if what it observes of the arguments depends on them.
    """

    def __init__(self, model: Program, args: Sequence[Any]) -> None:
        self.model = model
        with pyro.validation_enabled(False):
            _, self.places = _simulated_and_places(model, list(args))
            turned = each_batched(args, lambda arg: arg.roll(1, 0))
            for name, place in seen_by(model, turned, list(self.places)).items():
                if place.argument != self.places[name].argument or not torch.equal(
                    place.layout, self.places[name].layout
                ):
                    raise InputError(_MOVES.format(name=name))

    def draw(self, args: Sequence[Any]) -> Simulated:
        """Latents and data; without gradients."""
        with torch.no_grad():
            found = sites_of(unconditioned(self.model), *args, role="model")
            return _put(args, found, self.places)


def _simulated_and_places(model: Program, args: Sequence[Any]) -> tuple[Simulated, dict[str, Place]]:
    found = sites_of(unconditioned(model), *args, role="model")
    check_parameters("model", found)
    observed = [name for name, site in found.items() if site["infer"].get("was_observed")]
    for name in observed:
        if isinstance(found[name]["fn"], dist.Unit):
            raise InputError(f"site '{name}' is a factor: a model with factors cannot be simulated from")
    with preserve_rng_state(), pyro.validation_enabled(False):  # missing entries and numbers are no data to validate
        places = seen_by(model, args, observed)
        simulated = _put(args, found, places)
        for name, place in places.items():
            _check_shown(name, simulated.args[place.argument], place.layout, found[name])
        _check_data_independence(scorable(model), simulated.args, found, simulated.latents)
    return simulated, places


def _put(args: Sequence[Any], found: dict[str, Any], places: dict[str, Place]) -> Simulated:
    """The arguments with draws of the observed sites at the entries that these show; what is missing stays missing."""
    args = list(args)
    for name, (number, entries, shown, layout) in places.items():
        value, arg = _as_shown(name, found[name]["value"], layout.shape).flatten(), args[number]
        written = arg.flatten().index_copy(0, entries, value.index_select(0, shown).to(arg.dtype))
        args[number] = torch.where(arg.isnan(), arg, written.reshape(arg.shape))
    return Simulated(tuple(args), {name: site["value"] for name, site in found.items() if name not in places})


def _as_shown(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    try:
        return value.expand(shape)
    except RuntimeError as error:
        raise InputError(
            f"site '{name}': the model draws values of shape {tuple(value.shape)}, the data there are of shape "
            f"{tuple(shape)}: give data as the model draws them, the first dimension the datum"
        ) from error


def _check_shown(name: str, arg: Tensor, index: Tensor, site: Any) -> None:
    """Demands that a site will see in an argument what was drawn there, wherever that counts."""
    value = site["value"].expand(index.shape)
    kept = arg.flatten()[index.clamp(min=0)].to(value)
    if bool((scored(site, value, 0) & ((kept != value) & ~kept.isnan() | (index < 0))).any()):
        raise InputError(_COMPUTED.format(name=name))


def _check_data_independence(
    model: Program, args: Sequence[Any], found: dict[str, Any], latents: dict[str, Tensor]
) -> None:
    """Demands that on the simulated data each site has the distribution that it was drawn from."""
    again, twice = (sites_of(poutine.condition(model, data=latents), *args) for _ in range(2))
    for name, site in found.items():
        if name in again and name not in latents and not _same_value(site, again[name]):
            raise InputError(_COMPUTED.format(name=name))
        if name not in again or not _same_distribution(site, again[name]):
            if name in again and name in twice and not _same_distribution(again[name], twice[name]):
                raise InputError(CHANGES.format(name=name, program="model"))
            raise InputError(
                f"site '{name}': its distribution depends on the data themselves, so data simulated in one run are not "
                f"the model's; let '{name}' read latents, covariates and what pyro.sample returns for other sites"
            )


def _same_value(site: Any, other: Any) -> bool:
    """Whether a site observes what was drawn there, wherever it counts in both runs."""
    counts = scored(site, site["value"], 0) & scored(other, site["value"], 0)
    return torch.equal(torch.where(counts, site["value"], 0), torch.where(counts, other["value"].to(site["value"]), 0))


def _same_distribution(site: Any, other: Any) -> bool:
    """Whether two runs of a site give its value in the first one density, where the same entries count in both."""
    value, event_dim = site["value"], len(site["fn"].event_shape)
    differ = scored(site, value, 0) != scored(other, value, 0)
    alike = ~differ.reshape(*differ.shape[: differ.dim() - event_dim], -1).any(-1)
    whole = ({**one, "fn": cut_off(one["fn"]), "value": value} for one in (site, other))
    first, second = (torch.where(alike, site_log_prob(one), 0.0) for one in whole)
    return agree(first, second)


def seen_by(model: Program, args: Sequence[Any], names: Sequence[str]) -> dict[str, Place]:
    """For each observed site: which argument it shows, and where.

    Raises:
        InputError: naming the site, if it shows none as it is.
    """
    found = places_of(model, args, names)
    for name in names:
        if name not in found:
            raise InputError(_COMPUTED.format(name=name))
    return found


def places_of(model: Program, args: Sequence[Any], names: Sequence[str]) -> dict[str, Place]:
    """The same of those sites that show an argument as it is."""
    found: dict[str, Place] = {}
    values = _values_at(model, args, names).values()
    numbers = [number for number, arg in enumerate(args) if isinstance(arg, Tensor)]
    for number in sorted(numbers, key=lambda number: not any(_is_like(args[number], value) for value in values)):
        if len(found) < len(names):
            shown = _entries_of(model, args, number, [name for name in names if name not in found])
            found |= {name: _place(number, index) for name, index in shown.items()}
    return found


def _place(number: int, index: Tensor) -> Place:
    shown = (index.flatten() >= 0).nonzero().flatten()
    return Place(number, index.flatten()[shown], shown, index)


def _is_like(arg: Tensor, value: Tensor) -> bool:
    """Whether a value is likely from an argument; others come last, as labels out of range are fatal on CUDA."""
    return arg.dtype == value.dtype and arg.numel() >= value.numel()


def _entries_of(model: Program, args: Sequence[Any], number: int, names: Sequence[str]) -> dict[str, Tensor]:
    """The entries of one argument that sites show, spelled in binary: values of 0 and 1 are at home in every dtype."""
    arg = args[number]
    entries = torch.arange(arg.numel(), device=arg.device).reshape(arg.shape)

    def shown(values: Tensor) -> dict[str, Tensor]:
        return _values_at(model, [*args[:number], values.to(arg.dtype), *args[number + 1 :]], names)

    low, high = shown(torch.zeros_like(entries)), shown(torch.ones_like(entries))
    places = {name: (low[name] == 0) & (high[name] == 1) for name in low if name in high}
    places = {name: place for name, place in places.items() if place.any()}
    index = {name: torch.zeros(place.shape, dtype=torch.long, device=arg.device) for name, place in places.items()}
    for bit in range((arg.numel() - 1).bit_length() if places else 0):
        digits = shown(entries >> bit & 1)
        if places.keys() - digits.keys():
            return {}
        index = {name: whole + (digits[name] == 1).long() * 2**bit for name, whole in index.items()}
    once = {name: whole[places[name]].unique().numel() == places[name].sum() for name, whole in index.items()}
    return {name: torch.where(places[name], whole, -1) for name, whole in index.items() if once[name]}


def _values_at(model: Program, args: Sequence[Any], names: Sequence[str]) -> dict[str, Tensor]:
    try:
        found = sites_of(model, *args)
    except (RuntimeError, ValueError, IndexError, KeyError):
        return {}  # 0 and 1 cannot stand in this argument: then it is no observation
    seen = {name: found[name] for name in names if name in found and found[name]["is_observed"]}
    values = {name: (site["infer"] or {}).get(GIVEN, site["value"]) for name, site in seen.items()}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _repeated(arg: Any, rows: slice) -> Any:
    if not isinstance(arg, Tensor) or arg.dim() == 0:
        return arg
    return arg[torch.arange(rows.start, rows.stop, device=arg.device) % len(arg)]
