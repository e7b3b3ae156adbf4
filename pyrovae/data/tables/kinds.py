"""What a column of a table is: its kind, and the labels and the scale by which its values are numbers.

What kinds there are says :mod:`pyrovae.data.tables.names`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, nearest
from pyrovae.base.forms.tables import TextTable
from pyrovae.data.tables.names import IGNORED, Declared, check_kinds
from pyrovae.data.tables.reading import Raw, Table
from pyrovae.data.user_files import number

FEWEST_NAMES = 100  # rows of which no two have one number, so that it may be the name of each
MANY_LABELS = 20


@dataclass(frozen=True)
class Kind:
    """What one column is, and how its values become numbers.

    Attributes:
        name: of the column.
        kind: a key of :data:`~pyrovae.data.tables.names.KINDS`.
        labels: of a binary, ordinal or categorical column: the value k stands for ``labels[k]``.
        shift, scale: the value is (source - shift) / scale; 0 and 1 but for real and positive columns.
        is_found: whether the kind was found from the data, not declared.
        num_missing: cells of the column that are empty.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    shift: float = 0.0
    scale: float = 1.0
    is_found: bool = False
    num_missing: int = 0

    def about(self) -> str:
        """Its labels or its scale, in words."""
        if self.kind == "ordinal":
            return " < ".join(self.labels)
        if self.labels:
            return ", ".join(self.labels)
        if (self.shift, self.scale) == (0.0, 1.0):
            return "as found"
        return f"divided by {self.scale:.4g}" if not self.shift else f"mean {self.shift:.4g}, sd {self.scale:.4g}"


@dataclass(frozen=True)
class Columns:
    """The kinds of the columns of a table, in their order.

    Example:
        >>> columns = Columns((Kind("age", "real", shift=40.0, scale=10.0), Kind("smokes", "binary", ("no", "yes"))))
        >>> columns.summary()
        '1 real, 1 binary'
        >>> columns.decoded(torch.tensor([[0.5, 1.0]]))
        {'age': [45.0], 'smokes': ['yes']}
    """

    kinds: tuple[Kind, ...]

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self.kinds)

    def __getitem__(self, column: int | str) -> Kind:
        """A column by its place or its name."""
        if isinstance(column, int):
            return self.kinds[column]
        if column not in self.names:
            raise InputError(f'no column "{column}";{nearest(column, self.names) or f" there are {self.names}"}')
        return self.kinds[self.names.index(column)]

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.names, "column")) + 2
        table = [("column", f"<{width}", ""), ("kind", "<13", ""), ("missing", ">7", ",d"), ("  values", "<1", "")]
        cells = [(one.name, one.kind, one.num_missing, f"  {one.about()}{' (found)' * one.is_found}") for one in self]
        return "\n".join(line.rstrip() for line in str(TextTable(table, cells)).splitlines())

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [one.name for one in self.kinds]

    @property
    def shift(self) -> tuple[float, ...]:
        """Of each column."""
        return tuple(one.shift for one in self.kinds)

    @property
    def scale(self) -> tuple[float, ...]:
        """Of each column."""
        return tuple(one.scale for one in self.kinds)

    def summary(self) -> str:
        """How many there are of each kind: "11 real, 1 ordinal"."""
        return ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in self).items())

    def groups(self) -> dict[str, list[int]]:
        """The columns that a mixed likelihood scores together: what it calls them -> their places."""
        found: dict[str, list[int]] = {}
        for place, one in enumerate(self):
            several = one.kind in ("ordinal", "categorical")
            found.setdefault(f"{one.kind}{len(one.labels)}" if several else one.kind, []).append(place)
        return found

    def joined(self, values: Mapping[str, Tensor], site: str = "x") -> Tensor:
        """Rows (..., D) of values drawn at the sites of a mixed likelihood, or at one site of all columns.

        Args:
            values: site -> (..., D_k); sites of other names are passed over.
            site: what the name of each begins with.
        """
        if site in values:
            return values[site]
        groups = self.groups()
        order = torch.tensor([place for places in groups.values() for place in places]).argsort()
        found = [values[f"{site}.{name}"].to(torch.get_default_dtype()) for name in groups]
        return torch.cat(found, -1)[..., order]

    def decoded(self, rows: Any) -> dict[str, list[Any]]:
        """Rows (N, D) as served -> the values of each column in the unit of the source, labels by their names.

        A missing value is None.

        Args:
            rows: a tensor, or a split of these columns: ``data.columns.decoded(data.test[:5])``.
        """
        rows = rows if isinstance(rows, Tensor) else rows.x
        shift, scale = (torch.tensor(each, dtype=torch.float64) for each in (self.shift, self.scale))
        values = rows.double().cpu() * scale + shift
        return {one.name: [_decoded(one, v) for v in values[:, d].tolist()] for d, one in enumerate(self)}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The kinds by the names of their columns, as plain values fit for JSON."""
        return {one.name: {**asdict(one), "labels": list(one.labels)} for one in self}


def _decoded(kind: Kind, value: float) -> Any:
    if value != value:
        return None
    return kind.labels[round(value)] if kind.labels else value


def declared_of(table: Table, declared: Mapping[str, Declared]) -> dict[str, Declared]:
    """What is declared of each column, by its own name or by a pattern such as ``"[A-E][1-5]"`` or ``"*"``.

    A name comes before patterns, and of patterns that fit the first counts.

    Raises:
        InputError: for an unknown kind, for a name that is not there, and for a pattern that fits no column.
    """
    check_kinds(declared)
    found = {}
    for pattern in declared:
        if pattern in table.names or not set(pattern) & set("*?["):
            found[table.column(pattern).name] = declared[pattern]
    for pattern in declared:
        fitting = [name for name in table.names if fnmatchcase(name, pattern)]
        if not fitting and pattern not in found:
            raise InputError(f'{table.name}: no column fits "{pattern}"; there are {", ".join(table.names)}')
        for name in fitting:
            found.setdefault(name, declared[pattern])
    return found


def kind_of(table: Table, raw: Raw, declared: Declared | None) -> Kind:
    """The kind of a column, as declared or as it is plain, with its labels where the source or the caller names them.

    Plain is: text (categorical; binary where it has two values), whole numbers from 0 (count; binary where there are
    two), an ordered category of a frame (ordinal); all other numbers are real.

    Raises:
        InputError: for numbers and text in one column, and text of too many values to be classes.
    """
    if declared is None:
        return replace(_found(table, raw), is_found=True)
    if not isinstance(declared, str):
        return Kind(raw.name, "ordinal", tuple(map(str, declared)))
    return Kind(raw.name, declared, raw.levels if declared == "ordinal" else ())


def _found(table: Table, raw: Raw) -> Kind:
    distinct = set(raw.cells[~raw.missing].tolist())
    if raw.levels:
        return Kind(raw.name, "ordinal", raw.levels)
    if raw.is_text:
        _check_text(table, raw, len(distinct))
        return Kind(raw.name, "binary" if len(distinct) == 2 else "categorical")
    if raw.is_time:
        raise InputError(
            f'{table.name}: column "{raw.name}" holds times; split the rows by it (time="{raw.name}"), leave it out '
            f"(kind {IGNORED}), or declare it real: seconds"
        )
    if not all(value >= 0 and value.is_integer() for value in distinct):
        return Kind(raw.name, "real")
    if len(distinct) == int((~raw.missing).sum()) >= FEWEST_NAMES:
        raise InputError(
            f'{table.name}: column "{raw.name}" holds another whole number in each row: are they numbers of the rows? '
            f"Leave it out (kind {IGNORED}), or declare it count or real"
        )
    return Kind(raw.name, "binary" if len(distinct) == 2 else "count")


def _check_text(table: Table, raw: Raw, num_distinct: int) -> None:
    texts = [(i, cell) for i, cell in enumerate(raw.cells) if cell is not None and not is_number(cell)]
    if texts and len(texts) < int((~raw.missing).sum()):
        odd = texts[0][0]
        raise InputError(
            f'{table.name}: expected numbers, or text alone, in column "{raw.name}", got "{raw.cells[odd]}" in row '
            f"{table.rows[odd]} among numbers; correct the cell, or declare the column categorical"
        )
    if num_distinct > max(MANY_LABELS, len(raw.cells) // 10):
        raise InputError(
            f'{table.name}: column "{raw.name}" of text holds {num_distinct} different values in {len(raw.cells)} '
            f"rows; leave it out (kind {IGNORED}), or declare it categorical"
        )


def is_number(cell: str) -> bool:
    """Whether text is a number."""
    return number(cell) is not None
