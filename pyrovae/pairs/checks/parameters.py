"""The numbers that distributions are made of: one that is NaN, or beyond what a family takes, is named by its site."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import is_dependent
from torch.distributions.utils import lazy_property

from pyrovae.base.errors import InputError
from pyrovae.pairs.supports import ends, is_masked, layers
from pyrovae.pairs.traces import Program, Sites, plain_traces

ROUNDING = 1e-4  # by which a number between two bounds, a probability, may be beyond them


def check_parameters(program: str, found: Sites, dim: int | None = None) -> None:
    """Demands numbers that the families of sites can have; masked sites are not looked at.

    Those of a model mean something where it ran on draws of its own: what a guide draws may be impossible to it.

    Args:
        program: "model" or "guide".
        found: its sites.
        dim: dimension of the data plate (negative), where it is known.

    Raises:
        FloatingPointError: naming program and site, where one is NaN.
        InputError: likewise, where one is beyond its bounds: a scale below zero.
    """
    for name, site in found.items():
        for one in () if is_masked(site) else _parameters(site["fn"]):
            bad = one.bad()
            if not bad.any():
                continue
            data = "" if dim is None else one.of_data(bad, site["fn"], dim)
            if one.value[bad].isnan().any():
                raise FloatingPointError(
                    f"site '{name}': log density in the {program} is nan{data}; look at its parameters there: "
                    f"{one.text} is nan"
                )
            raise InputError(
                f"site '{name}' of the {program}: {one.text} is {one.value[bad][0].item():g}{data}, and must be "
                f"{one.bounds}. Make it by exp, softplus or sigmoid, or give pyro.param its constraint"
            )


def explained(error: Exception, model: Program, guide: Program, args: Sequence[Any]) -> Exception | None:
    """What :func:`check_parameters` says of a run in which Pyro's validation refused a distribution; None elsewhere."""
    if not str(error).startswith("Expected parameter"):
        return None
    with pyro.validation_enabled(False):
        run = plain_traces(model, guide, args)
        try:
            check_parameters("guide", run.drawn)
            check_parameters("model", run.joint)
        except (InputError, FloatingPointError) as named:
            return named
    return None


class _Parameter(NamedTuple):
    family: Any
    name: str
    constraint: Any
    value: Tensor

    @property
    def text(self) -> str:
        return f"{self.name} of {type(self.family).__name__}"

    @property
    def bounds(self) -> str:
        low, high = ends(self.constraint)
        if low is not None and high is not None:
            return f"between {low:g} and {high:g}"
        return f"above {low:g}" if high is None else f"below {high:g}"

    def bad(self) -> Tensor:
        """Where it is NaN or beyond its bounds."""
        (low, high), bad = ends(self.constraint), self.value.isnan()
        slack = 0.0 if low is None or high is None else ROUNDING
        if low is not None:
            bad = bad | (self.value < low - slack)
        return bad if high is None else bad | (self.value > high + slack)

    def of_data(self, bad: Tensor, fn: Any, dim: int) -> str:
        """For how many data it is bad, in words; nothing where its dimensions do not show them."""
        outer, inner = tuple(fn.batch_shape), tuple(self.family.batch_shape)
        if inner[: len(outer)] != outer:
            return ""
        each = bad.flatten(bad.dim() - self.constraint.event_dim).any(-1) if self.constraint.event_dim else bad
        rows = each.expand(inner).movedim(len(outer) + dim, 0).reshape(outer[dim], -1).any(1)
        return f" for {int(rows.sum())} of {len(rows)} data"


def _parameters(fn: Any) -> Iterator[_Parameter]:
    """The real numbers that a distribution was given, and those inside it."""
    base = layers(fn)[-1]
    constraints = getattr(type(base), "arg_constraints", {})
    for name, constraint in constraints.items() if isinstance(constraints, Mapping) else ():
        derived = isinstance(getattr(type(base), name, None), lazy_property) and name not in vars(base)
        value = None if derived or is_dependent(constraint) else getattr(base, name, None)
        if isinstance(value, Tensor) and value.is_floating_point():
            yield _Parameter(base, name, constraint, value)
    for inner in vars(base).values():
        if isinstance(inner, Distribution):
            yield from _parameters(inner)
