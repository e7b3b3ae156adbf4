"""Rows whose columns have different families: a table as statisticians have them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.events import MixedColumns
from pyrovae.programs.families.continuous import normal_of_scales
from pyrovae.programs.families.counts import negative_binomial
from pyrovae.programs.families.discrete import bernoulli, categorical
from pyrovae.programs.families.family import Family
from pyrovae.programs.families.levels import ordinal
from pyrovae.programs.families.spread import beta, log_normal

# Kind of a column -> how many labels it has, and the family of such columns.
OF_KIND: dict[str, Callable[[int], Family]] = {
    "real": lambda labels: normal_of_scales(),
    "positive": lambda labels: log_normal(),
    "count": lambda labels: negative_binomial(),
    "binary": lambda labels: bernoulli(),
    "ordinal": ordinal,
    "categorical": categorical,
    "proportion": lambda labels: beta(),
}


def of_kinds(kinds: Sequence[tuple[str, int]], means: Sequence[float] = ()) -> Family:
    """The family of a table: for each column that of its kind, columns of one kind together.

    Real columns are normal with learned scales, positive ones log-normal, counts negative binomial, binary ones
    Bernoulli, ordinal ones have cut points, categorical ones logits, proportions are beta.

    Args:
        kinds: of each column its kind, a key of ``OF_KIND``, and how many labels it has.
        means: of each column, about which counts begin; without any they begin at 1.

    Raises:
        InputError: for an unknown kind.

    Example:
        >>> of_kinds([("real", 0), ("ordinal", 5), ("real", 0)]).name
        'mixed(normal(scales learned) x 2, ordinal(5) x 1)'
    """
    unknown = next((kind for kind, _ in kinds if kind not in OF_KIND), None)
    if unknown is not None:
        raise InputError(f"unknown kind '{unknown}' of a column; there are {', '.join(OF_KIND)}")
    families = {(kind, labels): OF_KIND[kind](labels) for kind, labels in kinds}
    counts = [max(mean, 1e-3) for (kind, _), mean in zip(kinds, means, strict=False) if kind == "count"]
    for key in [key for key in families if key[0] == "count" and counts]:
        families[key] = _about(families[key], torch.tensor(counts).log())
    names = [f"{kind}{labels}" if kind in ("ordinal", "categorical") else kind for kind, labels in kinds]
    return mixed([families[key] for key in kinds], names)


def _about(family: Family, offset: Tensor) -> Family:
    """The family with its first parameter counted from an offset, of the shape of an event."""

    def build(event_dim: int, first: Tensor, *others: Tensor) -> TorchDistribution:
        return family.build(event_dim, first + offset.to(first), *others)

    return replace(family, build=build)


def mixed(columns: Sequence[Family], names: Sequence[str] = ()) -> Family:
    """A family for each column of a row, columns independent given the parameters. Masses and densities multiply.

    Args:
        columns: of each column, in their order; columns of one and the same family object are scored together.
        names: of each column, what those scored together are called; their family's name where there are none.

    Raises:
        InputError: if there is no column; of the events, if they are no rows of as many columns.

    References:
        Nazabal, Olmos, Ghahramani & Valera (2020), Handling incomplete heterogeneous data using VAEs, arXiv:1807.03653.

    Example:
        >>> from pyrovae.programs.families import normal, poisson
        >>> real, count = normal(), poisson()
        >>> mixed([real, count, real]).name
        'mixed(normal x 2, poisson x 1)'
    """
    if not columns:
        raise InputError("mixed needs a family for each column, got none")
    places: dict[int, list[int]] = {}
    for place, family in enumerate(columns):
        places.setdefault(id(family), []).append(place)
    kinds = [(columns[where[0]], where) for where in places.values()]
    labels = [names[where[0]] if names else family.name for family, where in kinds]

    def of_each(event_shape: Size) -> Iterator[tuple[Family, Size]]:
        if event_shape != Size([len(columns)]):
            raise InputError(f"mixed has {len(columns)} columns, but events have the shape {tuple(event_shape)}")
        return ((family, Size([len(where)])) for family, where in kinds)

    def shapes(event_shape: Size) -> tuple[Size, ...]:
        return tuple(shape for family, part in of_each(event_shape) for shape in family.shapes(part))

    def build(event_dim: int, *parameters: Tensor) -> MixedColumns:
        given = list(parameters)
        predicted = [[given.pop(0) for _ in family.shapes(Size([len(where)]))] for family, where in kinds]
        parts = [
            family.build(1, *mine, *[given.pop(0) for _ in family.free])
            for (family, _), mine in zip(kinds, predicted, strict=True)
        ]
        return MixedColumns(parts, [where for _, where in kinds], labels)

    free = tuple(
        partial(_initial, family, len(where), number) for family, where in kinds for number in range(len(family.free))
    )
    name = ", ".join(f"{family.name} x {len(where)}" for family, where in kinds)
    return Family(f"mixed({name})", shapes, build, free=free)


def _initial(family: Family, num_columns: int, number: int, _: Size) -> Tensor:
    return family.initial(Size([num_columns]))[number]
