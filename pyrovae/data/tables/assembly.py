"""A table becomes a data set: kinds, labels and parts first, then scales from the training rows alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pyrovae.base.errors import InputError
from pyrovae.data.encoding import Column
from pyrovae.data.memmap import Array
from pyrovae.data.named import PARTS
from pyrovae.data.protocol import describe
from pyrovae.data.split import Dataset, Split
from pyrovae.data.tables import parts as dividing
from pyrovae.data.tables.coding import as_found, coded, with_labels
from pyrovae.data.tables.kinds import Columns, declared_of, kind_of
from pyrovae.data.tables.names import IGNORED, MASSES, Declared, parse_columns
from pyrovae.data.tables.reading import Table, is_table, read_table
from pyrovae.data.tables.scaling import scaled, served


@dataclass(frozen=True)
class TableOptions:
    """What may be asked of a table; :func:`~pyrovae.data.load` says what each means.

    Raises:
        InputError: for what no table could be asked.
    """

    columns: Mapping[str, Declared] | str | None = None
    covariates: Sequence[str] | str = ()
    standardize: bool | None = None
    group: str | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.columns, (Mapping, str, type(None))):
            raise InputError(f'expected columns as a dict, {{"age": "count"}}, or text, got {self.columns!r}')
        if not (isinstance(self.covariates, (Sequence)) and all(isinstance(name, str) for name in self.covariates)):
            raise InputError(f'expected covariates as a list of names, ["age"], got {self.covariates!r}')
        if self.standardize not in (None, True, False):
            raise InputError(f"expected standardize True or False, got {self.standardize!r}")

    @property
    def declared(self) -> Mapping[str, Declared]:
        """What is said of columns."""
        return parse_columns(self.columns) if isinstance(self.columns, str) else self.columns or {}

    @property
    def beside(self) -> list[str]:
        """The covariates."""
        if isinstance(self.covariates, str):
            return [name for name in map(str.strip, self.covariates.split(",")) if name]
        return list(self.covariates)

    def given(self) -> list[str]:
        """The names of those that were."""
        return [name for name, value in vars(self).items() if value is not None and value != () and value != ""]


def table_dataset(
    source: Any, options: TableOptions, splits: dividing.Fractions | dividing.Parts, seed: int
) -> Dataset:
    """Three splits of a table, of observations alone or with covariates beside them.

    Args:
        source: a path, a frame, or a :class:`~pyrovae.data.tables.reading.Table`.
        options: of :func:`~pyrovae.data.load`.
        splits: fractions of the parts, or the rows of each, which then may be in several.
        seed: of the permutation.

    Raises:
        InputError: naming columns and rows.
    """
    table = read_table(source)
    x, covariates = _chosen(table, options)
    parts = splits if isinstance(splits, dict) else _parts(table, options, splits, seed)
    if options.standardize is not False:
        x, covariates = (_scaled(table, some, parts["train"]) for some in (x, covariates))
    drawn = None if options.time else seed
    train, valid, test = (_split(table, x, covariates, parts[part], part, drawn) for part in PARTS)
    maximum = _maximum(table, x)
    beside = covariates if len(covariates) else None
    return Dataset(table.name, train, valid, test, "table", maximum, None, columns=x, covariates=beside)


def _maximum(table: Table, columns: Columns) -> int | None:
    """The largest value where all are whole numbers from 0; else None."""
    if not all(one.kind in MASSES for one in columns):
        return None
    return int(max(np.nanmax(coded(table, table.column(one.name), one)) for one in columns))


def load_like(source: Any, dataset: Dataset) -> Split:
    """Rows of a later file or frame, with the labels and the scales of a data set that was loaded from a table.

    Args:
        source: a .csv, a .parquet or a frame that has the same columns; others in it are left out.
        dataset: as :func:`~pyrovae.data.load` gave it.

    Returns:
        All rows as one split, ``"all"``: what a fit of that data set can be evaluated on.

    Raises:
        InputError: for a column that is not there, a label that is new, a value that its kind does not allow.
    """
    if dataset.columns is None:
        raise InputError(f"{dataset.name}: expected a data set from a table, got {dataset.range}; load its rows again")
    if not is_table(source):
        raise InputError(f"expected a .csv, a .parquet or a frame, got {source!r}")
    table = read_table(source)
    covariates = dataset.covariates or Columns(())
    return _split(table, dataset.columns, covariates, np.arange(len(table.rows)), "all", None)


def _chosen(table: Table, options: TableOptions) -> tuple[Columns, Columns]:
    """The observed columns and the covariates, labelled."""
    declared = declared_of(table, options.declared)
    covariates = [table.column(name, "covariate").name for name in options.beside]
    _check_covariates(table, covariates, declared)
    aside = {*covariates, options.group, options.time}
    aside |= {name for name, kind in declared.items() if kind == IGNORED}
    names = [name for name in table.names if name not in aside]
    if not names:
        raise InputError(f"{table.name}: expected at least one column that is observed, got none; keep one")
    x, beside = (_labelled(table, some, declared) for some in (names, covariates))
    _check_complete(table, covariates)
    return x, beside


def _check_covariates(table: Table, covariates: Sequence[str], declared: Mapping[str, Declared]) -> None:
    for name in covariates:
        if covariates.count(name) > 1:
            raise InputError(f'{table.name}: the covariate "{name}" is named twice; drop one of them')
        if declared.get(name) == IGNORED:
            raise InputError(f'{table.name}: column "{name}" is both a covariate and {IGNORED}; drop one of them')


def _labelled(table: Table, names: Sequence[str], declared: Mapping[str, Declared]) -> Columns:
    raws = [table.column(name) for name in names]
    return Columns(tuple(with_labels(table, raw, kind_of(table, raw, declared.get(raw.name))) for raw in raws))


def _check_complete(table: Table, covariates: Sequence[str]) -> None:
    for name in covariates:
        missing = table.column(name).missing
        if missing.any():
            raise InputError(
                f'{table.name}: the covariate "{name}" is missing in {table.place(missing)}; both programs are '
                "conditioned on it: fill it in, leave these rows out, or observe the column instead"
            )


def _parts(table: Table, options: TableOptions, splits: dividing.Fractions, seed: int) -> dividing.Parts:
    if options.group and options.time:
        raise InputError(f"{table.name}: expected a split by group or by time, got both; give one of them")
    if options.group:
        return dividing.by_group(table, options.group, splits, seed)
    if options.time:
        return dividing.by_time(table, options.time, splits)
    return dividing.by_permutation(table, splits, seed)


def _values(table: Table, columns: Columns, rows: Array) -> Array:
    """Values as found, labels as their places: (n, D) float64."""
    found = [coded(table, table.column(one.name), one)[rows] for one in columns]
    return np.stack(found, 1) if found else np.empty((len(rows), 0))


def _scaled(table: Table, columns: Columns, train: Array) -> Columns:
    values = _values(table, columns, train)
    return Columns(tuple(scaled(table.name, one, values[:, place]) for place, one in enumerate(columns)))


def _split(table: Table, x: Columns, covariates: Columns, rows: Array, part: str, seed: int | None) -> Split:
    _check_complete(table, covariates.names)
    values = _values(table, x, rows)
    kept = [_tensor(served(x, values))]
    beside = None
    if len(covariates):
        given = _values(table, covariates, rows)
        kept.append(_tensor(served(covariates, given)))
        beside = [Column(_tensor(as_found(covariates, given)), kept[-1].dtype)]
    found = _tensor(as_found(x, values))
    source = None if torch.equal(found.nan_to_num(-1.0), kept[0].nan_to_num(-1.0)) else found
    rescaled = any(scale != 1.0 or shift != 0.0 for shift, scale in zip(x.shift, x.scale, strict=True))
    shift, scale = (x.shift, x.scale) if rescaled else ((), ())
    columns = tuple(Column(one, one.dtype) for one in kept)
    protocol = describe(
        columns, source=source, dataset=table.name, split=part, seed=seed, shift=shift, scale=scale, beside=beside
    )
    return Split(columns, protocol, None, source)


def _tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
