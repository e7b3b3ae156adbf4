"""Supports and masks of distributions, inside their wrappers: where a value may lie, and where it counts."""

from collections.abc import Iterable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from pyrovae.base.errors import InputError
from pyrovae.pairs.traces import TracePair

# What to do about data outside a support; a distribution may add its own ``advice`` to it.
ADVICE: dict[Any, str] = {
    constraints.boolean: "; binarize the data (binarization='dynamic', 'static' or 'threshold')",
    constraints.unit_interval: "; divide the data by their maximum (divisor=)",
}


def check_support(name: str, site: dict) -> None:
    """Raises InputError, naming the first, if observed values that count are outside their distribution's support."""
    value, base = site["value"], layers(site["fn"])[-1]
    support = support_of(base)
    if support is None:
        return
    inside = support.check(value)
    if value.is_floating_point():
        finite = value.isfinite()
        inside = inside & (finite if inside.shape == finite.shape else finite.flatten(inside.dim()).all(-1))
    outside = (~inside & scored(site, inside, support.event_dim)).nonzero()
    if len(outside) == 0:
        return
    first = outside[0].tolist()
    example = value[tuple(first)]
    advice = ADVICE.get(support, "") + getattr(base, "advice", "")
    found = f"{example.item():g}" if example.dim() == 0 else str(example.tolist())
    raise InputError(
        f"site '{name}': {len(outside)} of {inside.numel()} values are outside the support of {type(base).__name__} "
        f"({support_text(base)}), the first is {found} at {tuple(first)}{advice}"
    )


def scored(site: Any, like: Tensor, event_dim: int) -> Tensor:
    """Where a site's values count: not under poutine.mask, nor under the mask of a distribution.

    Args:
        site: a sample site.
        like: a tensor of the shape of its value without the last ``event_dim`` dimensions.
        event_dim: how many dimensions one value of the support takes.

    Returns:
        Booleans, of the shape of ``like``.
    """
    nested = layers(site["fn"])
    masks = [(site["mask"], nested[0])]
    masks += [(layer._mask, layer) for layer in nested if isinstance(layer, dist.MaskedDistribution)]
    counts = torch.ones_like(like, dtype=torch.bool)
    for mask, layer in masks:
        if mask is not None:
            mask = torch.as_tensor(mask, device=like.device)
            counts = counts & mask.reshape(mask.shape + (1,) * (len(layer.event_shape) - event_dim))
    return counts


def layers(fn: Any) -> list[Any]:
    """A distribution, and those inside its reinterpreted and masked wrappers; the innermost is last."""
    nested = [fn]
    while isinstance(nested[-1], torch.distributions.Independent | dist.MaskedDistribution):
        nested.append(nested[-1].base_dist)
    return nested


def support_of(base: Any) -> Any:
    """The support of a distribution, or None for a factor and for a distribution that does not say."""
    if isinstance(base, dist.Unit):
        return None
    try:
        return base.support
    except (NotImplementedError, AttributeError):
        return None


def support_text(base: Any) -> str:
    """The support of a distribution in words."""
    support = base.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    bounds = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    if all(bound is not None for bound in bounds):
        low, high = (float(torch.as_tensor(bound).flatten()[0]) for bound in bounds)
        return f"{low:g} to {high:g}" + (", whole numbers" if support.is_discrete else "")
    names = {
        "_Boolean": "0 or 1",
        "_Real": "finite reals",
        "_IntegerGreaterThan": "whole numbers from 0",
        "_GreaterThan": f"above {bounds[0]}",
        "_GreaterThanEq": f"from {bounds[0]}",
    }
    return names.get(type(support).__name__, str(support))


def base_measure(fn: Any) -> str:
    """The base measure of a site: "mass" (counting measure), "density" (Lebesgue), or "factor"."""
    support = support_of(layers(fn)[-1])
    return "factor" if support is None else "mass" if support.is_discrete else "density"


def require_unmasked(run: TracePair, latents: Iterable[str]) -> None:
    """Demands that all that is drawn at the latent sites counts, in the guide and in the model.

    Raises:
        InputError: naming the site.
    """
    for name in latents:
        found = run.latent[name], run.drawn[name]
        if not all(scored(site, site["value"], 0).all() for site in found):
            raise InputError(f"site '{name}' is masked: what is not scored has no posterior; draw only what counts")


def to_support(fn: Any) -> Any:
    """The transform from unconstrained space onto the support of a distribution.

    Raises:
        NotImplementedError: if there is none, as for classes, directions and angles.
    """
    support = fn.support
    if type(support).__name__ == "MixtureSameFamilyConstraint":
        support = support.base_constraint  # components share it; torch knows no transform of the mixture's own
    if isinstance(layers(fn)[-1], torch.distributions.VonMises):
        raise NotImplementedError("an angle has no bijection with the reals, though torch calls its support real")
    return biject_to(support)
