"""What one run of a pair shows, its data plate and its sites; a pair without per-datum weights is refused by name."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.checks.parameters import check_parameters
from pyrovae.pairs.checks.weights import check_auxiliary, check_masks_match, check_measures_match, check_transforms
from pyrovae.pairs.supports import base_measure, is_masked, root
from pyrovae.pairs.traces import (
    Program,
    Sites,
    TracePair,
    check_no_subsampling,
    each_batched,
    num_rows,
    own_rows,
    sites,
    traced,
)


class Structure(NamedTuple):
    """What one run of a pair showed: its data plate and its sites."""

    plate: str  # the name of the plate over data
    dim: int  # its dimension, counted from the right (negative)
    depth: int  # how many dimensions the plates take
    latents: tuple[str, ...]  # in the order of the model
    drawn: dict[str, bool]  # site of the guide, in its order -> whether its draws carry gradients (rsample)
    has_discrete: bool  # whether a latent or auxiliary site has a discrete support
    observed: dict[str, str]  # site -> base measure of its density: "mass", "density" or "factor"
    plate_scale: float  # how many data a row stands for


def describe(run: TracePair, rows: int, *, plate: str | None = None) -> Structure:
    """The structure that one run of a pair on ``rows`` data shows.

    Args:
        run: of the pair.
        rows: how many data it was on.
        plate: name of the data plate, where several plates are shared by all sites.

    Raises:
        InputError: naming the site and the cause, for a pair whose per-datum weights are not defined.
    """
    model_sites, guide_sites = run.joint, run.drawn
    _check_sites_match(model_sites, guide_sites)
    check_no_subsampling(*run)
    every = {f"site '{name}'": site for name, site in model_sites.items()}
    every |= {f"site '{name}' of the guide": site for name, site in guide_sites.items()}
    frame = _data_frame(every, rows, plate, run)
    _check_dimensions_owned(every)
    _check_guide_spread(guide_sites)
    _check_proper(model_sites)
    check_parameters("guide", guide_sites, frame.dim)
    _check_shapes_match(model_sites, guide_sites)
    check_measures_match(run)
    check_transforms(run)
    check_masks_match(run)
    check_auxiliary(run)
    observed = {name: site for name, site in model_sites.items() if site["is_observed"]}
    for name, site in observed.items():
        _check_data_match(name, site)
    return Structure(
        plate=frame.name,
        dim=frame.dim,
        depth=max(-f.dim for site in every.values() for f in site["cond_indep_stack"] if f.vectorized),
        latents=tuple(name for name, site in model_sites.items() if not site["is_observed"]),
        drawn={name: bool(getattr(site["fn"], "has_rsample", False)) for name, site in guide_sites.items()},
        has_discrete=any(base_measure(s["fn"]) == "mass" for s in every.values() if not s["is_observed"]),
        observed={name: base_measure(site["fn"]) for name, site in observed.items()},
        plate_scale=frame.full_size / frame.size,
    )


# --------------------------------------------------------------------------------------------- a model by itself


class LatentSite(NamedTuple):
    """One latent site, as several runs of its model alone showed it."""

    fns: tuple[Any, ...]  # its distribution in each run
    draws: Tensor  # (runs, *batch, *event)
    plates: tuple[Any, ...]  # Pyro's frames of plates inside that over data: name, dim, size


class Generative(NamedTuple):
    """What runs of a model without a guide showed."""

    data: Any  # Pyro's frame of the plate over data: name, dim, size, full_size
    depth: int  # how many dimensions the plates take
    latents: dict[str, LatentSite]  # in the order of the model


def describe_model(model: Program, args: Sequence[Any], *, plate: str | None = None, num_runs: int = 2) -> Generative:
    """What a model by itself shows of its latents, in so many runs on the same data.

    Raises:
        InputError: naming the site and the cause, for a model to which no guide gives per-datum weights, whose sites
            change from run to run, or which observes other data than these.
    """
    runs = [traced("model", model, model, args) for _ in range(num_runs)]
    check_no_subsampling(*runs)
    found = [sites(run) for run in runs]
    _check_observes(found[0])
    every = {f"site '{name}'": site for name, site in found[0].items()}
    frame = _data_frame(every, num_rows(args), plate, TracePair(runs[0], Trace()))
    _check_dimensions_owned(every)
    _check_proper(found[0])
    _check_observes_args(model, args, found[0], frame.dim)
    for name in set[str]().union(*found):
        if not all(name in one for one in found):
            raise InputError(
                f"site '{name}' is in some runs of the model and not in others: its guide is yours to write"
            )
    names = [name for name, site in found[0].items() if not site["is_observed"]]
    return Generative(
        data=frame,
        depth=max(-f.dim for site in every.values() for f in site["cond_indep_stack"] if f.vectorized),
        latents={name: _latent(name, [one[name] for one in found], frame) for name in names},
    )


def _latent(name: str, runs: Sequence[Any], data: Any) -> LatentSite:
    if is_masked(runs[0]):
        raise InputError(
            f"site '{name}' of the model is masked: only a guide that masks it alike has a weight; write that guide, "
            "or draw only what counts"
        )
    plates = tuple(f for f in runs[0]["cond_indep_stack"] if f.vectorized and f.name != data.name)
    return LatentSite(
        tuple(site["fn"] for site in runs), torch.stack([site["value"].detach() for site in runs]), plates
    )


def _check_observes_args(model: Program, args: Sequence[Any], found: Sites, dim: int) -> None:
    """Demands that what is observed moves with the rows of the arguments, where it is not the same for each."""
    turned = sites(traced("model", model, model, each_batched(args, lambda arg: arg.flip(0))))
    for name, site in found.items():
        value, event_dim = site["value"], len(site["fn"].event_shape)
        if not site["is_observed"] or name not in turned or value.dim() < event_dim - dim:
            continue
        before, after = value.nan_to_num(), turned[name]["value"].nan_to_num()
        if torch.equal(before, after) and not torch.equal(before, before.flip(before.dim() - event_dim + dim)):
            raise InputError(
                f"site '{name}' observes data that are not among the arguments (they stay as they are when rows of the "
                "arguments are exchanged): let the model take them as an argument, so that the encoder can read them"
            )


# ------------------------------------------------------------------------------------------ sites and plates


def _check_sites_match(model_sites: dict, guide_sites: dict) -> None:
    for name, site in guide_sites.items():
        if site["is_observed"]:
            raise InputError(f"site '{name}' of the guide is observed (or a factor); the guide may only draw latents")
        if name not in model_sites and not site["infer"].get("is_auxiliary"):
            raise InputError(f"site '{name}' is drawn by the guide but is not in the model; rename or remove it")
    for name, site in model_sites.items():
        if site["is_observed"]:
            if name in guide_sites:
                raise InputError(f"site '{name}' is observed in the model, yet the guide draws it; remove it there")
        elif name not in guide_sites:
            enumerated = site["infer"].get("enumerate")
            cause = "is enumerated in the model" if enumerated else "is in the model but not in the guide"
            raise InputError(
                f"site '{name}' {cause}: its weight would be that of a draw from the prior. "
                f"Draw '{name}' in the guide, or observe it"
            )
    _check_observes(model_sites)


def _check_observes(model_sites: dict) -> None:
    if not any(site["is_observed"] for site in model_sites.values()):
        raise InputError("the model observes nothing: give its data to a site with obs=")


def _data_frame(every: dict[str, dict], rows: int, plate: str | None, run: TracePair) -> Any:
    """The plate shared by all sites; named errors where there is none, or more than one."""
    stacks = {name: {f.name: f for f in site["cond_indep_stack"] if f.vectorized} for name, site in every.items()}
    shared = set.intersection(*(set(stack) for stack in stacks.values()))
    candidates = shared if plate is None else shared & {plate}
    if not candidates:
        raise InputError(_outside(stacks, plate, every))
    frames = [frame for frame in next(iter(stacks.values())).values() if frame.name in candidates]
    fitting = [frame for frame in frames if frame.size == rows]
    if len(fitting) > 1:
        raise InputError(f"several plates hold all sites, {sorted(candidates)}: name the data plate with plate=")
    if not fitting:
        raise InputError(_other_size(frames[0], rows, run))
    return fitting[0]


def check_own_rows(run: TracePair, rows: int) -> None:
    """Raises InputError, naming the parameter, if programs keep the rows that they were made with in place of these."""
    for site in run.observed.values():
        frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
        if frames and all(frame.size != rows for frame in frames) and (own := _keeper(frames[0], rows, run)):
            raise InputError(own)


def _keeper(frame: Any, rows: int, run: TracePair) -> str | None:
    found = (own_rows(role, trace, {frame.size}, rows) for role, trace in (("guide", run.guide), ("model", run.model)))
    return next(filter(None, found), None)


def _other_size(frame: Any, rows: int, run: TracePair) -> str:
    """Says why a plate has other rows than the data: programs that keep those that they were made with, or a number."""
    return _keeper(frame, rows, run) or (
        f"plate '{frame.name}' has {frame.size} rows but the data have {rows}: use pyro.plate('{frame.name}', len(x)), "
        "with the data first among the arguments"
    )


def _outside(stacks: dict[str, dict], plate: str | None, every: dict[str, dict]) -> str:
    """Says which site is outside the plate that was named, or outside that of most sites."""
    known = sorted(set().union(*stacks.values()))
    counts = {name: sum(name in stack for stack in stacks.values()) for name in known}
    widest = plate if plate is not None else max(known, key=lambda name: counts[name], default=None)
    outside = next(name for name, stack in stacks.items() if widest not in stack)
    if plate is not None:
        return f"plate '{plate}' does not hold {outside}; plates found: {known}"
    auto = "; AutoNormal draws each datum's in the plate" if every[outside]["infer"].get("is_auxiliary") else ""
    return (
        f"{outside} is outside the data plate"
        + (f" '{widest}'" if widest else "")
        + ": evidence per datum needs one pyro.plate over the data that holds every site of model and guide "
        f"(a latent shared by all data has no per-datum weight{auto})"
    )


def _check_dimensions_owned(every: dict[str, dict]) -> None:
    """Demands that each batch dimension belongs to a plate: one too many can pass for the data by its size."""
    for name, site in every.items():
        owned = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
        shape = site["fn"].batch_shape
        for dim in range(-len(shape), 0):
            if shape[dim] > 1 and dim not in owned:
                raise InputError(
                    f"{name} has a batch shape {tuple(shape)} whose dimension {dim} is in no plate: "
                    "is .to_event(n) missing, over the dimensions of one datum?"
                )


def _check_guide_spread(guide_sites: dict) -> None:
    if any(site["infer"].get("is_auxiliary") for site in guide_sites.values()):
        return  # the point is a transform of an auxiliary draw, whose density counts
    for name, site in guide_sites.items():
        if _is_point(site["fn"]):
            raise InputError(
                f"site '{name}' of the guide is a single point (Delta): its draws have no density to weigh them by; "
                "use a guide with a spread"
            )


def _is_point(fn: Any) -> bool:
    return isinstance(root(fn), dist.Delta)


def _check_proper(model_sites: dict) -> None:
    for name, site in model_sites.items():
        if isinstance(root(site["fn"]), dist.ImproperUniform):
            raise InputError(
                f"site '{name}' of the model: ImproperUniform has no total mass, so log p(x) is not defined (but for a "
                f"constant of nobody's choosing), and nothing can be drawn from it. Give '{name}' a proper "
                "distribution, a wide Normal for one"
            )


# -------------------------------------------------------------------------------------- shapes and supports


def _check_shapes_match(model_sites: dict, guide_sites: dict) -> None:
    for name in (name for name in guide_sites if name in model_sites):
        model, guide = model_sites[name]["fn"], guide_sites[name]["fn"]
        if guide.event_shape != model.event_shape:
            raise InputError(
                f"site '{name}': the model's distribution is over events of shape {tuple(model.event_shape)}, "
                f"the guide's over {tuple(guide.event_shape)}"
            )
        shapes = tuple(model.batch_shape), tuple(guide.batch_shape)
        if any(a != b for a, b in zip_longest(*map(reversed, shapes), fillvalue=1)):
            raise InputError(
                f"site '{name}': its plates make a batch of shape {shapes[0]} in the model and of {shapes[1]} in the "
                "guide; draw it in the same plates"
            )


def _check_data_match(name: str, site: dict) -> None:
    """Demands that the likelihood need not be stretched over the data: broadcasting hides a missing to_event."""
    fn, value = site["fn"], site["value"]
    event_dim = len(fn.event_shape)
    batch = value.shape[: value.dim() - event_dim]
    fits = len(batch) <= len(fn.batch_shape) and all(
        size in (1, wide) for size, wide in zip(reversed(batch), reversed(fn.batch_shape), strict=False)
    )
    if not fits or value.shape[len(batch) :] != fn.event_shape:
        raise InputError(
            f"site '{name}': the likelihood is over events of shape {tuple(fn.event_shape)} in a batch of shape "
            f"{tuple(fn.batch_shape)}, but the data have shape {tuple(value.shape)}"
        )
