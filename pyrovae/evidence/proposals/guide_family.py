r"""The guide's own family, freed from its encoder: the class of each site's distribution, its parameters per datum.

A guide says q(z|x) = f(z; encoder(x)). What the family f could do for one datum alone, the parameters free, tells the
error of the family from the error of the encoder.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform, transform_to
from torch.distributions.constraints import Constraint, is_dependent

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.local import Family, Local, Parameters, Points, draw_unconstrained, single
from pyrovae.pairs.latents import Joint, Latents
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.supports import layers
from pyrovae.pairs.terms import to_table
from pyrovae.pairs.traces import sites_of

# Of two parameters that say the same, the one that is not used.
_REDUNDANT = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}
_NUM_DRAWS = 64  # of the guide, which tell the unit of its locations


class _Freed(NamedTuple):
    """One site of the guide with free parameters: each is transform(origin + unit * what is free)."""

    kind: type
    event_dim: int
    transforms: dict[str, Transform]  # parameter -> the map from unconstrained space to where it may be
    origin: dict[str, Tensor]  # parameter -> what the guide says, unconstrained, (n, ...)
    unit: dict[str, Tensor]


def own_family(latents: Latents, near: Local) -> Family:
    """The guide's own family with parameters free for each datum; it starts at the guide.

    Each site keeps the class of its distribution; its parameters move in unconstrained space, each under the transform
    of its constraint. A location moves in units of the spread that the guide's draws have over all data.

    Args:
        latents: of the data.
        near: the guide, as every family gets what it starts near.

    Raises:
        InputError: naming the site, where the guide's parameters depend on another draw, its draws carry no gradient,
            or its distribution is not given by parameters (a flow).
    """
    first, second = (sites_of(latents.guide, *latents.args) for _ in range(2))
    spread = latents.split_sites(draw_unconstrained(latents, near.sample, _NUM_DRAWS).std((0, 1)))
    for name in first:
        _require_free_parameters(name, layers(first[name]["fn"])[-1], layers(second[name]["fn"])[-1])
    freed = {name: _free(site["fn"], latents.structure, spread[name]) for name, site in first.items()}
    start = {
        _key(name, parameter): torch.zeros_like(origin)
        for name, site in freed.items()
        for parameter, origin in site.origin.items()
    }
    return Family("own", start, lambda parameters: _Own(latents, freed, parameters))


class _Own(Local):
    def __init__(self, latents: Latents, freed: dict[str, _Freed], parameters: Parameters) -> None:
        super().__init__(single(latents))
        self.structure = latents.structure
        self.dim = self.structure.depth + self.structure.dim  # of the data, from the left
        self.sites = {name: self._distribution(name, site, parameters) for name, site in freed.items()}

    def draw(self, num_particles: int) -> Points:
        return {name: fn.rsample((num_particles,)).movedim(self.dim + 1, 1) for name, fn in self.sites.items()}

    def log_prob(self, points: Points, joint: Joint) -> Tensor:
        total = joint.log_jacobian
        for name, fn in self.sites.items():
            log_prob = fn.log_prob(joint.values[name].movedim(1, self.dim + 1))
            total = total + to_table(log_prob, self.structure, *total.shape)
        return total

    def _distribution(self, name: str, site: _Freed, parameters: Parameters) -> Any:
        values = {}
        for parameter, transform in site.transforms.items():
            real = site.origin[parameter] + site.unit[parameter] * parameters[_key(name, parameter)]
            values[parameter] = transform(real.movedim(0, self.dim))
        base = site.kind(**values)
        return base.to_event(site.event_dim - len(base.event_shape))


def _key(site: str, parameter: str) -> str:
    return f"{site} {parameter}"


def _parameters(base: Any) -> dict[str, Tensor]:
    """The parameters of a distribution, each said once."""
    names = [name for name in base.arg_constraints if _REDUNDANT.get(name) not in base.arg_constraints]
    return {name: getattr(base, name) for name in names}


def _free(fn: Any, structure: Structure, spread: Tensor) -> _Freed:
    """A site's distribution with parameters (n, ...); its batch shape is given all dimensions of the plates."""
    base = layers(fn)[-1]
    lacking = (1,) * (structure.depth - len(fn.batch_shape))
    transforms, origin, unit = {}, {}, {}
    for name, value in _parameters(base).items():
        transforms[name] = transform_to(base.arg_constraints[name])
        real = transforms[name].inv(value)
        origin[name] = real.reshape(lacking + real.shape).movedim(structure.depth + structure.dim, 0)
        is_location = name == "loc" and origin[name].shape[1:] == spread.shape
        unit[name] = spread if is_location else torch.ones_like(spread.flatten()[0])
    return _Freed(type(base), len(fn.event_shape), transforms, origin, unit)


def _require_free_parameters(name: str, base: Any, again: Any) -> None:
    """Demands parameters that can be moved, and that the datum alone decides; ``again`` is from another run."""
    kind = type(base).__name__
    if not base.has_rsample:
        reason = f"draws of {kind} carry no gradient (it has no rsample)"
    elif not _is_rebuilt(base):
        reason = f"{kind} is not given by parameters that can be freed one by one (as a flow is not)"
    elif not _has_one_support(type(base)):
        reason = f"the support of {kind} depends on its parameters, so gradients do not tell how to move them"
    elif not all(
        torch.allclose(a, b) for a, b in zip(_parameters(base).values(), _parameters(again).values(), strict=True)
    ):
        reason = "its parameters depend on another draw, so no distribution of it stands for one datum"
    else:
        return
    raise InputError(
        f"site '{name}' of the guide: {reason}; the gap cannot be split into approximation and amortization. "
        "Leave 'own' out of families: the total gap and richer families stay"
    )


def _has_one_support(kind: type) -> bool:
    return isinstance(kind.support, Constraint) and not is_dependent(kind.support)  # type: ignore[attr-defined]


def _is_rebuilt(base: Any) -> bool:
    """Whether a distribution is its class called with its parameters, all of them free."""
    value = base.sample()
    try:
        parameters = _parameters(base)
        moved = {name: transform_to(base.arg_constraints[name]) for name in parameters}
        rebuilt = type(base)(**{name: moved[name](moved[name].inv(value)) for name, value in parameters.items()})
        return bool(parameters) and torch.allclose(rebuilt.log_prob(value), base.log_prob(value), rtol=1e-3, atol=1e-3)
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        return False
