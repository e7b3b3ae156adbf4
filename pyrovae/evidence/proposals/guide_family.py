r"""The guide's own family, freed from its encoder: the class of each site's distribution, its parameters per datum.

A guide says q(z|x) = f(z; encoder(x)). What the family f could do for one datum alone, the parameters free, tells the
error of the family from the error of the encoder.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import transform_to
from torch.distributions.constraints import Constraint, is_dependent

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.local import Family, Local, Parameters, Points, draw_unconstrained, single
from pyrovae.pairs.latents import Joint, Latents
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.supports import draws_of, layers
from pyrovae.pairs.terms import to_table
from pyrovae.pairs.traces import sites_of

# Of two parameters that say the same, the one that is not used.
_REDUNDANT = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}
_NUM_DRAWS = 64  # of the guide, which tell the unit of its locations
Builder = Callable[[Parameters], Any]  # free parameters -> a site's distribution


def own_family(latents: Latents, near: Local) -> Family:
    """The guide's own family with parameters free for each datum; it starts at the guide.

    Each site keeps the class of its distribution; its parameters move in unconstrained space, each under the transform
    of its constraint. A location moves in units of the spread that the guide's draws have over all data.

    Raises:
        InputError: naming the site, where the guide's parameters depend on another draw, its draws carry no gradient,
            or its distribution is not given by parameters (a flow).
    """
    first, second = (sites_of(latents.guide, *latents.args) for _ in range(2))
    spread = latents.split_sites(draw_unconstrained(latents, near.sample, _NUM_DRAWS).std((0, 1)))
    for name in first:
        _require_free_parameters(name, layers(first[name]["fn"])[-1], layers(second[name]["fn"])[-1])
    start, builders = dict[str, Tensor](), dict[str, Builder]()
    for name, site in first.items():
        zeros, builders[name] = _freed(name, site["fn"], latents.structure, spread[name])
        start |= zeros
    return Family("own", start, lambda parameters: _Own(latents, builders, parameters))


class _Own(Local):
    def __init__(self, latents: Latents, builders: dict[str, Builder], parameters: Parameters) -> None:
        self.structure, self.weight = latents.structure, single(latents)
        self.dim = self.structure.depth + self.structure.dim  # of the data, from the left
        self.sites = {name: build(parameters) for name, build in builders.items()}

    def draw(self, num_particles: int) -> Points:
        return {name: draws_of(fn, num_particles).movedim(self.dim + 1, 1) for name, fn in self.sites.items()}

    def log_prob(self, points: Points, joint: Joint) -> Tensor:
        total = joint.log_jacobian
        for name, fn in self.sites.items():
            log_prob = fn.log_prob(joint.values[name].movedim(1, self.dim + 1))
            total = total + to_table(log_prob, self.structure, *total.shape)
        return total


def _parameters(base: Any) -> dict[str, Tensor]:
    """The parameters of a distribution, each said once."""
    names = [name for name in base.arg_constraints if _REDUNDANT.get(name) not in base.arg_constraints]
    return {name: getattr(base, name) for name in names}


def _freed(name: str, fn: Any, structure: Structure, spread: Tensor) -> tuple[Parameters, Builder]:
    """A site's distribution, each of its parameters transform(origin + unit * what is free).

    Returns:
        What is free, (n, ...) zeros for each parameter, and what makes the distribution of it; its batch shape has all
        dimensions of the plates.
    """
    base, dim = layers(fn)[-1], structure.depth + structure.dim
    lacking = (1,) * (structure.depth - len(fn.batch_shape))
    start, places = {}, {}
    for parameter, value in _parameters(base).items():
        transform = transform_to(base.arg_constraints[parameter])
        real = transform.inv(value)
        origin = real.reshape(lacking + real.shape).movedim(dim, 0)  # what the guide says, unconstrained, (n, ...)
        is_location = parameter == "loc" and origin.shape[1:] == spread.shape
        unit = spread if is_location else torch.ones_like(spread.flatten()[0])
        key = f"{name} {parameter}"
        start[key], places[key] = torch.zeros_like(origin), (parameter, transform, origin, unit)

    def build(parameters: Parameters) -> Any:
        values = {
            parameter: transform((origin + unit * parameters[key]).movedim(0, dim))
            for key, (parameter, transform, origin, unit) in places.items()
        }
        freed = type(base)(**values)
        return freed.to_event(len(fn.event_shape) - len(freed.event_shape))

    return start, build


def _require_free_parameters(name: str, base: Any, again: Any) -> None:
    """Demands parameters that can be moved, and that the datum alone decides; ``again`` is from another run."""
    kind = type(base).__name__
    if not base.has_rsample:
        reason = f"draws of {kind} carry no gradient (it has no rsample)"
    elif not _is_rebuilt(base):
        reason = f"{kind} is not given by parameters that can be freed one by one (as a flow is not)"
    elif not isinstance(type(base).support, Constraint) or is_dependent(type(base).support):
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
