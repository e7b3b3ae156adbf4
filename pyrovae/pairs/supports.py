"""Supports and masks of distributions, inside their wrappers: where a value may lie, and where it counts."""

import math
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
    if isinstance(base, torch.distributions.Multinomial):  # its density is that of as many draws as a row counts
        support = constraints.independent(constraints.nonnegative_integer, 1)
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
        Booleans, of the shape of ``like``, wider where a mask is.
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


def is_masked(site: Any) -> bool:
    """Whether a tensor tells which of a site's values count."""
    inner = (layer for layer in layers(site["fn"]) if isinstance(layer, dist.MaskedDistribution))
    return isinstance(site["mask"], Tensor) or any(isinstance(layer._mask, Tensor) for layer in inner)


def layers(fn: Any) -> list[Any]:
    """A distribution, and those inside its reinterpreted and masked wrappers; the innermost is last."""
    nested = [fn]
    while isinstance(nested[-1], torch.distributions.Independent | dist.MaskedDistribution):
        nested.append(nested[-1].base_dist)
    return nested


def is_known(fn: Any) -> bool:
    """Whether a family is torch's, Pyro's or ours, not a subclass of one's own whose density may be another."""
    return type(layers(fn)[-1]).__module__.partition(".")[0] in ("torch", "pyro", "pyrovae")


def support_of(base: Any) -> Any:
    """The support of a distribution, or None for a factor and for a distribution that does not say."""
    if isinstance(base, dist.Unit):
        return None
    try:
        return base.support
    except (NotImplementedError, AttributeError):
        return None


def latent_support(fn: Any) -> Any:
    """Where a distribution draws, None where that is not known: an angle from -pi to pi, though its density goes on."""
    base = single = layers(fn)[-1]
    if isinstance(base, torch.distributions.MixtureSameFamily):
        single = layers(base.component_distribution)[-1]
    if isinstance(single, dist.VonMises | dist.SineBivariateVonMises | dist.SineSkewed):
        return constraints.independent(constraints.interval(-math.pi, math.pi), len(base.event_shape))
    return support_of(base)


def innermost(support: Any) -> Any:
    """The constraint of single values inside those of independent ones and of mixtures."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def bounds(support: Any) -> tuple[Any, Any]:
    """The least and the greatest value of a constraint of single values; None for one that it has not."""
    return getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)


def ends(support: Any) -> tuple[Any, Any]:
    """The least and the greatest value of a support of real values, a simplex too; None for one that it has not."""
    base = innermost(support)
    if isinstance(base, constraints._Simplex):
        return 0.0, 1.0
    return (None, None) if getattr(base, "is_discrete", True) else bounds(base)


def possible(site: Any) -> Tensor | None:
    """Where a site's values (..., *batch, *event) are such as its distribution can draw: (..., *batch); None: all are.

    Many densities go on outside their support, and a family given by ``probs`` calls a class of probability zero no
    less likely than exp(-16). What is masked is not looked at.
    """
    fn, value, base = site["fn"], site["value"], layers(site["fn"])[-1]
    batch_dim, found = value.dim() - len(fn.event_shape), None
    for inside in (_in_support(base, value), _of_positive_mass(base, value)):
        if inside is not None:
            inside = inside | ~scored(site, inside, value.dim() - inside.dim())
            inside = inside.flatten(batch_dim).all(-1) if inside.dim() > batch_dim else inside
            found = inside if found is None else found & inside
    return found


# Nothing to look at; or matrices, whose draws miss what their check asks by rounding.
_UNCHECKED = (
    constraints._Real,
    constraints._CorrCholesky,
    constraints._LowerCholesky,
    constraints._LowerTriangular,
    constraints._Symmetric,
)


def _in_support(base: Any, value: Tensor) -> Tensor | None:
    support = latent_support(base)
    narrowed = is_narrowed(base)
    if support is None or (isinstance(single := innermost(support), _UNCHECKED) and not narrowed):
        return None
    if isinstance(single, constraints._Simplex):  # torch asks for a sum within 1e-6 of 1: less than rounding in float32
        return (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < 1e-3)
    if isinstance(base, torch.distributions.MixtureSameFamily):  # draws lie in the support of one component
        scalar = all(not isinstance(bound, Tensor) or bound.dim() == 0 for bound in bounds(single))
        return single.check(value) if scalar else None
    return _in_image(base, value) if narrowed else support.check(value)


def _in_image(base: Any, value: Tensor) -> Tensor:
    """Whether values come out of a distribution's transforms: the last one's image of a part of the line is less."""
    looks = []
    for transform in reversed(base.transforms):
        looks.append(transform.codomain.check(value))
        value = transform.inv(value)
    looks.append(_in_support(layers(base.base_dist)[-1], value))
    found = [look for look in looks if look is not None]
    rank = min(look.dim() for look in found)
    return torch.stack([look.flatten(rank).all(-1) if look.dim() > rank else look for look in found]).all(0)


def is_narrowed(base: Any) -> bool:
    """Whether a distribution is the image of a part of the line, which the support of its last transform hides."""
    if type(base).__name__ != "TransformedDistribution":
        return False
    onto_the_line = all(isinstance(innermost(t.codomain), constraints._Real) for t in base.transforms[:-1])
    return not (onto_the_line and whole_line(base.base_dist))


def whole_line(fn: Any) -> bool:
    """Whether a family plainly has a density at all real numbers."""
    base = layers(fn)[-1]
    if isinstance(base, torch.distributions.MixtureSameFamily):
        return whole_line(base.component_distribution)
    plain = not isinstance(base, torch.distributions.TransformedDistribution)
    return plain and isinstance(innermost(latent_support(fn)), constraints._Real)


def _never(base: Any) -> Tensor:
    """Which classes were given a probability of zero; one that underflows from its logit was not."""
    return (base.probs == 0) & (base._param == 0)


def _of_positive_mass(base: Any, value: Tensor) -> Tensor | None:
    if isinstance(base, torch.distributions.Bernoulli):
        never = torch.where(value == 1, base.probs == 0, base.probs == 1)
        return ~(never & (base.probs == base._param))  # a saturated logit is no probability
    if isinstance(base, torch.distributions.OneHotCategorical):
        return (~_never(base) | (value == 0)).all(-1)
    if isinstance(base, torch.distributions.Categorical):
        index = value.long().clamp(0, base.probs.shape[-1] - 1)[..., None]
        return ~_never(base).expand(*index.shape[:-1], -1).gather(-1, index)[..., 0]
    return None


def support_text(base: Any) -> str:
    """The support of a distribution in words."""
    support = innermost(base.support)
    low, high = (None if bound is None else torch.as_tensor(bound) for bound in bounds(support))
    if low is not None and high is not None:
        first, last = (float(bound.flatten()[0]) for bound in (low, high))
        return f"{first:g} to {last:g}" + (", whole numbers" if support.is_discrete else "")
    bound = low if high is None else high
    span = "" if bound is None else " to ".join(f"{end:g}" for end in sorted({float(bound.min()), float(bound.max())}))
    names = {
        "_Boolean": "0 or 1",
        "_Real": "finite reals",
        "_IntegerGreaterThan": f"whole numbers from {span}",
        "_Multinomial": "whole numbers from 0",
        "_GreaterThan": f"above {span}",
        "_GreaterThanEq": f"from {span}" + (" and more" if "to" in span else ""),
        "_LessThan": f"below {span}",
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
