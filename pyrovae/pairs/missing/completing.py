r"""Data completed by a model: draws of the missing entries at given latents, and a first guess for guides.

.. math:: x_m \sim p(x_m \mid x_o, z), \qquad E[x_m \mid x_o, z], \qquad \operatorname{var}[x_m \mid x_o, z]

A guide of complete data does not read NaN. It is given the data completed by conditional means, round after round: of
draws of the prior first, then of its own (means of what Rezende et al. (2014) draw). It proposes latents and no more:
weights make up for what the guess is wrong by.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import out_of_memory
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.missing.observed import COMPLETE, MOMENTS, completing, may_have_missing, observed_entries
from pyrovae.pairs.simulation import Place, places_of, seen_by
from pyrovae.pairs.traces import Program, each_batched, plain_traces, sites_of

LOOKED_AT = 20  # rows, on which a guide is tried
PRIOR_RUNS, ROUNDS, RUNS = 20, 5, 4  # of the first guess; of better ones, and runs of the guide in each
NUM_GUESSES, LEAPS = 200, 2  # of each datum where modes are sought, and how often each is made better


class Filled(NamedTuple):
    """The first argument of n data, complete: K draws; mean and variance of each entry given the latents of each."""

    draws: Tensor  # (K, n, *shape)
    mean: Tensor  # NaN for an entry whose distribution has none, as one of classes
    variance: Tensor


class Completer:
    """Completes the first argument of some data at given latents; for use inside ``isolated``.

    Args:
        latents: of n data, whose observed entries alone count.
        model: program of p(x, z), as it is for complete data.

    Raises:
        InputError: naming the site, if what it observes is not the argument, or a part of it, as it is.
    """

    def __init__(self, latents: Latents, model: Program) -> None:
        self.latents, self.model = latents, completing(model)
        observed = latents.particles.example.observed
        self.places = _of_first_argument(self.model, latents.args, observed)
        whole = latents.particles.by("looped")
        dims = {name: observed[name]["value"].dim() - len(observed[name]["fn"].event_shape) for name in self.places}
        latent = {name: (observed[name]["infer"] or {}).get(COMPLETE) for name in self.places}
        self.held = {name: site for name, site in latent.items() if site is not None}  # by latents themselves
        self.layouts = {n: whole.from_program(place.layout, dims[n]) for n, place in self.places.items()}

    def at(self, values: Values) -> Filled:
        """At latents (K, n, ...), all at once."""
        found = self.latents.observed_by(self.model, values, _with_moments)
        found |= {name: _of_latent(values[site]) for name, site in self.held.items()}
        x = self.latents.args[0]
        num_draws = len(next(iter(values.values())))
        parts = torch.stack([x, x, torch.zeros_like(x)], -1).expand(num_draws, *x.shape, 3)
        flat = parts.reshape(num_draws, -1, 3)
        for name, layout in self.layouts.items():
            entries = layout.flatten()
            shown = (entries >= 0).nonzero().flatten()
            value = found[name].reshape(num_draws, -1, 3)[:, shown].to(flat.dtype)
            flat = flat.index_copy(1, entries[shown], value)
        whole = torch.where(x.isnan()[..., None], flat.reshape(parts.shape), parts)
        return Filled(*whole.unbind(-1))


def _with_moments(site: Any) -> Tensor:
    value = site["value"]
    mean, variance = (site["infer"] or {}).get(MOMENTS, (value, torch.zeros_like(value)))
    return torch.stack([value, mean, variance], -1)


def _of_latent(value: Tensor) -> Tensor:
    return torch.stack([value, value, torch.zeros_like(value)], -1)


def _of_first_argument(model: Program, args: Sequence[Any], observed: Any) -> dict[str, Place]:
    names = [name for name, site in observed.items() if may_have_missing(site)]
    if not names:
        raise InputError(
            "no site of the model observes real numbers, and what is missing is NaN among such: give the data as real "
            "numbers"
        )
    found = {name: place for name, place in places_of(model, args, names).items() if place.argument == 0}
    left = args[0].isnan().flatten()
    for place in found.values():
        left[place.entries] = False
    if left.any():
        seen_by(model, args, names)  # which names the site that observes something else
        raise InputError("some entries of the first argument are missing that no site of the model observes")
    return found


# ----------------------------------------------------------------------------- guides that do not read what is missing


def reads_missing(guide: Program, args: Sequence[Any]) -> bool:
    """Whether a guide gives finite draws for data with missing entries; it is tried on some rows."""
    rows = each_batched(args, lambda arg: arg[:LOOKED_AT])
    try:
        found = sites_of(guide, *rows, role="guide")
    except (ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        return False
    return all(bool(site["value"].isfinite().all()) for site in found.values())


def beside_filled(model: Program, guide: Program) -> tuple[Program, Program]:
    """The pair of programs for data with one more argument, the first in the guide's eyes: the same data, complete."""

    def of_observed(*args: Any) -> Any:
        return model(*args[:-1])

    def of_filled(*args: Any) -> Any:
        return guide(args[-1], *args[1:-1])

    return of_observed, of_filled


def filled(model: Program, guide: Program, args: Sequence[Any]) -> Tensor:
    """The first argument with a guess in place of what is missing, (n, *shape); for use inside ``isolated``.

    Args:
        model: program of p(x, z), as it is for complete data.
        guide: program of q(z|x) of complete data.
        args: of n data, NaN where missing.
    """
    drawing, read = reader(model, args)
    return guessed(drawing, guide, args, read)


def reader(model: Program, args: Sequence[Any]) -> tuple[Program, Callable[[Any], Tensor]]:
    """The model, which completes what it observes; and what reads whole data, (n, *shape), off sites of its runs."""
    drawing = completing(model)
    places = _of_first_argument(drawing, args, sites_of(observed_entries(model), *args, role="model"))
    return drawing, lambda sites: _written(args[0], sites, places)


def guessed(drawing: Program, guide: Program, args: Sequence[Any], read: Callable[[Any], Tensor]) -> Tensor:
    """A guess of whole data for a guide that reads no other, (n, *shape); for use inside ``isolated``.

    Args:
        drawing: the model, which completes what it observes.
        guide: program of q(z|x) of whole data.
        args: of n data, as the model takes them.
        read: sites of a run of the model -> whole data.
    """

    def guess(run: Callable[[], Any], num_runs: int) -> Tensor:
        return torch.stack([read(run()) for _ in range(num_runs)]).mean(0)

    found = guess(lambda: sites_of(drawing, *args, role="model"), PRIOR_RUNS)
    for _ in range(ROUNDS):
        both = beside_filled(drawing, guide)
        found = guess(lambda: plain_traces(*both, [*args, found]).joint, RUNS)  # noqa: B023
    return found


def of_many_guesses(
    latents: Latents, drawing: Program, guide: Program, args: Sequence[Any], read: Callable[[Any], Tensor]
) -> Values:
    r"""Latents that a guide draws of many guesses of whole data, site -> (S, n, ...) on the CPU.

    Where what is observed leaves several answers open, one guess is one of them at best. So each is begun anew,

    .. math:: z_0 \sim p(z), \qquad z_{r+1} \sim q(z \mid E[x \mid x_o, z_r])

    Args:
        latents: of the pair for what is observed.
        drawing: the model, which completes what it observes.
        guide: program of q(z|x) of whole data.
        args: of n data, as the model takes them.
        read: sites of a run of the model -> whole data.
    """
    both, found = beside_filled(drawing, guide), list[Values]()
    for _ in range(NUM_GUESSES):
        guess = read(sites_of(drawing, *args, role="model"))
        for _ in range(LEAPS):
            sites = plain_traces(*both, [*args, guess]).joint
            found.append(latents.lifted({name: sites[name]["value"] for name in latents.sites}))
            guess = read(sites)
    return {name: torch.cat([one[name] for one in found]).cpu() for name in latents.sites}


def _written(x: Tensor, sites: Any, places: dict[str, Place]) -> Tensor:
    flat = x.flatten()
    for name, place in places.items():
        value = sites[name]["value"]
        mean, _ = (sites[name]["infer"] or {}).get(MOMENTS, (value, None))
        best = torch.where(mean.isfinite(), mean, value).expand(place.layout.shape).flatten()
        flat = flat.index_copy(0, place.entries, best.index_select(0, place.shown).to(flat.dtype))
    return torch.where(x.isnan(), flat.reshape(x.shape), x).nan_to_num(0.0)
