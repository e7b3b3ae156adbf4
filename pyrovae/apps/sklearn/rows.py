"""Rows as scikit-learn hands them over become a data set with its protocol, and come back in their own unit.

Numbers that are scored by a density on the real line are standard scores inside, and the log Jacobian is kept.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pyrovae as pv
from pyrovae.base.choices import parsed
from pyrovae.base.errors import InputError
from pyrovae.data import load_like
from pyrovae.data.preprocessing import Recipe, dataset
from pyrovae.data.split import Dataset, Split, as_split
from pyrovae.data.tables.assembly import TableOptions, table_dataset
from pyrovae.data.tables.kinds import declared_of, is_number
from pyrovae.data.tables.names import IGNORED, KINDS, Declared, parse_columns
from pyrovae.data.tables.reading import Raw, Table, from_frame, is_frame
from pyrovae.data.user_files import Rows
from pyrovae.pairs.supports import whole_line
from pyrovae.programs.families import FAMILIES

NAME = "X"  # what errors and protocols call the rows
FOUND = "found"
Array = NDArray[Any]


def unlike_numbers(X: Any) -> Table | None:
    """The table of a frame some of whose columns are no plain numbers: text, categories, times; else None."""
    if not is_frame(X):
        return None
    table = from_frame(X, NAME)
    return table if any(one.is_text or one.levels or one.is_time for one in table.columns) else None


def table_of(values: Array, names: Array | None) -> Table:
    """The table of numbers (N, D), its columns named, or x0, x1, ..."""
    called = [f"x{place}" for place in range(values.shape[1])] if names is None else list(names)
    columns = tuple(Raw(name, values[:, place].astype(np.float64)) for place, name in enumerate(called))
    return Table(NAME, columns, np.arange(len(values)))


def dataset_of(
    table: Table,
    parts: Mapping[str, Array],
    *,
    likelihood: str | None,
    columns: Mapping[str, Declared] | str | None,
    standardize: bool | None,
) -> Dataset:
    """The data set of a table whose rows are divided: of columns, each with its kind, or of numbers as they are found.

    Args:
        table: of all rows.
        parts: "train", "valid" and "test" -> row numbers, which may be in several.
        likelihood: its name; None is the natural one.
        columns: kinds, see :class:`~pyrovae.sklearn.VAE`.
        standardize: None is where the likelihood is a density on the real line.

    Raises:
        InputError: naming the column.
    """
    if _has_kinds(table, likelihood, columns, standardize):
        options = TableOptions(columns=_declared(table, columns), standardize=standardize)
        return table_dataset(table, options, dict(parts), 0)
    values = _numbers(table)
    return dataset(NAME, {part: Rows(values[index]) for part, index in parts.items()}, Recipe("none", 1.0, None))


def _has_kinds(table: Table, likelihood: str | None, columns: Any, standardize: bool | None) -> bool:
    """Whether columns have kinds, and scales of their own."""
    if columns is not None or any(one.is_text or one.is_time for one in table.columns):
        return True
    if standardize is not None:
        return standardize
    return likelihood is None or _on_line(likelihood, len(table.columns))


def _on_line(likelihood: str, num_columns: int) -> bool:
    """Whether a likelihood is a density on the real line, or made of columns."""
    choice, options = parsed(likelihood, FAMILIES)
    if choice.of_columns:
        return True
    decoder = pv.Conditional(choice(1, **options), num_columns, pv.networks.mlp(1, 1, seed=0))
    return whole_line(decoder(torch.zeros(1, 1)))


def _declared(table: Table, columns: Mapping[str, Declared] | str | None) -> dict[str, Declared]:
    """What is said of columns, numbers of which nothing is said being real."""
    if columns == FOUND:
        return {}
    if isinstance(columns, str) and columns in KINDS:
        return dict.fromkeys(table.names, columns)
    said = declared_of(table, parse_columns(columns) if isinstance(columns, str) else columns or {})
    if IGNORED in said.values():
        raise InputError(f"{NAME}: a column cannot be {IGNORED} here: select columns before (ColumnTransformer)")
    plain = [one.name for one in table.columns if not (one.is_text or one.levels or one.is_time)]
    return dict.fromkeys(plain, "real") | said


def later(table: Table, like: Dataset) -> Split:
    """Later rows, with the labels and the scales of those that were fitted.

    Raises:
        InputError: naming the column and the row.
    """
    if like.columns is not None:
        return load_like(table, like)
    return as_split(torch.from_numpy(_numbers(table)))


def _numbers(table: Table) -> Array:
    return np.stack([one.cells for one in table.columns], 1).astype(np.float32)


def in_unit(rows: Tensor, like: Dataset) -> Array:
    """Rows (N, D) as served -> in the unit of the source, (N, D): float64, or objects where some labels are text."""
    if like.columns is None:
        return rows.double().cpu().numpy()
    decoded = like.columns.decoded(rows)
    numeric = {one.name: all(map(is_number, one.labels)) for one in like.columns}
    cells = [np.array(decoded[name], float if numeric[name] else object) for name in decoded]
    return np.stack(cells, 1) if all(numeric.values()) else np.stack([one.astype(object) for one in cells], 1)


def any_missing(table: Table) -> bool:
    """Whether a cell is."""
    return any(one.missing.any() for one in table.columns)
