"""Rows whose columns have different families: a table as statisticians have them."""

from collections.abc import Iterator, Sequence
from functools import partial

from torch import Size, Tensor

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.events import MixedColumns
from pyrovae.programs.families.family import Family


def mixed(columns: Sequence[Family]) -> Family:
    """A family for each column of a row, columns independent given the parameters. Masses and densities multiply.

    Args:
        columns: of each column, in their order; columns of one and the same family object are scored together.

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
        return MixedColumns(parts, [where for _, where in kinds])

    free = tuple(
        partial(_initial, family, len(where), number) for family, where in kinds for number in range(len(family.free))
    )
    name = ", ".join(f"{family.name} x {len(where)}" for family, where in kinds)
    return Family(f"mixed({name})", shapes, build, free=free)


def _initial(family: Family, num_columns: int, number: int, _: Size) -> Tensor:
    return family.initial(Size([num_columns]))[number]
