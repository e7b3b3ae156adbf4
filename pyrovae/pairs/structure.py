"""What one run of a pair shows, its data plate and its sites; and what runs of a model by itself show."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.checks.parameters import check_parameters
from pyrovae.pairs.checks.sites import (
    check_data_match,
    check_guide_spread,
    check_observes,
    check_proper,
    check_shapes_match,
    check_sites_match,
    codes_of,
    data_frame,
    depth_of,
    frames_of,
)
from pyrovae.pairs.checks.weights import check_auxiliary, check_masks_match, check_measures_match, check_transforms
from pyrovae.pairs.supports import base_measure, is_masked
from pyrovae.pairs.traces import Program, Sites, TracePair, check_no_subsampling, each_batched, num_rows, sites, traced


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
    codes: tuple[str, ...] = ()  # latents that are points of which no density is asked: an autoencoder's


class Shown(NamedTuple):
    """A pair on one batch, one run of it, and what that showed."""

    model: Program
    guide: Program
    args: Sequence[Any]
    run: TracePair
    structure: Structure

    @property
    def num_data(self) -> int:
        """N, the rows that were looked at."""
        return num_rows(self.args)


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
    check_sites_match(model_sites, guide_sites)
    check_no_subsampling(*run)
    every = {f"site '{name}'": site for name, site in model_sites.items()}
    every |= {f"site '{name}' of the guide": site for name, site in guide_sites.items()}
    frame = data_frame(every, rows, plate, run)
    check_guide_spread(guide_sites)
    check_proper(model_sites)
    check_parameters("guide", guide_sites, frame.dim)
    check_shapes_match(model_sites, guide_sites)
    check_measures_match(run)
    check_transforms(run)
    check_masks_match(run)
    check_auxiliary(run)
    for name, site in run.observed.items():
        check_data_match(name, site)
    return Structure(
        plate=frame.name,
        dim=frame.dim,
        depth=depth_of(every),
        latents=tuple(run.latent),
        drawn={name: bool(getattr(site["fn"], "has_rsample", False)) for name, site in guide_sites.items()},
        has_discrete=any(base_measure(s["fn"]) == "mass" for s in every.values() if not s["is_observed"]),
        observed={name: base_measure(site["fn"]) for name, site in run.observed.items()},
        plate_scale=frame.full_size / frame.size,
        codes=codes_of(guide_sites),
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
    check_observes(found[0])
    every = {f"site '{name}'": site for name, site in found[0].items()}
    frame = data_frame(every, num_rows(args), plate, TracePair(runs[0], Trace()))
    check_proper(found[0])
    _check_observes_args(model, args, found[0], frame.dim)
    for name in set[str]().union(*found):
        if not all(name in one for one in found):
            raise InputError(
                f"site '{name}' is in some runs of the model and not in others: its guide is yours to write"
            )
    names = [name for name, site in found[0].items() if not site["is_observed"]]
    return Generative(
        data=frame,
        depth=depth_of(every),
        latents={name: _latent(name, [one[name] for one in found], frame) for name in names},
    )


def _latent(name: str, runs: Sequence[Any], data: Any) -> LatentSite:
    if is_masked(runs[0]):
        raise InputError(
            f"site '{name}' of the model is masked: only a guide that masks it alike has a weight; write that guide, "
            "or draw only what counts"
        )
    plates = tuple(frame for frame in frames_of(runs[0]) if frame.name != data.name)
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
