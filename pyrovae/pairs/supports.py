"""Supports and masks of distributions, inside their wrappers: where a value may lie, and where it counts."""

import functools
import math
from collections.abc import Iterable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from pyrovae.base.errors import InputError
from pyrovae.pairs.traces import TracePair


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
            counts = counts & over_event(mask, len(layer.event_shape) - event_dim)
    return counts


def seen(site: Any, support: Any) -> Tensor:
    """Where the values of a site count, each of the values of a support as one: it broadcasts with them."""
    value, event_dim = site["value"], 0 if support is None else support.event_dim
    like = value.flatten(value.dim() - event_dim).select(-1, 0) if event_dim else value
    return over_event(scored(site, like, event_dim), event_dim)


def whole_event(looks: Tensor, batch_dim: int) -> Tensor:
    """Whether all numbers of an event are so, of looks (*batch, ...) at each or at the event itself: (*batch)."""
    return looks.flatten(batch_dim).all(-1) if looks.dim() > batch_dim else looks


def over_event(table: Tensor, event_dim: int) -> Tensor:
    """One number for each event, in a shape that all of it has: (*batch) -> (*batch, 1, ...)."""
    return table.reshape(table.shape + (1,) * event_dim)


def of_full_shape(base: Any, value: Tensor) -> Tensor:
    """Values as wide as their distribution: (*batch, *event)."""
    return value.expand(torch.broadcast_shapes(value.shape, base.batch_shape + base.event_shape))


def is_masked(site: Any) -> bool:
    """Whether a tensor tells which of a site's values count."""
    inner = (layer for layer in layers(site["fn"]) if isinstance(layer, dist.MaskedDistribution))
    return isinstance(site["mask"], Tensor) or any(isinstance(layer._mask, Tensor) for layer in inner)


def layers(fn: Any) -> list[Any]:
    """A distribution, and those inside its reinterpreted, masked and cut off wrappers; the innermost is last."""
    nested = [fn]
    while isinstance(nested[-1], torch.distributions.Independent | dist.MaskedDistribution):
        nested.append(nested[-1].base_dist)
    return nested


def root(fn: Any) -> Any:
    """The distribution inside all wrappers and transforms."""
    base = layers(fn)[-1]
    while isinstance(base, torch.distributions.TransformedDistribution):
        base = layers(base.base_dist)[-1]
    return base


_ONE_AT_A_TIME = (dist.MixtureOfDiagNormals, dist.MixtureOfDiagNormalsSharedCovariance)


def draws_of(fn: Any, num_draws: int) -> Tensor:
    """So many draws of a distribution, with gradients where its draws have them: (S, *batch, *event).

    Pyro's mixtures of normals take a batch, but draw of it one at a time: they are widened.
    """
    if isinstance(root(fn), _ONE_AT_A_TIME):
        return fn.expand((num_draws, *fn.batch_shape))()
    return fn((num_draws,))


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
    base = layers(fn)[-1]
    if is_angle(base):
        return constraints.independent(constraints.interval(-math.pi, math.pi), len(base.event_shape))
    return support_of(base)


def is_angle(base: Any) -> bool:
    """Whether a family is one of angles, or a mixture of such."""
    if isinstance(base, torch.distributions.MixtureSameFamily):
        base = layers(base.component_distribution)[-1]
    return isinstance(base, dist.VonMises | dist.SineBivariateVonMises | dist.SineSkewed)


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
    base = layers(site["fn"])[-1]
    return _everywhere(site, _in_support(base, site["value"]), _of_positive_mass(base, site["value"]))


def _everywhere(site: Any, *looks: Tensor | None) -> Tensor | None:
    """Where all looks at the values of a site (..., *batch, *event) found them right, or masked: (..., *batch)."""
    value, found = site["value"], None
    batch_dim = value.dim() - len(site["fn"].event_shape)
    for inside in looks:
        if inside is not None:
            inside = inside | ~scored(site, inside, value.dim() - inside.dim())
            inside = whole_event(inside, batch_dim)
            found = inside if found is None else found & inside
    return found


# Nothing to look at; or matrices, whose draws miss what their check asks by rounding.
UNCHECKED = (
    constraints._Real,
    constraints._CorrCholesky,
    constraints._LowerCholesky,
    constraints._LowerTriangular,
    constraints._Symmetric,
)


def _in_support(base: Any, value: Tensor) -> Tensor | None:
    support = latent_support(base)
    narrowed = is_narrowed(base)
    if support is None or (isinstance(single := innermost(support), UNCHECKED) and not narrowed):
        return None
    if isinstance(single, constraints._Simplex):  # torch asks for a sum within 1e-6 of 1: less than rounding in float32
        return (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < 1e-3)
    if isinstance(base, torch.distributions.MixtureSameFamily):  # draws lie in the support of one component
        scalar = all(not isinstance(bound, Tensor) or bound.dim() == 0 for bound in bounds(single))
        return single.check(value) if scalar else None
    return in_image(base, value) if narrowed else support.check(value)


def in_image(base: Any, value: Tensor) -> Tensor:
    """Whether values are images, under a distribution's transforms, of what its base can draw."""
    looks = []
    for transform in reversed(base.transforms):
        looks.append(transform.codomain.check(value))
        value = transform.inv(value)
    looks.append(_in_support(layers(base.base_dist)[-1], value))
    found = [look for look in looks if look is not None]
    rank = min(look.dim() for look in found)
    return torch.stack([whole_event(look, rank) for look in found]).all(0)


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
    if isinstance(base, torch.distributions.Binomial):
        return ~(_never(base) & (value > 0))
    if isinstance(base, torch.distributions.Multinomial):
        return (~_never(base._categorical) | (value == 0)).all(-1)
    if isinstance(base, torch.distributions.OneHotCategorical):
        return (~_never(base) | (value == 0)).all(-1)
    if isinstance(base, torch.distributions.Categorical):
        index = value.long().clamp(0, base.probs.shape[-1] - 1)[..., None]
        return ~_never(base).expand(*index.shape[:-1], -1).gather(-1, index)[..., 0]
    return None


# --------------------------------------------------------------------------- supports that move with the parameters


class CutOff(dist.Independent):
    """A distribution whose density is zero, and whose gradient is finite, wherever it cannot draw.

    Torch's densities of many families go on there: below the shift of an exponential, below the scale of a Pareto. Ends
    count as inside.
    """

    def __init__(self, base_dist: Any) -> None:
        super().__init__(base_dist, 0, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "CutOff":
        return CutOff(self.base_dist.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast batch shape."""
        base = self.base_dist
        if isinstance(base, torch.distributions.MixtureSameFamily):
            each = cut_off(base.component_distribution).log_prob(value.unsqueeze(value.dim() - len(base.event_shape)))
            return (each + base.mixture_distribution.logits.log_softmax(-1)).logsumexp(-1)
        value = of_full_shape(base, value)
        inside = _everywhere({"fn": base, "value": value, "mask": None}, *_looks_at_data(base, value))
        if inside is None:
            return base.log_prob(value)
        within = over_event(inside, len(base.event_shape))
        if isinstance(base, torch.distributions.Uniform):
            within = torch.zeros_like(within)  # flat, up to its ends
        harmless = a_value(base, value)
        log_prob = base.log_prob(value if harmless is None else torch.where(within, value, harmless))
        return torch.where(inside, log_prob, -math.inf)


def _looks_at_data(base: Any, value: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Whether data are in the support, and of positive mass, as far as the parameters of their family decide it."""
    in_support, of_mass = _in_support(base, value), _of_positive_mass(base, value)
    if isinstance(base, torch.distributions.Multinomial):
        in_support = None  # its density is that of as many draws as a row counts
    if isinstance(base, torch.distributions.Bernoulli) and of_mass is not None:
        of_mass = of_mass | (value == 0)  # a probability of one may be a sigmoid, rounded
    return in_support, of_mass


def cut_off(fn: Any, *, zero_mass: bool = False) -> Any:
    """A distribution that is zero outside of its support, where that may move with its parameters; else itself.

    Args:
        fn: any distribution.
        zero_mass: whether an outcome of probability zero is impossible: it is, if a class or a coin decides it; a
            network's is rounded.
    """
    base = layers(fn)[-1]
    if isinstance(fn, CutOff) or not (zero_mass or _may_depend(type(base))):  # type: ignore[arg-type]
        return fn
    if fn is not base:
        inner = cut_off(fn.base_dist, zero_mass=zero_mass)
        if inner is fn.base_dist:
            return fn
        if isinstance(fn, dist.MaskedDistribution):
            return dist.MaskedDistribution(inner, fn._mask)
        return dist.Independent(inner, fn.reinterpreted_batch_ndims)
    return CutOff(fn) if zero_mass or (may_move(fn) and not _ends_itself(fn)) else fn


@functools.cache
def _may_depend(family: type) -> bool:
    """Whether the support of a family may depend on its parameters."""
    support = getattr(family, "support", None)
    return not isinstance(support, constraints.Constraint) or constraints.is_dependent(support)


def is_cut_off(fn: Any) -> bool:
    """Whether a distribution is zero outside of its support by :func:`cut_off`."""
    return any(isinstance(layer, CutOff) for layer in layers(fn))


def may_miss(fn: Any) -> bool:
    """Whether a value may be impossible, its density zero, at some parameters of a distribution, and not at others."""
    return is_cut_off(fn) or may_move(layers(fn)[-1])


def may_move(base: Any) -> bool:
    """Whether the support of a family depends on its parameters, or may: tensors bound it, or it is narrowed."""
    single = innermost(support_of(base))
    known = type(single).__module__.partition(".")[0] in ("torch", "pyro", "pyrovae", "builtins")
    return not known or any(isinstance(end, Tensor) for end in bounds(single)) or is_narrowed(base)


def _ends_itself(base: Any) -> bool:
    """Whether torch's own density is minus infinity outside of the support, and no error."""
    return isinstance(base, torch.distributions.Binomial) and not base._validate_args


def given_probs(fn: Any) -> bool:
    """Whether a family of masses was given its probabilities, not their logits."""
    base = layers(fn)[-1]
    return isinstance(base, _GIVEN_PROBS) and "probs" in vars(getattr(base, "_categorical", base))


_GIVEN_PROBS = (
    torch.distributions.Bernoulli,
    torch.distributions.Binomial,
    torch.distributions.Categorical,
    torch.distributions.Multinomial,
    torch.distributions.OneHotCategorical,
)


def a_value(base: Any, like: Tensor) -> Tensor | None:
    """A value inside of the support, a number as another is; None where none is known.

    Returns:
        Shape (*batch, *event), or one that can be expanded to it.
    """
    if is_narrowed(base):
        value = a_value(layers(base.base_dist)[-1], like)
        for transform in base.transforms if value is not None else ():
            value = transform(value)
        return value
    single = innermost(latent_support(base))
    if single is None or getattr(single, "is_discrete", True):
        end = next((end for end in bounds(single) if end is not None), 0.0)
        return torch.as_tensor(end, dtype=like.dtype, device=like.device)
    try:
        move = biject_to(single)
    except NotImplementedError:
        return None
    like = like if like.is_floating_point() else like.to(torch.get_default_dtype())
    return move(like.new_zeros(move.inverse_shape(base.batch_shape + base.event_shape))).detach()


def drawn_text(base: Any) -> str:
    """Where a distribution draws, in words."""
    return "-pi to pi" if is_angle(base) else support_text(base)


def support_text(base: Any) -> str:
    """The support of a distribution in words."""
    if is_narrowed(base):
        moved = ", ".join(type(transform).__name__ for transform in base.transforms)
        inner = layers(base.base_dist)[-1]
        return f"{moved} of {type(inner).__name__}, {support_text(inner)}"
    support = innermost(base.support)
    low, high = (None if bound is None else torch.as_tensor(bound) for bound in bounds(support))
    if low is not None and high is not None:
        varies = " at most" if low.min() < low.max() or high.min() < high.max() else ""
        return f"{low.min():g} to {high.max():g}{varies}" + (", whole numbers" if support.is_discrete else "")
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
    """The base measure of a site: "mass" (counting measure, of moved counts too), "density" (Lebesgue), or "factor"."""
    base = layers(fn)[-1]
    while type(base).__name__ == "TransformedDistribution":
        base = layers(base.base_dist)[-1]
    support = support_of(base)
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
