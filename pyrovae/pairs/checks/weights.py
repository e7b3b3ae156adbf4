r"""What one run of a pair shows of whether its weights are weights.

.. math:: w = p(x \mid z) \, p(z) / q(z \mid x)

estimates log p(x) if both programs score the same draws: at the same places, by densities of one base measure, and
none that the model does not know.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.supports import base_measure, layers, scored, to_support
from pyrovae.pairs.traces import TracePair, site_log_prob


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


def check_transforms(run: TracePair) -> None:
    """Raises InputError, naming the site, if a transform gives draws of a latent no density: it cannot be undone."""
    for name, ours, theirs in _shared(run):
        for site, program in ((ours, "model"), (theirs, "guide")):
            base = layers(site["fn"])[-1]
            if type(base).__name__ != "TransformedDistribution":
                continue
            for transform in base.transforms:
                if not transform.bijective:
                    raise InputError(
                        f"site '{name}' of the {program}: {type(transform).__name__} is not one to one, so torch knows "
                        "no density of what it gives. Take one that is (StickBreakingTransform onto a simplex), or a "
                        "family of that support"
                    )
            with preserve_rng_state():
                before = base.base_dist.sample((8,))
            _check_mass_unscaled(f"site '{name}' of the {program}", base, before)
            if not base.transforms[0].domain.check(before).all():
                raise InputError(
                    f"site '{name}' of the {program}: {type(base.transforms[0]).__name__} is not one to one on what "
                    f"{type(layers(base.base_dist)[-1]).__name__} draws: no density is right. Take a base on its domain"
                )


def _check_mass_unscaled(whose: str, base: Any, value: Tensor) -> None:
    """Demands that transforms of counts have no Jacobian, which torch would take off their mass."""
    for transform in base.transforms if base_measure(base) == "mass" else ():
        moved = transform(value)
        if transform.log_abs_det_jacobian(value, moved).any():
            raise InputError(
                f"{whose}: torch takes the Jacobian of {type(transform).__name__} off the log mass of "
                f"{type(layers(base.base_dist)[-1]).__name__}, but a mass has none. Move counts by a shift alone "
                "(AffineTransform(loc, scale=1)), and scale them where they are used"
            )
        value = moved


def moves_of(run: TracePair) -> dict[str, str]:
    """Latent -> the auxiliary draw that the guide moves onto its support, as Pyro's AutoNormal does."""
    extra = {name: run.drawn[name] for name in run.auxiliary}
    found: dict[str, str] = {}
    for name, ours, theirs in _shared(run):
        fitting = [draw for draw, site in extra.items() if draw not in found.values() and _is_moved(site, ours, theirs)]
        if fitting:
            found[name] = fitting[0]
    return found


def _is_moved(extra: Any, ours: Any, theirs: Any) -> bool:
    """Whether a latent is the image of a draw under the transform onto its support, and says so of its density."""
    plates = [site["fn"].batch_shape for site in (extra, ours, theirs)]
    if not is_function(theirs) or plates[0] != plates[1] or plates[1] != plates[2]:
        return False
    try:
        move = to_support(ours["fn"])
    except NotImplementedError:
        return False
    real, value = extra["value"], theirs["value"]
    if real.shape != move.inv(value).shape or theirs["mask"] is not extra["mask"]:
        return False
    log_jacobian = move.log_abs_det_jacobian(real, value).reshape(*plates[0], -1).sum(-1)
    stated = site_log_prob({**theirs, "mask": None})
    return torch.allclose(move(real), value) and torch.allclose(stated, -log_jacobian, rtol=1e-3, atol=1e-2)


def check_auxiliary(run: TracePair) -> None:
    """Demands that what the guide draws and the model does not know is but another name for latents.

    Raises:
        InputError: naming the site, where latents are no function of it, or a function that cannot be undone.
    """
    extra = run.auxiliary
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
