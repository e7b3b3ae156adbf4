r"""Some entries of an event: their density alone, and draws of the others given them.

.. math:: p(x_o \mid z) = \int p(x_o, x_m \mid z)\, dx_m, \qquad x_m \sim p(x_m \mid x_o, z)

Independent entries are masked one by one. Normals have their marginals and conditionals, mixtures those of their
components, rows of unlike columns those of their parts. Of any other event all entries are observed, or none.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.handlers import inside
from pyrovae.pairs.supports import layers, of_full_shape, support_of
from pyrovae.pairs.traces import family

UNIT_DENSITY = 1 / (2 * math.pi)  # variance of a normal whose density at its mean is one


class Completed(NamedTuple):
    """Events with draws in place of what is missing; and mean and variance of each entry, 0 where it was observed.

    NaN where a distribution has none, as one of classes.
    """

    value: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of_single(cls, fn: Any, value: Tensor, seen: Tensor) -> "Completed":
        """Those of entries that are independent of each other."""
        mean, variance = (_moment(fn, name) for name in ("mean", "variance"))
        return cls.around(fn.sample(), mean, variance, value, seen)

    @classmethod
    def around(cls, drawn: Tensor, mean: Tensor, variance: Tensor, value: Tensor, seen: Tensor) -> "Completed":
        """Draws and moments, but for the entries that were observed."""
        drawn = drawn.to(value.dtype)
        found = (torch.where(seen, kept, new.to(value.dtype)) for kept, new in ((value, mean), (0 * value, variance)))
        return cls(torch.where(seen, value, drawn), *(one.expand_as(drawn) for one in found))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Completed":
        """The same change of all three."""
        return Completed(*map(change, self))


def _moment(fn: Any, name: str) -> Tensor:
    try:
        found = getattr(fn, name)
    except (NotImplementedError, AttributeError):
        found = torch.full((), math.nan)
    return found


class OfEntries(dist.Independent):
    """A distribution of whole events whose density is that of some entries alone; it draws whole events.

    Args:
        base_dist: of whole events.
        marginal: of the same shape, to which entries that are not observed are nothing.
        seen: which are, of the shape of events.
        at_zero: whether they are nothing to it at zero alone; else wherever they are in the support.
    """

    def __init__(self, base_dist: Any, marginal: Any, seen: Tensor, at_zero: bool = True) -> None:
        self.marginal, self.seen, self.at_zero = marginal, seen, at_zero
        super().__init__(base_dist, 0, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OfEntries":
        marginal = self.marginal.expand(torch.broadcast_shapes(batch_shape, self.marginal.batch_shape))
        return OfEntries(self.base_dist.expand(batch_shape), marginal, self.seen, self.at_zero)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of the observed entries in nats, of the broadcast batch shape."""
        return self.marginal.log_prob(torch.where(self.seen, value, 0.0) if self.at_zero else value)


# ------------------------------------------------------------------------------------------------------- forms


class Form(NamedTuple):
    """What is done to one kind of distribution, for events (..., *event) and which entries were observed, as large."""

    of_entries: Callable[[Any, Tensor], Any]  # distribution and seen -> that of the observed entries
    completed: Callable[[Any, Tensor, Tensor], Completed]  # distribution, events and seen
    parts: Callable[[Any], Sequence[Any]] = lambda fn: ()  # distributions that it is made of, which need a form too


def form_of(fn: Any) -> Form | None:
    """The form of a distribution that has one for any choice of entries; None for another."""
    found = next((form for form, applies in _KINDS if applies(fn)), None)
    return found if found is not None and all(form_of(part) is not None for part in found.parts(fn)) else None


def of_entries(fn: Any, seen: Tensor) -> Any:
    """The distribution of the observed entries alone; what the others are does not count, where it is in the support.

    Args:
        fn: of events.
        seen: which entries are observed, (..., *event).

    Returns:
        The same distribution, with another density.
    """
    form = form_of(fn)
    return fn.mask(_whole(fn, seen)) if form is None else form.of_entries(fn, seen)


def completed(fn: Any, value: Tensor, seen: Tensor) -> Completed:
    """Draws of the entries that were not observed given those that were, and their moments."""
    form, value = form_of(fn), of_full_shape(fn, value)
    return Completed.of_single(fn, value, seen) if form is None else form.completed(fn, value, seen)


def check_whole(name: str, fn: Any, seen: Tensor) -> None:
    """Raises InputError, naming the site, where a part of an event is missing whose family has no density of a part."""
    if form_of(fn) is None:
        partly = ~_whole(fn, seen) & _flat(fn, seen).any(-1)
        if partly.any():
            raise InputError(
                f"site '{name}': {family(layers(fn)[-1])} has no density of a part of an event, and in "
                f"{int(partly.sum())} of {partly.numel()} some entries are missing (NaN), not all: take a family of "
                "each entry by itself, as normal, or of low rank, or fill these entries in"
            )


def _flat(fn: Any, seen: Tensor) -> Tensor:
    return seen.flatten(seen.dim() - len(fn.event_shape))


def _whole(fn: Any, seen: Tensor) -> Tensor:
    """Which events are observed: (..., *event) -> (...)."""
    return _flat(fn, seen).all(-1)


# ------------------------------------------------------------------------------------------------- independence


def _independent(fn: Any, seen: Tensor) -> Any:
    return type(fn)(of_entries(fn.base_dist, seen), fn.reinterpreted_batch_ndims)


_SINGLE = Form(lambda fn, seen: fn.mask(seen), Completed.of_single)
_INDEPENDENT = Form(
    _independent,
    lambda fn, value, seen: completed(fn.base_dist, value, seen),
    lambda fn: [fn.base_dist],
)
_MASKED = _INDEPENDENT._replace(
    of_entries=lambda fn, seen: dist.MaskedDistribution(of_entries(fn.base_dist, seen), fn._mask)
)


def _columns(fn: Any, seen: Tensor) -> Any:
    parts = [of_entries(part, seen[..., places]) for part, places in zip(fn.parts, fn.columns, strict=True)]
    return type(fn)(parts, fn.columns, fn.names)


def _columns_completed(fn: Any, value: Tensor, seen: Tensor) -> Completed:
    pairs = zip(fn.parts, fn.columns, strict=True)
    parts = [completed(part, value[..., places], seen[..., places]) for part, places in pairs]
    order = torch.tensor([place for places in fn.columns for place in places]).argsort().to(value.device)
    return Completed(*(torch.cat(each, -1)[..., order] for each in zip(*parts, strict=True)))


_COLUMNS = Form(_columns, _columns_completed, lambda fn: fn.parts)


# ------------------------------------------------------------------------------------------------------ mixtures


def _among_components(fn: Any, of_events: Tensor) -> Tensor:
    return of_events.unsqueeze(of_events.dim() - len(fn.event_shape))


def _mixture(fn: Any, seen: Tensor) -> Any:
    component = of_entries(fn.component_distribution, _among_components(fn, seen))
    shape = component.batch_shape[:-1]
    return OfEntries(fn, dist.MixtureSameFamily(fn.mixture_distribution.expand(shape), component), seen, at_zero=False)


def _mixture_completed(fn: Any, value: Tensor, seen: Tensor) -> Completed:
    """Of a component that is drawn by what the observed entries say of each; moments are those of all."""
    value, seen = _among_components(fn, value), _among_components(fn, seen)
    support = support_of(layers(fn.component_distribution)[-1])
    harmless = None if support is None else inside(support, value)
    filled = torch.where(seen, value, 0.0 if harmless is None else harmless)
    log_weight = fn.mixture_distribution.logits + of_entries(fn.component_distribution, seen).log_prob(filled)
    each = completed(fn.component_distribution, value, seen)
    at, weight = -len(fn.event_shape) - 1, log_weight.softmax(-1).reshape(*log_weight.shape, *[1] * len(fn.event_shape))
    mean = (weight * each.mean).sum(at)
    variance = (weight * (each.variance + (each.mean - mean.unsqueeze(at)).square())).sum(at)
    index = torch.distributions.Categorical(logits=log_weight).sample()
    index = index.reshape(*index.shape, *[1] * (len(fn.event_shape) + 1)).expand_as(each.value.narrow(at, 0, 1))
    return Completed(each.value.gather(at, index).squeeze(at), mean, variance)


_MIXTURE = Form(_mixture, _mixture_completed, lambda fn: [fn.component_distribution])


# ------------------------------------------------------------------------------------------------------- normals


def _marginal_covariance(fn: Any, seen: Tensor) -> Tensor:
    """With an independent entry of density one in the place of each that is missing: (..., D, D)."""
    both = seen[..., None] & seen[..., None, :]
    return torch.where(both, fn.covariance_matrix, (UNIT_DENSITY * (~seen).to(fn.loc)).diag_embed())


def _normal(fn: Any, seen: Tensor) -> Any:
    loc = torch.where(seen, fn.loc, 0.0)
    marginal = dist.MultivariateNormal(loc, _marginal_covariance(fn, seen), validate_args=False)
    return OfEntries(fn, marginal, seen)


def _normal_completed(fn: Any, value: Tensor, seen: Tensor) -> Completed:
    """By a draw of all, corrected by what its observed entries are away (Matheron's rule)."""
    covariance = fn.covariance_matrix
    root = torch.linalg.cholesky(_marginal_covariance(fn, seen))
    drawn = fn.sample()
    away = torch.where(seen, torch.stack([value - drawn, value - fn.loc.expand_as(drawn)]), 0.0)
    moved = (covariance @ torch.cholesky_solve(away[..., None], root)).squeeze(-1)
    across = torch.where(seen[..., None], covariance, 0.0)
    explained = (across * torch.cholesky_solve(across, root)).sum(-2)
    variance = covariance.diagonal(dim1=-2, dim2=-1) - explained
    return Completed.around(drawn + moved[0], fn.loc + moved[1], variance, value, seen)


_NORMAL = Form(_normal, _normal_completed)


def _low_rank(fn: Any, seen: Tensor) -> Any:
    return OfEntries(fn, _factors_of(fn, seen), seen)


def _factors_of(fn: Any, seen: Tensor) -> Any:
    factor = torch.where(seen[..., None], fn.cov_factor, 0.0)
    square = torch.where(seen, fn.cov_diag, UNIT_DENSITY)
    loc = torch.where(seen, fn.loc, 0.0)
    return dist.LowRankMultivariateNormal(loc, factor, square, validate_args=False)


def _low_rank_completed(fn: Any, value: Tensor, seen: Tensor) -> Completed:
    r"""By the posterior of the factors, e ~ N(M^{-1} F_o' D_o^{-1} (x_o - m_o), M^{-1}), M = I + F_o' D_o^{-1} F_o."""
    factor, square, loc = (each.double() for each in (fn.cov_factor, fn.cov_diag, fn.loc))
    seen_factor = torch.where(seen[..., None], factor / square[..., None], 0.0)
    precision = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device) + factor.mT @ seen_factor
    root = torch.linalg.cholesky(precision)
    away = torch.where(seen, value - loc, 0.0)
    center = torch.cholesky_solve(seen_factor.mT @ away[..., None], root)
    noise = torch.randn_like(center)
    drawn = center + torch.linalg.solve_triangular(root.mT, noise, upper=True)
    of_factors = torch.linalg.solve_triangular(root, factor.mT, upper=False).square().sum(-2)
    mean, moved = (loc + (factor @ one).squeeze(-1) for one in (center, drawn))
    own = square.sqrt() * torch.randn_like(moved)
    return Completed.around(moved + own, mean, square + of_factors, value, seen)


_LOW_RANK = Form(_low_rank, _low_rank_completed)


def _shaped(fn: Any, seen: Tensor) -> Any:
    """Events of any shape about a normal over vectors, which scores in a way of its own."""
    marginal = fn.with_parts(lambda flat: _factors_of(flat, _flat(fn, seen)))
    return OfEntries(fn, marginal, seen)


def _shaped_completed(fn: Any, value: Tensor, seen: Tensor) -> Completed:
    found = _low_rank_completed(fn.flat, _flat(fn, value), _flat(fn, seen))
    return found.map(lambda flat: flat.unflatten(-1, fn.event_shape))


_SHAPED = Form(_shaped, _shaped_completed)

_KINDS: tuple[tuple[Form, Callable[[Any], bool]], ...] = (
    (_SINGLE, lambda fn: not fn.event_shape),
    (_INDEPENDENT, lambda fn: isinstance(fn, torch.distributions.Independent)),
    (_MASKED, lambda fn: isinstance(fn, dist.MaskedDistribution)),
    (_COLUMNS, lambda fn: hasattr(fn, "parts") and hasattr(fn, "columns")),
    (_MIXTURE, lambda fn: isinstance(fn, torch.distributions.MixtureSameFamily)),
    (_NORMAL, lambda fn: type(fn) is dist.MultivariateNormal),
    (_LOW_RANK, lambda fn: type(fn) is dist.LowRankMultivariateNormal),
    (_SHAPED, lambda fn: hasattr(fn, "flat") and hasattr(fn, "with_parts")),
)
