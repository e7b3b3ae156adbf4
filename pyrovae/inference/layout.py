"""How K particles of n data lie in the tensors of a run, and how latents are put into it.

Outside, a value is (K, n, ...). In a vectorized run particles are one more plate on the left of all others; in a tiled
one they are K copies of the batch along the plate of the data.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.inference.pairs import Program, num_rows
from pyrovae.inference.structure import Structure, layers
from pyrovae.inference.terms import tiled_args, to_rows, to_table

Values = dict[str, Tensor]  # latent site -> (K, n, *plates inside a datum, *event)


class Site(NamedTuple):
    """One latent site, as a plain run of the model shows it."""

    batch_dim: int  # dimensions of plates that its values have
    event_dim: int
    shape: torch.Size  # of one particle of one datum on the real line: (*plates inside a datum, *event)
    is_movable: bool  # whether there is a transform from the real line
    is_discrete: bool
    family: str


class Run:
    """One run of a program on K particles of n data: how they lie in its tensors."""

    def __init__(self, structure: Structure, args: Sequence[Any], num_particles: int, *, vectorized: bool) -> None:
        self.structure, self.num_data, self.num_particles = structure, num_rows(args), num_particles
        self.vectorized, self.args = vectorized, args if vectorized else tiled_args(args, num_particles)

    def trace(self, program: Program) -> Trace:
        if self.vectorized:
            program = pyro.plate("_particles", self.num_particles, dim=-self.structure.depth - 1)(program)
        return poutine.trace(program).get_trace(*self.args)

    def table(self, log_prob: Tensor) -> Tensor:
        """Sums over all plates but those of particles and data: -> (K, n)."""
        if self.vectorized:
            return to_table(log_prob, self.structure, self.num_particles, self.num_data)
        return to_rows(log_prob, self.structure.dim).reshape(self.num_particles, self.num_data)

    def lift(self, value: Tensor, site: Site) -> Tensor:
        """A value as the program holds it -> (K, n, ...)."""
        depth = self.structure.depth + self.vectorized
        batch_dim = depth if self.vectorized else site.batch_dim
        value = value.reshape((1,) * (depth - batch_dim) + value.shape)
        value = value.movedim(depth + self.structure.dim, int(self.vectorized))
        return value if self.vectorized else value.unflatten(0, (self.num_particles, self.num_data))

    def place_all(self, values: Values, described: Mapping[str, Site]) -> Values:
        """Values (K, n, ...) -> as the program holds them."""
        return {name: self._place(value, described[name]) for name, value in values.items()}

    def _place(self, value: Tensor, site: Site) -> Tensor:
        depth = self.structure.depth + self.vectorized
        value = value if self.vectorized else value.flatten(0, 1)
        value = value.movedim(int(self.vectorized), depth + self.structure.dim)
        return value if self.vectorized else value.reshape(value.shape[depth - site.batch_dim :])


class Placed(Messenger):
    """Latent sites take the values given here instead of draws."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values
        self.log_jacobians: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.value(msg["fn"], self.values[msg["name"]])
            msg["done"] = True

    def value(self, fn: Any, given: Tensor) -> Tensor:
        return given


class OnRealLine(Placed):
    """Latent sites take the images of points on the real line; the Jacobians of the moves are kept."""

    def value(self, fn: Any, given: Tensor) -> Tensor:
        transform = to_support(fn)
        value = transform(given)
        log_jacobian = transform.log_abs_det_jacobian(given, value)
        inner = len(fn.event_shape) - transform.codomain.event_dim  # dimensions that the transform takes one by one
        self.log_jacobians.append(log_jacobian.sum(tuple(range(-inner, 0))) if inner else log_jacobian)
        return value


def to_support(fn: Any) -> Any:
    """The transform from the real line onto the support of a distribution.

    Raises:
        NotImplementedError: if there is none, as for classes, directions and angles.
    """
    support = fn.support
    if type(support).__name__ == "MixtureSameFamilyConstraint":
        support = support.base_constraint  # components share it; torch knows no transform of the mixture's own
    if isinstance(layers(fn)[-1], torch.distributions.VonMises):
        raise NotImplementedError("an angle is on the real line more than once, though torch calls its support real")
    return biject_to(support)


def describe_site(site: Any, structure: Structure) -> Site:
    """What a plain run shows of a latent site."""
    fn, value = site["fn"], site["value"]
    try:
        real, is_movable = to_support(fn).inv(value), True
    except NotImplementedError:
        real, is_movable = value, False
    event_dim = len(fn.event_shape)
    batch_dim = value.dim() - event_dim
    shape = list(real.shape)
    del shape[batch_dim + structure.dim]
    inner = torch.Size([1] * (structure.depth - batch_dim) + shape)
    is_discrete = bool(getattr(fn.support, "is_discrete", False))
    return Site(batch_dim, event_dim, inner, is_movable, is_discrete, type(layers(fn)[-1]).__name__)
