"""Draws from any pair: x from the model, z from the guide, and x again from both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one, nearest
from pyrovae.base.memory import explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.base.records import Record
from pyrovae.base.tables import TextTable
from pyrovae.data.split import as_split
from pyrovae.pairs.checks.parameters import check_parameters
from pyrovae.pairs.checks.sites import check_own_rows
from pyrovae.pairs.context import isolated
from pyrovae.pairs.handlers import unconditioned
from pyrovae.pairs.traces import Program, TracePair, plain_traces, sites_of


@dataclass(frozen=True, eq=False, repr=False)
class Draws(Record):
    """Values drawn at sites, and the means of the distributions they were drawn from (where they have one)."""

    values: dict[str, Tensor]
    means: dict[str, Tensor]

    def __repr__(self) -> str:
        return f"Draws({', '.join(f'{name} {tuple(value.shape)}' for name, value in self.values.items())})"

    def row_names(self) -> list[str]:
        return list(self.values)

    def table(self) -> dict[str, Tensor]:
        """Mean and standard deviation of all values of a site, missing ones (NaN) apart: one row for each site."""
        values = [value.double() for value in self.values.values()]
        means = [value.nanmean() for value in values]
        spreads = [(value - mean).square().nanmean().sqrt() for value, mean in zip(values, means, strict=True)]
        return {"mean": torch.stack(means), "sd": torch.stack(spreads)}

    def numbers(self) -> dict[str, Any]:
        """The table, site by site."""
        return {"sites": self.named_rows()}

    def lines(self) -> list[str | TextTable]:
        width = max(4, *map(len, self.values)) + 2
        columns = [("site", f"<{width}", ""), ("shape", "<20", ""), ("mean", ">12", ".4g"), ("sd", ">12", ".4g")]
        shapes = [str(tuple(value.shape)) for value in self.values.values()]
        rows = zip(shapes, self.named_rows().items(), strict=True)
        return [TextTable(columns, [(name, shape, *row.values()) for shape, (name, row) in rows])]


@checked
def sample(model: Program, *template: Any, num_samples: int, seed: int = 0) -> Draws:
    """Draws data from the model: z ~ p(z), x ~ p(x|z).

    Args:
        model: program of p(x, z).
        template: arguments of the shape of data (a few rows do); labels or covariates among them are conditioned
            on, row by row, and repeated as often as needed.
        num_samples: S.
        seed: of the draws.

    Returns:
        ``values`` and ``means`` of every site, each (S, ...); ``draws.values["x"]`` is data, ``draws.means["x"]``
        the mean of p(x|z).
    """
    check_at_least_one(num_samples=num_samples)
    args = as_split(template if len(template) != 1 else template[0]).tensors
    memory = explain_out_of_memory(f"{num_samples} samples at once: lower num_samples")
    with isolated(model, model) as (model, _, device), memory:
        seed_everything("drawing", seed)
        drawn = sites_of(unconditioned(model), *_repeated(args, num_samples, device), role="model")
        check_parameters("model", drawn)
        return _draws(drawn)


@checked
def posterior(model: Program, guide: Program, *data: Any, num_draws: int = 1, seed: int = 0) -> Draws:
    """Draws latents from the guide: z ~ q(z|x), S for each of N data.

    Args:
        model: program of p(x, z); its parameters are shared with the guide's.
        guide: program of q(z|x).
        data: a Split, or the tensors that the programs take, (N, ...).
        num_draws: S.
        seed: of the draws.

    Returns:
        ``values`` of every latent site, (S, N, ...), and ``means`` of q, (S, N, ...).
    """
    draws = [_draws(run.drawn) for run in _runs(model, guide, data, num_draws, seed)]
    return Draws(_stacked([one.values for one in draws]), _stacked([one.means for one in draws]))


@checked
def reconstruct(model: Program, guide: Program, *data: Any, num_draws: int = 16, seed: int = 0) -> Draws:
    """Data as the pair sees them: E over z ~ q(z|x) of the mean of p(x|z), from S draws.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, or the tensors that the programs take, (N, ...).
        num_draws: S.
        seed: of the draws.

    Returns:
        At every observed site: ``values``, the data themselves, and ``means``, both (N, ...).
    """
    total = Draws({}, {})
    for run in _runs(model, guide, data, num_draws, seed):
        check_parameters("model", run.observed)
        one = _draws(run.observed)
        total = Draws(
            one.values, {name: mean / num_draws + total.means.get(name, 0) for name, mean in one.means.items()}
        )
    return total


@checked
def decode(model: Program, template: Any, values: Mapping[str, Tensor], *, seed: int = 0) -> Draws:
    """Data that the model makes of given latents: x ~ p(x|z) at z as given.

    Args:
        model: program of p(x, z).
        template: a Split, a tensor or a tuple of tensors of the shape of data; labels or covariates among them
            are conditioned on, row by row, and repeated as often as needed.
        values: latent site -> its values, (S, ...); sites left out are drawn from the prior. With no values at
            all, S is the number of rows of the template.
        seed: of the draws.

    Returns:
        ``values`` and ``means`` of every observed site, each (S, ...).

    Raises:
        InputError: naming the site, if a value is for no latent site of the model or not of its shape.
    """
    args = as_split(template).tensors
    num_samples = max((len(value) for value in values.values()), default=len(args[0]))
    with isolated(model, model) as (model, _, device):
        seed_everything("drawing", seed)
        args, given = _repeated(args, num_samples, device), {n: value.to(device) for n, value in values.items()}
        free = unconditioned(model)
        _check_given(given, sites_of(free, *args))
        drawn = sites_of(poutine.condition(free, data=given), *args)
    return _draws({name: site for name, site in drawn.items() if _was_observed(site)})


def _runs(model: Program, guide: Program, data: Sequence[Any], num_draws: int, seed: int) -> Iterator[TracePair]:
    """One run after the other, none kept."""
    check_at_least_one(num_draws=num_draws)
    split = as_split(tuple(data) if len(data) != 1 else data[0])
    with isolated(model, guide) as (model, guide, device):
        seed_everything("drawing", seed)
        args = split.to(device).batch(slice(0, len(split)))
        for _ in range(num_draws):
            run = plain_traces(model, guide, args)
            check_own_rows(run, len(split))
            check_parameters("guide", run.drawn)
            yield run


def _check_given(given: Mapping[str, Tensor], named: dict[str, dict]) -> None:
    latents = [name for name, site in named.items() if not _was_observed(site)]
    for name, value in given.items():
        if name not in latents:
            hint = nearest(name, latents) or " give values for these only"
            raise InputError(f"site '{name}' is no latent site of the model, whose latent sites are {latents};{hint}")
        expected = named[name]["value"].shape
        if value.shape != expected:
            raise InputError(f"site '{name}': expected values of shape {tuple(expected)}, got {tuple(value.shape)}")


def _was_observed(site: dict) -> bool:
    return site["infer"].get("was_observed", False)


def _draws(named: dict[str, dict]) -> Draws:
    means = {name: mean_of(site) for name, site in named.items()}
    return Draws(
        {name: site["value"].cpu() for name, site in named.items()},
        {name: mean.cpu() for name, mean in means.items() if mean is not None},
    )


def mean_of(site: dict) -> Tensor | None:
    """Mean of a site's distribution, of the shape of its value; None for one that has no mean (classes, factors)."""
    try:
        mean = site["fn"].mean
    except (NotImplementedError, AttributeError):
        return None
    return None if mean.isnan().all() else mean.expand(site["value"].shape)


def _stacked(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def _repeated(args: Sequence[Tensor], num_samples: int, device: torch.device) -> tuple[Tensor, ...]:
    """The rows over and over, (num_samples, ...) each."""
    return tuple(rows.to(device)[torch.arange(num_samples, device=device) % len(rows)] for rows in args)
