"""Where the two programs draw: what the prior can the guide must too, and neither on the edge of a support."""

import math
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.base.errors import InputError
from pyrovae.pairs.checks.weights import is_function
from pyrovae.pairs.handlers import Placed
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.supports import (
    bounds,
    innermost,
    is_narrowed,
    latent_support,
    layers,
    possible,
    scored,
    support_text,
    whole_line,
)
from pyrovae.pairs.terms import to_rows
from pyrovae.pairs.traces import Program, TracePair, site_log_prob, sites_of

NUM_DRAWS = 1000  # of each site, over all data
UNDERFLOW = 0.01  # of the prior's draws may lie so far out in the guide's support that its density there is zero
ON_EDGE = 1e-3  # of the draws may lie on the edge of their support


def check_guide_covers(model: Program, args: Sequence[Any], run: TracePair, structure: Structure) -> None:
    """Looks whether draws of the prior are such as the guide can draw, where the likelihood allows them.

    Raises:
        InputError: naming the site, both families, and how many data have draws of the prior that the guide misses.
    """
    for name, site in run.latent.items():
        ours, theirs = run.drawn[name], site
        if is_function(ours) or (whole_line(ours["fn"]) and whole_line(theirs["fn"])):
            continue
        draws = theirs["fn"].sample((-(-NUM_DRAWS // _num_data(theirs, structure)),))
        missed = ~_can_draw(ours, draws) & ~_near_edge(theirs, draws)
        if missed.any():
            by_datum = _of_data(missed, structure)
            found = draws.gather(0, _first(missed, draws))[0]
            if _matters(model, args, {**_values(run), name: found}, by_datum, structure):
                raise InputError(_missed(name, ours, theirs, missed, by_datum))


def check_guide_inside(run: TracePair, structure: Structure) -> None:
    """Raises InputError, naming the site, if the guide draws what the prior cannot: its ELBO is minus infinity."""
    for name, site in run.latent.items():
        ours = run.drawn[name]
        supports = [str(latent_support(fn)) for fn in (ours["fn"], site["fn"])]
        if is_function(ours) or (supports[0] == supports[1] and not is_narrowed(layers(site["fn"])[-1])):
            continue
        draws = ours["fn"].sample((-(-NUM_DRAWS // _num_data(site, structure)),))
        outside = possible({**site, "value": draws})
        if outside is not None and not outside.all():
            family, prior = (type(layers(found["fn"])[-1]).__name__ for found in (ours, site))
            raise InputError(
                f"site '{name}': {(~outside).double().mean():.1%} of the draws of the guide ({family}) are outside the "
                f"support of the prior ({prior}, {support_text(layers(site['fn'])[-1])}), where log p(z) is minus "
                f"infinity, and so the ELBO. Give '{name}' the prior's support in the guide (evaluate weighs such "
                "draws by zero)"
            )


def check_off_edges(run: TracePair, structure: Structure) -> None:
    """Raises InputError, naming the site, if draws of the guide pile up where their number format ends."""
    for name, site in run.drawn.items():
        support = latent_support(site["fn"])
        if is_function(site) or not _has_edges(support):
            continue
        draws = site["fn"].sample((-(-NUM_DRAWS // _num_data(site, structure)),))
        fraction = float((_on_edge(support, draws) & scored(site, draws, 0)).double().mean())
        if fraction > ON_EDGE:
            family, dtype = type(layers(site["fn"])[-1]).__name__, str(draws.dtype).removeprefix("torch.")
            raise InputError(
                f"site '{name}': {fraction:.1%} of the guide's draws ({family}) lie on the edge of their support in "
                f"{dtype}, where no density is theirs to be weighed by. Draw '{name}' less near the edge or on the "
                "unconstrained scale; float64 reaches nearer to it"
            )


# --------------------------------------------------------------------------------------------------------- draws


def _near_edge(site: Any, draws: Tensor) -> Tensor:
    """Where draws (n, *batch, *event) of a site lie so near the edge of its support that rounding hides a density."""
    support, batch_dim = latent_support(site["fn"]), draws.dim() - len(site["fn"].event_shape)
    if not _has_edges(support):
        return torch.zeros(draws.shape[:batch_dim], dtype=torch.bool, device=draws.device)
    near = _on_edge(support, draws, torch.finfo(draws.dtype).eps ** 0.5)
    return near.flatten(batch_dim).any(-1) if near.dim() > batch_dim else near


def _can_draw(site: Any, draws: Tensor) -> Tensor:
    """Where a site gives values (n, *batch, *event) a density: (n, *batch); in its support, few may lie too far out."""
    event_dim = len(site["fn"].event_shape)
    inside = possible({**site, "value": draws})
    if inside is None:
        inside = torch.ones(draws.shape[: draws.dim() - event_dim], dtype=torch.bool, device=draws.device)
    harmless = torch.where(inside.reshape(inside.shape + (1,) * event_dim), draws, site["value"].to(draws))
    with pyro.validation_enabled(False):
        try:
            scored_there = site_log_prob({**site, "value": harmless}) > -math.inf  # false for a NaN
            return inside & (scored_there | ((~scored_there & inside).double().mean() < UNDERFLOW))
        except (NotImplementedError, KeyError, ValueError):  # a flow without an inverse
            return inside


def _first(missed: Tensor, draws: Tensor) -> Tensor:
    """Index (1, *batch, *event) of a draw that is missed, where one is."""
    index = missed.double().argmax(0, keepdim=True)
    return index.reshape(index.shape + (1,) * (draws.dim() - index.dim())).expand(1, *draws.shape[1:])


def _matters(
    model: Program, args: Sequence[Any], values: dict[str, Tensor], rows: Tensor, structure: Structure
) -> bool:
    """Whether the likelihood allows these latents for one of some rows."""
    with pyro.validation_enabled(False):
        found = sites_of(Placed(values)(model), *args)
        observed = [site for site in found.values() if site["is_observed"]]
        log_likelihood = torch.stack([to_rows(site_log_prob(site), structure.dim) for site in observed]).sum(0)
    return bool((log_likelihood[rows] != -math.inf).any())


def _missed(name: str, ours: Any, theirs: Any, missed: Tensor, by_datum: Tensor) -> str:
    guide, prior = (layers(site["fn"])[-1] for site in (ours, theirs))
    return (
        f"site '{name}': the guide ({type(guide).__name__}, {support_text(guide)}) cannot draw all that the prior "
        f"({type(prior).__name__}, {support_text(prior)}) can: {missed.double().mean():.0%} of the prior's draws, for "
        f"{int(by_datum.sum())} of {len(by_datum)} data, would have an infinite weight, and importance sampling misses "
        f"them without a sign. Give '{name}' the prior's support in the guide"
    )


def _values(run: TracePair) -> dict[str, Tensor]:
    return {name: site["value"] for name, site in run.latent.items()}


def _num_data(site: Any, structure: Structure) -> int:
    return int(site["fn"].batch_shape[structure.dim])


def _of_data(table: Tensor, structure: Structure) -> Tensor:
    """Whether anything of a datum is so: (n, *batch) -> (N,)."""
    return table.movedim(structure.dim, 0).flatten(1).any(1)


# ------------------------------------------------------------------------------------------------------ supports


def _has_edges(support: Any) -> bool:
    base = innermost(support)
    return isinstance(base, constraints._Simplex) or (not base.is_discrete and bounds(base) != (None, None))


def _on_edge(support: Any, draws: Tensor, near: float | None = None) -> Tensor:
    """Where draws are the last numbers before the end of their support, or within ``near`` of it."""
    base, numbers = innermost(support), torch.finfo(draws.dtype)
    below, above = (numbers.tiny, numbers.eps) if near is None else (near, near)
    low, high = (0.0, 1.0) if isinstance(base, constraints._Simplex) else bounds(base)
    edge = torch.zeros_like(draws, dtype=torch.bool)
    if low is not None:
        edge = edge | (draws <= low + below)
    if high is not None:
        edge = edge | (draws >= high - above * abs(high))
    return edge
