"""What the sites of a pair must be, and the plate over the data that holds them all; what is not is refused by name."""

from itertools import zip_longest
from typing import Any

import pyro.distributions as dist

from pyrovae.base.errors import InputError
from pyrovae.pairs.supports import layers, root
from pyrovae.pairs.traces import TracePair, own_rows


def check_sites_match(model_sites: dict, guide_sites: dict) -> None:
    """Demands that the guide draws what the model has latent, and that alone."""
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
    check_observes(model_sites)


def check_observes(model_sites: dict) -> None:
    """Raises InputError unless a site observes data."""
    if not any(site["is_observed"] for site in model_sites.values()):
        raise InputError("the model observes nothing: give its data to a site with obs=")


def frames_of(site: Any) -> list[Any]:
    """Pyro's frames of the plates that a site is in: name, dim, size, full_size."""
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]


def depth_of(every: dict[str, dict]) -> int:
    """How many dimensions the plates of sites take."""
    return max(-frame.dim for site in every.values() for frame in frames_of(site))


def data_frame(every: dict[str, dict], rows: int, plate: str | None, run: TracePair) -> Any:
    """The plate shared by all sites; named errors where there is none or more than one, or a dimension is in none."""
    stacks = {name: {frame.name: frame for frame in frames_of(site)} for name, site in every.items()}
    shared = set.intersection(*(set(stack) for stack in stacks.values()))
    candidates = shared if plate is None else shared & {plate}
    if not candidates:
        raise InputError(_outside(stacks, plate, every))
    frames = [frame for frame in next(iter(stacks.values())).values() if frame.name in candidates]
    fitting = [frame for frame in frames if frame.size == rows]
    if len(fitting) > 1:
        raise InputError(f"several plates hold all sites, {sorted(candidates)}: name the data plate with plate=")
    if not fitting:
        name, size = frames[0].name, frames[0].size
        raise InputError(
            _keeper(frames[0], rows, run)
            or f"plate '{name}' has {size} rows but the data have {rows}: use pyro.plate('{name}', len(x)), with the "
            "data first among the arguments"
        )
    _check_dimensions_owned(every)
    return fitting[0]


def check_own_rows(run: TracePair, rows: int) -> None:
    """Raises InputError, naming the parameter, if programs keep the rows that they were made with in place of these."""
    for site in run.observed.values():
        frames = frames_of(site)
        if frames and all(frame.size != rows for frame in frames) and (own := _keeper(frames[0], rows, run)):
            raise InputError(own)


def _keeper(frame: Any, rows: int, run: TracePair) -> str | None:
    """Says that programs keep the rows that they were made with, where that is why a plate has others than the data."""
    found = (own_rows(role, trace, {frame.size}, rows) for role, trace in (("guide", run.guide), ("model", run.model)))
    return next(filter(None, found), None)


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
        owned = {frame.dim for frame in frames_of(site)}
        shape = site["fn"].batch_shape
        for dim in range(-len(shape), 0):
            if shape[dim] > 1 and dim not in owned:
                raise InputError(
                    f"{name} has a batch shape {tuple(shape)} whose dimension {dim} is in no plate: "
                    "is .to_event(n) missing, over the dimensions of one datum?"
                )


def check_guide_spread(guide_sites: dict) -> None:
    """Demands that draws of the guide have a density, or are codes of an autoencoder."""
    if any(site["infer"].get("is_auxiliary") for site in guide_sites.values()):
        return  # the point is a transform of an auxiliary draw, whose density counts
    codes = codes_of(guide_sites)
    for name, site in guide_sites.items():
        if isinstance(root(site["fn"]), dist.Delta) and name not in codes:
            raise InputError(
                f"site '{name}' of the guide is a single point (Delta): its draws have no density to weigh them by; "
                "use a guide with a spread"
            )


def codes_of(guide_sites: dict) -> tuple[str, ...]:
    """Sites of the guide that are single points of which no density is asked: ``Delta(...).mask(False)``."""
    return tuple(name for name, site in guide_sites.items() if _is_code(site))


def _is_code(site: Any) -> bool:
    nested = layers(site["fn"])
    masks = [site["mask"], *(layer._mask for layer in nested if isinstance(layer, dist.MaskedDistribution))]
    return isinstance(nested[-1], dist.Delta) and any(mask is False for mask in masks)


def require_no_codes(codes: tuple[str, ...]) -> None:
    """Raises InputError, naming the site, for an autoencoder, where a density is asked for.

    Args:
        codes: what :func:`codes_of` found.
    """
    if codes:
        raise InputError(
            f"site '{codes[0]}' is the code of an autoencoder: a single point for each datum, with no density in model "
            "or guide, so log p(x) is not defined. Give the codes one: "
            "pyrovae.baselines.with_density(autoencoder, data) is a pair of the same decoder"
        )


def check_proper(model_sites: dict) -> None:
    """Demands that each distribution of the model has a total mass."""
    for name, site in model_sites.items():
        if isinstance(root(site["fn"]), dist.ImproperUniform):
            raise InputError(
                f"site '{name}' of the model: ImproperUniform has no total mass, so log p(x) is not defined (but for a "
                f"constant of nobody's choosing), and nothing can be drawn from it. Give '{name}' a proper "
                "distribution, a wide Normal for one"
            )


def check_shapes_match(model_sites: dict, guide_sites: dict) -> None:
    """Demands that both programs draw a latent in one shape."""
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


def check_data_match(name: str, site: dict) -> None:
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
