"""The scales of sites and the conditions of a bound, read off one run of a pair; what has two meanings is refused."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.checks.inverses import check_density_at
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import TracePair


def differs_by_datum(scale: float | Tensor) -> bool:
    """Whether a scale is a weight for each datum."""
    return isinstance(scale, Tensor) and scale.numel() > 1


def rescaled(run: TracePair, structure: Structure) -> TracePair:
    """Lets each of K copies of a row stand for as many data as the row did."""
    for site in run.every_site:
        frame = next(frame for frame in site["cond_indep_stack"] if frame.name == structure.plate)
        found = frame.full_size / frame.size
        if found != structure.plate_scale:
            site["scale"] = site["scale"] * (structure.plate_scale / found)
    return run


def scale_of_data(run: TracePair, table: Callable[[Tensor], Tensor]) -> float | Tensor:
    """The scale of the observed sites of a scored run: a number, or (N,)."""
    return scale_of(next(iter(run.observed.values())), table)


def scale_of(site: Any, table: Callable[[Tensor], Tensor]) -> float | Tensor:
    """The scale of a scored site: a number, or (N,)."""
    if not differs_by_datum(site["scale"]):
        return site["scale"]
    ones = torch.ones_like(site["log_prob"])
    return (table(ones * site["scale"]) / table(ones))[0]


def scales_all_alike(structure: Structure, run: TracePair) -> bool:
    """Whether all sites have one scale; scales that could be meant inside or outside of the logarithm are refused."""
    observed = [site["scale"] for site in run.observed.values()]
    latent = [site["scale"] for site in (*run.latent.values(), *run.drawn.values())]
    if not all(alike(scales[0], scale) for scales in (observed, latent) for scale in scales):
        return False
    if not latent or alike(observed[0], latent[0]):
        return True
    if not any(alike(scales[0], structure.plate_scale) for scales in (observed, latent)):
        raise InputError(
            f"site '{next(iter(structure.observed))}' has one scale and the latents have another, neither that of "
            f"plate '{structure.plate}': a rescaled loss, or powers within the weights of IWAE? Rescale the loss by "
            f"the plate, pyro.plate('{structure.plate}', size, subsample=x), not by poutine.scale"
        )
    return False


def alike(a: Any, b: Any) -> bool:
    """Whether two scales, or two masks, are the same; None masks nothing."""
    a, b = (torch.as_tensor(True if value is None else value).double().cpu() for value in (a, b))
    return a.shape == b.shape and torch.allclose(a, b)


def require_one_scale(bound: str, run: TracePair) -> None:
    """Demands that all latents have one scale, in the model and in the guide, the same for each datum."""
    latents = [*run.latent.values(), *run.drawn.values()]
    for site in latents:
        if differs_by_datum(site["scale"]) or not alike(site["scale"], latents[0]["scale"]):
            raise InputError(
                f"site '{site['name']}' has another scale than '{latents[0]['name']}', or one for each datum: {bound} "
                "weighs all latents alike. Put handlers around both programs, or use SampledELBO"
            )


def require_density(bound: str, run: TracePair) -> None:
    """Demands that the guide has a density at copies of its draws: that no flow lacks an inverse."""
    for name, site in run.drawn.items():
        try:
            check_density_at(name, site)
        except InputError as error:
            raise InputError(f"{bound} scores the guide at given latents: {error}; or use SampledELBO") from error


def require_drawn(run: TracePair) -> None:
    """Demands that every latent is drawn."""
    for site in [*run.drawn.values(), *run.latent.values()]:
        if (site["infer"] or {}).get("enumerate"):
            raise InputError(
                f"site '{site['name']}' is enumerated, but this bound draws every latent; "
                "use pyro.infer.TraceEnum_ELBO, which runs eagerly, or SummedELBO without config_enumerate"
            )


def require_gradients(bound: str, run: TracePair) -> None:
    """Demands that every draw of the guide carries gradients; ``bound`` is what needs them."""
    run.guide.compute_score_parts()
    for name, site in run.drawn.items():
        if not is_identically_zero(site["score_parts"].score_function):
            raise InputError(
                f"site '{name}' of the guide cannot be reparameterized: the gradient of {bound} would be wrong. "
                "Use SampledELBO, VIMCO or ReweightedWakeSleep, or a guide family that can (a continuous one)"
            )


def require_closed_form(bound: str, structure: Structure, run: TracePair) -> None:
    """Demands of a pair that KL(q || p) site by site, at earlier draws, is the KL of its latents."""
    if tuple(structure.drawn) != structure.latents:
        raise InputError(
            f"{bound} needs the guide to draw the latents in the model's order, {list(structure.latents)}, and "
            f"nothing else, but it draws {list(structure.drawn)}: the closed-form KL would be wrong. Use SampledELBO"
        )
    require_gradients(bound, run)
    for name in structure.latents:
        if not alike(run.latent[name]["scale"], run.drawn[name]["scale"]):
            raise InputError(
                f"site '{name}' has one scale in the model and another in the guide, but its closed-form KL can "
                "have only one. Put poutine.scale around both programs, or use SampledELBO"
            )
