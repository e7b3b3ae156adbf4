r"""What one run of a pair shows of whether its weights are weights.

.. math:: w = p(x \mid z) \, p(z) / q(z \mid x)

estimates log p(x) if both programs score the same draws: at the same places, by densities of one base measure, and
none that the model does not know.
"""

from typing import Any

import pyro.distributions as dist
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.supports import base_measure, layers, scored, to_support
from pyrovae.pairs.traces import TracePair


def check_masks_match(run: TracePair) -> None:
    """Raises InputError, naming the site, if a draw counts in one program and not in the other."""
    for name, ours, theirs in _shared(run):
        in_model, in_guide = (scored(site, ours["value"], 0) for site in (ours, theirs))
        if bool((in_model != in_guide).any()):
            found = " and ".join(
                f"in the {program} at {int((~counts).sum())} of {counts.numel()} places"
                for program, counts in (("model", in_model), ("guide", in_guide))
            )
            raise InputError(
                f"site '{name}' is masked {found}: what one program scores and the other does not has no weight. "
                "Mask both alike, or draw only what counts"
            )


def check_measures_match(run: TracePair) -> None:
    """Raises InputError, naming the site, if one program gives a draw a density and the other a mass."""
    for name, ours, theirs in _shared(run):
        in_model, in_guide = base_measure(ours["fn"]), base_measure(theirs["fn"])
        if is_function(theirs) or "factor" in (in_model, in_guide) or in_model == in_guide:
            continue
        model, guide = (type(layers(site["fn"])[-1]).__name__ for site in (ours, theirs))
        mend = (
            f"Relax the model too (a continuous distribution of '{name}' there), or draw '{name}' in the guide from "
            f"the {model} family"
            if in_guide == "density"
            else f"Draw '{name}' in the guide from a continuous family"
        )
        raise InputError(
            f"site '{name}': {model} in the model has a {in_model}, {guide} in the guide a {in_guide}: log p and log q "
            f"are of different base measures, so no weight stands between them. {mend}"
        )


def moves_of(run: TracePair) -> dict[str, str]:
    """Latent -> the auxiliary draw that the guide moves onto its support, as Pyro's AutoNormal does."""
    extra = {name: site for name, site in run.drawn.items() if name not in run.latent}
    found: dict[str, str] = {}
    for name, ours, theirs in _shared(run):
        fitting = [draw for draw, site in extra.items() if draw not in found.values() and _is_moved(site, ours, theirs)]
        if fitting:
            found[name] = fitting[0]
    return found


def _is_moved(extra: Any, ours: Any, theirs: Any) -> bool:
    """Whether a latent's value is the image of a draw under the transform onto the latent's support."""
    plates = [site["fn"].batch_shape for site in (extra, ours, theirs)]
    if not is_function(theirs) or plates[0] != plates[1] or plates[1] != plates[2]:
        return False
    try:
        move = to_support(ours["fn"])
    except NotImplementedError:
        return False
    if extra["value"].shape != move.inv(theirs["value"]).shape or theirs["mask"] is not extra["mask"]:
        return False
    return torch.allclose(move(extra["value"]), theirs["value"])


def check_auxiliary(run: TracePair) -> None:
    """Demands that what the guide draws and the model does not know is but another name for latents.

    Raises:
        InputError: naming the site, where latents are no function of it, or a function that cannot be undone.
    """
    extra = [name for name in run.drawn if name not in run.latent]
    if not extra:
        return
    moved = [run.latent[name] for name, _, theirs in _shared(run) if is_function(theirs)]
    coordinates = sum(_coordinates(site) for site in moved)
    if coordinates != sum(run.drawn[name]["value"].numel() for name in extra):
        raise InputError(
            f"site '{extra[0]}' is drawn by the guide and unknown to the model: p(x, z) / q(z, {extra[0]} | x) is no "
            f"weight. Sum '{extra[0]}' out of the guide (MixtureSameFamily for a class), or draw it in the model too; "
            "an auxiliary draw may stand where latents are a one-to-one function of it (a Delta with its log_density)"
        )


def is_function(site: Any) -> bool:
    """Whether a site of the guide is a function of what was drawn before it."""
    return isinstance(layers(site["fn"])[-1], dist.Delta)


def _shared(run: TracePair) -> list[tuple[str, Any, Any]]:
    """(name, site of the model, site of the guide) of each latent."""
    return [(name, site, run.drawn[name]) for name, site in run.latent.items() if name in run.drawn]


def _coordinates(site: Any) -> int:
    """Real coordinates of a latent site, over all data; 0 where it has no bijection with the reals."""
    try:
        return int(to_support(site["fn"]).inv(site["value"]).numel())
    except NotImplementedError:
        return 0
