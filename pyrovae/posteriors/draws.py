"""Draws from any pair: x from the model, z from the guide, and x again from both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one, nearest
from pyrovae.base.forms import datatree
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.memory import explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.base.records import Record
from pyrovae.data.split import as_split
from pyrovae.pairs.checks.parameters import check_parameters
from pyrovae.pairs.checks.sites import check_own_rows
from pyrovae.pairs.context import isolated
from pyrovae.pairs.handlers import scorable, unconditioned
from pyrovae.pairs.structure import Structure, describe
from pyrovae.pairs.terms import read_terms, to_rows
from pyrovae.pairs.traces import Program, TracePair, plain_traces, sites_of


@dataclass(frozen=True, eq=False, repr=False)
class Draws(Record):
    """Values drawn at sites, and the means of the distributions they were drawn from (where they have one).

    Draws of a guide know their log densities too, site -> (S, N) nats: of the data, of the latents under the prior, and
    of what the guide drew; there are none where the pair has no weights of single data.
    """

    values: dict[str, Tensor]
    means: dict[str, Tensor]
    group: dict[str, str] = field(default_factory=dict)  # site -> where ArviZ's schema puts it
    log_likelihood: dict[str, Tensor] = field(default_factory=dict)
    log_prior: dict[str, Tensor] = field(default_factory=dict)
    log_guide: dict[str, Tensor] = field(default_factory=dict)

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

    def groups(self) -> datatree.Groups:
        """The values, and where there are log densities log_p, log_q and log_weight of each draw as sample_stats."""
        found = {group: self._variables(group) for group in dict.fromkeys(self.group.values())}
        if not self.log_likelihood:
            return found
        terms = [torch.stack([*one.values()]).sum(0) for one in (self.log_likelihood, self.log_prior, self.log_guide)]
        log_p, log_q = terms[0] + terms[1], terms[2]
        stats = {"log_p": log_p, "log_q": log_q, "log_weight": log_p - log_q}
        of_sites: dict[str, dict[str, Tensor]]
        of_sites = {"log_likelihood": self.log_likelihood, "log_prior": self.log_prior, "sample_stats": stats}
        return found | {
            group: datatree.draws(datatree.one_chain(values), "datum") for group, values in of_sites.items()
        }

    def _variables(self, group: str) -> dict[str, datatree.Variable]:
        values = {name: value for name, value in self.values.items() if self.group[name] == group}
        if group == "observed_data":
            return datatree.data(values, "datum")
        return datatree.draws(datatree.one_chain(values), *["datum"] * (group == "posterior"))

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
        groups = {name: "prior_predictive" if _was_observed(site) else "prior" for name, site in drawn.items()}
        return replace(_draws(drawn), group=groups)


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
        ``values`` of every latent site, (S, N, ...), ``means`` of q, (S, N, ...), and the log densities of each draw,
        by which ``arviz_stats.loo(draws.to_datatree())`` works.
    """
    split = as_split(tuple(data) if len(data) != 1 else data[0])
    draws, structure = list[Draws](), None
    for run in _runs(model, guide, (split,), num_draws, seed, scored=True):
        structure = structure if draws else _structure(run, len(split))
        draws.append(_of_guide(run, structure, len(split)))
    names = [one.name for one in fields(Draws) if one.name != "group"]
    columns = {name: _stacked([getattr(one, name) for one in draws]) for name in names}
    return Draws(**columns, group=dict.fromkeys(columns["values"], "posterior"))


def _structure(run: TracePair, num_data: int) -> Structure | None:
    """What a run shows; None of a pair where no datum has a weight of its own."""
    try:
        return describe(run, num_data)
    except InputError:
        return None


def _of_guide(run: TracePair, structure: Structure | None, num_data: int) -> Draws:
    """What a guide drew for N data, and its log densities where each datum has its own."""
    drawn = _draws(run.drawn)
    if structure is None:
        return drawn
    terms = read_terms(run, lambda log_prob: to_rows(log_prob, structure.dim).expand(num_data).double().cpu())
    return replace(drawn, log_likelihood=terms.likelihood, log_prior=terms.prior, log_guide=terms.guide)


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
            one.values,
            {name: mean / num_draws + total.means.get(name, 0) for name, mean in one.means.items()},
            dict.fromkeys(one.values, "observed_data"),
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
    found = _draws({name: site for name, site in drawn.items() if _was_observed(site)})
    return replace(found, group=dict.fromkeys(found.values, "predictions"))


def _runs(
    model: Program, guide: Program, data: Sequence[Any], num_draws: int, seed: int, *, scored: bool = False
) -> Iterator[TracePair]:
    """One run after the other, none kept; of a model whose observations can be scored, where they are to be."""
    check_at_least_one(num_draws=num_draws)
    split = as_split(tuple(data) if len(data) != 1 else data[0])
    with isolated(model, guide) as (model, guide, device):
        seed_everything("drawing", seed)
        args = split.to(device).batch(slice(0, len(split)))
        model = scorable(model) if scored else model
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
