"""The rows of a table in three parts: by a seeded permutation, by groups that stay whole, or by time."""

from datetime import datetime

import numpy as np

from pyrovae.base.errors import InputError
from pyrovae.data.memmap import Array
from pyrovae.data.named import PARTS
from pyrovae.data.tables.reading import Raw, Table

Parts = dict[str, Array]  # part -> (n,) int64, its rows
Fractions = tuple[float, float, float]


def by_permutation(table: Table, splits: Fractions, seed: int) -> Parts:
    """A permutation of the rows cut in three, as for other files of rows."""
    num_rows = len(table.rows)
    train, valid, _ = sizes(num_rows, splits, table.name)
    order = np.random.RandomState(seed).permutation(num_rows)
    return _cut(table, order, (train, train + valid), "rows", splits)


def sizes(num_data: int, splits: Fractions, name: str) -> tuple[int, int, int]:
    """How many rows are in each part, of validation and test one at least.

    Raises:
        InputError: naming the data, where none is left to train.
    """
    valid, test = (max(1, round(num_data * fraction)) for fraction in splits[1:])
    if num_data - valid - test < 1:
        raise InputError(
            f"{name}: expected rows enough for three splits of {splits}, got {num_data}; give more rows or other splits"
        )
    return num_data - valid - test, valid, test


def by_group(table: Table, group: str, splits: Fractions, seed: int) -> Parts:
    """Groups in a permutation cut in three: no group is in two parts.

    Raises:
        InputError: for a row without a group, and for groups too few.
    """
    raw = _complete(table, group, "group")
    names, members = np.unique(raw.cells.astype(str), return_inverse=True)
    order = np.random.RandomState(seed).permutation(len(names))
    filled = np.cumsum(np.bincount(members, minlength=len(names))[order]) / len(members)
    ends = [int(np.searchsorted(filled, sum(splits[: part + 1]) - 1e-9)) + 1 for part in range(2)]
    first = min(max(ends[0], 1), len(names) - 2)
    second = min(max(ends[1], first + 1), len(names) - 1)
    groups = _cut(table, order, (first, second), "groups", splits)
    return {part: np.isin(members, chosen).nonzero()[0] for part, chosen in groups.items()}


def by_time(table: Table, time: str, splits: Fractions) -> Parts:
    """The earliest rows train and the latest test; rows of one time are in one part, the later.

    Raises:
        InputError: for a row without a time, and for times too few.
    """
    times = _times(table, _complete(table, time, "time"))
    order = np.argsort(times, kind="stable")
    sorted_times, num_rows = times[order], len(order)
    ends = [round(num_rows * sum(splits[: part + 1])) for part in range(2)]
    first, second = (int((sorted_times < sorted_times[min(end, num_rows - 1)]).sum()) for end in ends)
    return _cut(table, order, (first, second), f'different times in "{time}"', splits)


def _times(table: Table, raw: Raw) -> Array:
    """Times that sort as time goes: numbers as they are, text by what it says.

    Raises:
        InputError: for text that is not a date or a time as ISO 8601 writes it: sorted as text it would go astray.
    """
    if not raw.is_text:
        return raw.cells
    try:
        return np.array([datetime.fromisoformat(str(cell)).timestamp() for cell in raw.cells])
    except ValueError as error:
        raise InputError(
            f'{table.name}: expected times in column "{raw.name}" as numbers or as ISO 8601 writes them, 2020-01-31, '
            f"got text that says something else ({error}); write them so, or number them"
        ) from error


def _complete(table: Table, name: str, role: str) -> Raw:
    raw = table.column(name, role)
    if raw.missing.any():
        raise InputError(
            f'{table.name}: the {role} column "{name}" is missing in {table.place(raw.missing)}; fill it in, or leave '
            "these rows out"
        )
    return raw


def _cut(table: Table, order: Array, ends: tuple[int, int], what: str, splits: Fractions) -> Parts:
    """An order cut at two places."""
    parts = dict(zip(PARTS, np.split(order, list(ends)), strict=True))
    if not 0 < ends[0] < ends[1] < len(order):
        raise InputError(
            f"{table.name}: expected {what} enough for three splits of {splits}, got {len(order)}; give more or other "
            "splits"
        )
    return parts
