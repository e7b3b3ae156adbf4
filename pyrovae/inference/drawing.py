"""Draws from any pair: x from the model, z from the guide, and x again from both."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.data import as_split
from pyrovae.errors import InputError
from pyrovae.inference.pairs import (
    Program,
    evaluation_mode,
    home_device,
    modules_of,
    own_scope,
    plain_traces,
    quiet_numerics,
    sites,
)
from pyrovae.inference.report import kept_rng, seed_everything


class Draws(NamedTuple):
    """Values drawn at sites, and the means of the distributions they were drawn from (where they have one)."""

    values: dict[str, Tensor]
    means: dict[str, Tensor]


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
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")
    args = as_split(template if len(template) != 1 else template[0]).tensors
    args = tuple(_repeated(arg, num_samples) for arg in args)
    with _undisturbed(model, model, seed) as (model, _, device):
        trace = poutine.trace(poutine.uncondition(model)).get_trace(*(arg.to(device) for arg in args))
    return _draws(sites(trace))


def posterior(model: Program, guide: Program, *data: Any, num_samples: int = 1, seed: int = 0) -> Draws:
    """Draws latents from the guide: z ~ q(z|x), S for each of N data.

    Args:
        model: program of p(x, z); its parameters are shared with the guide's.
        guide: program of q(z|x).
        data: a Split, or the tensors that the programs take, (N, ...).
        num_samples: S.
        seed: of the draws.

    Returns:
        ``values`` of every latent site, (S, N, ...), and ``means`` of q, (S, N, ...).
    """
    runs = _runs(model, guide, data, num_samples, seed)
    return _stacked([_draws(sites(guide_trace)) for _, guide_trace in runs])


def reconstruct(model: Program, guide: Program, *data: Any, num_samples: int = 16, seed: int = 0) -> Draws:
    """Data as the pair sees them: E over z ~ q(z|x) of the mean of p(x|z), from S draws.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        data: a Split, or the tensors that the programs take, (N, ...).
        num_samples: S.
        seed: of the draws.

    Returns:
        At every observed site: ``values``, the data themselves, and ``means``, both (N, ...).
    """
    runs = _runs(model, guide, data, num_samples, seed)
    observed = [_draws({n: s for n, s in sites(trace).items() if s["is_observed"]}) for trace, _ in runs]
    draws = _stacked(observed)
    return Draws(
        {name: value[0] for name, value in draws.values.items()},
        {name: mean.mean(0) for name, mean in draws.means.items()},
    )


@contextmanager
def _undisturbed(model: Program, guide: Program, seed: int) -> Iterator[tuple[Program, Program, torch.device]]:
    """Own scope, eval mode, no gradients and a seed of its own; yields (model, guide, device)."""
    with own_scope(model, guide) as (model, guide, _), quiet_numerics(), kept_rng():
        with evaluation_mode(modules_of(model, guide)):
            seed_everything(seed)
            yield model, guide, home_device(model, guide)


def _runs(
    model: Program, guide: Program, data: Sequence[Any], num_samples: int, seed: int
) -> list[tuple[Trace, Trace]]:
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")
    split = as_split(tuple(data) if len(data) != 1 else data[0])
    with _undisturbed(model, guide, seed) as (model, guide, device):
        args = split.to(device).batch(slice(0, len(split)))
        return [plain_traces(model, guide, args) for _ in range(num_samples)]


def _draws(named: dict[str, dict]) -> Draws:
    means = {name: _mean(site) for name, site in named.items()}
    return Draws(
        {name: site["value"].cpu() for name, site in named.items()},
        {name: mean.cpu() for name, mean in means.items() if mean is not None},
    )


def _mean(site: dict) -> Tensor | None:
    """Mean of a site's distribution, of the shape of its value; None for one that has no mean (classes, factors)."""
    try:
        mean = site["fn"].mean
    except (NotImplementedError, AttributeError):
        return None
    return None if mean.isnan().all() else mean.expand(site["value"].shape)


def _stacked(draws: list[Draws]) -> Draws:
    def stack(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    return Draws(stack([d.values for d in draws]), stack([d.means for d in draws]))


def _repeated(rows: Tensor, num_samples: int) -> Tensor:
    """The rows over and over, (num_samples, ...)."""
    return rows[torch.arange(num_samples) % len(rows)]
