"""A table as it is found: a CSV or Parquet file, or a frame, as columns of numbers or of text; nothing is guessed here.

pandas and pyarrow are imported where a Parquet file asks for them; a frame of pandas or polars brings its own library.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrovae.base.errors import InputError, first_line, nearest
from pyrovae.data.memmap import Array
from pyrovae.data.tables.names import SUFFIXES
from pyrovae.data.user_files import content_of, csv_lines, is_header, number

MISSING = {"", "na", "nan"}


class Raw(NamedTuple):
    """One column as it is found.

    Attributes:
        name: of the column.
        cells: (N,): float64, NaN where missing; or text, None where missing.
        levels: of text whose source knows their order (an ordered category of a frame), the lowest first.
        is_time: whether the numbers are times, in seconds.
    """

    name: str
    cells: Array
    levels: tuple[str, ...] = ()
    is_time: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the cells are text."""
        return bool(self.cells.dtype == object)

    @property
    def missing(self) -> Array:
        """Which cells are, (N,) booleans."""
        if self.is_text:
            return np.array([cell is None for cell in self.cells], bool)
        return np.isnan(self.cells)


class Table(NamedTuple):
    """Columns of one length.

    Attributes:
        name: what errors call the table.
        columns: in their order.
        rows: (N,), the number of each row as its source counts: lines of a file from 1, rows of a frame from 0.
    """

    name: str
    columns: tuple[Raw, ...]
    rows: Array

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [column.name for column in self.columns]

    def column(self, name: str, role: str = "column") -> Raw:
        """A column by its name.

        Raises:
            InputError: where it is not there; offers the nearest.
        """
        if name not in self.names:
            hint = nearest(name, self.names) or f" there are {', '.join(self.names)}"
            raise InputError(f'{self.name}: expected the {role} "{name}" among its columns, which is not there;{hint}')
        return self.columns[self.names.index(name)]

    def place(self, bad: Array) -> str:
        """Which rows these are, in words: how many, and the first of them.

        Args:
            bad: (N,) booleans, of which one at least is true.
        """
        first, count = self.rows[bad.nonzero()[0][0]], int(bad.sum())
        return f"row {first}" if count == 1 else f"{count} rows, the first is row {first}"


def is_frame(source: Any) -> bool:
    """Whether something is a frame of pandas or polars, by what it has: neither library is imported for it."""
    return hasattr(source, "columns") and hasattr(source, "dtypes") and hasattr(source, "__getitem__")


def is_table(source: Any) -> bool:
    """Whether something is a frame, a table that was read, or a path that ends as tables do."""
    if isinstance(source, (str, Path)):
        return Path(source).suffix.lower() in SUFFIXES
    return is_frame(source) or isinstance(source, Table)


def read_table(source: Any) -> Table:
    """Reads a table.

    Args:
        source: path of a .csv or .parquet, a frame of pandas or polars, or a table that was read.

    Raises:
        InputError: a file that is missing, empty or damaged, rows of unlike length, two columns of one name.
    """
    if isinstance(source, Table):
        table = source
    elif is_frame(source):
        table = from_frame(source, "the frame")
    elif Path(source).suffix.lower() == ".parquet":
        table = read_parquet(Path(source))
    else:
        table = read_csv_table(Path(source))
    twice = next((name for name in table.names if table.names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f'{table.name}: expected each column once, got "{twice}" twice; rename one of them')
    if not len(table.rows) or not table.columns:
        raise InputError(f"{table.name}: expected rows and columns, got {len(table.rows)} x {len(table.columns)}")
    return table


def read_csv_table(path: Path) -> Table:
    """A CSV with commas, semicolons or tabs, of numbers and text; its first row is the header where no number is in it.

    An empty cell, NA or NaN is missing.
    """
    lines = csv_lines(path, content_of(path))
    width, header = len(lines[0][1]), is_header(lines[0][1])
    body = lines[1:] if header else lines
    if not body:
        raise InputError(f"{path}: expected rows, got only a header; check the file")
    for line, cells in body:
        if len(cells) != width:
            raise InputError(f"{path}: expected {width} cells in row {line}, got {len(cells)}; complete the row")
    names = [name.strip() or f"column {place + 1}" for place, name in enumerate(lines[0][1])]
    names = names if header else [f"column {place + 1}" for place in range(width)]
    columns = zip(names, zip(*(cells for _, cells in body), strict=True), strict=True)
    rows = np.array([line for line, _ in body])
    return Table(path.name, tuple(Raw(name, _from_text(cells)) for name, cells in columns), rows)


def _from_text(cells: Sequence[str]) -> Array:
    """Numbers where all cells that are there are numbers, else their text."""
    stripped = [cell.strip() for cell in cells]
    present = [cell.lower() not in MISSING for cell in stripped]
    numbers = [number(cell) if there else math.nan for cell, there in zip(stripped, present, strict=True)]
    if None not in numbers:
        return np.array(numbers, np.float64)
    return _objects([cell if there else None for cell, there in zip(stripped, present, strict=True)])


def _objects(cells: Sequence[Any]) -> Array:
    """An array of objects, whatever they are."""
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


def read_parquet(path: Path) -> Table:
    """A Parquet file, by pandas and pyarrow.

    Raises:
        InputError: where these are not installed, or the file is no Parquet.
    """
    content_of(path)
    try:
        import pandas
    except ImportError as error:
        raise InputError(f"{path}: to read Parquet takes pandas and pyarrow: pip install pandas pyarrow") from error
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise InputError(f"{path}: to read Parquet takes pyarrow beside pandas: pip install pyarrow") from error
    except Exception as error:
        raise InputError(f"{path}: expected a whole Parquet file, got {first_line(error)}; write it again") from error
    return from_frame(frame, path.name)


def from_frame(frame: Any, name: str) -> Table:
    """A frame of pandas or polars; its missing cells are None, NaN, NA or NaT."""
    columns = tuple(_from_series(name, str(label), frame[label]) for label in frame.columns)
    return Table(name, columns, np.arange(len(frame)))


def _from_series(table: str, name: str, series: Any) -> Raw:
    """A column of a frame: numbers and times as numbers, all else as text, and categories as text whatever they are."""
    if getattr(series, "ndim", 1) != 1:
        raise InputError(f'{table}: expected each column once, got "{name}" twice; rename one of them')
    kind, levels = str(series.dtype), _levels(series)
    if kind.lower().startswith(("datetime", "date")):
        values = np.asarray(series.to_numpy(), "datetime64[us]")
        return Raw(name, np.where(np.isnat(values), np.nan, values.astype(np.int64) / 1e6), is_time=True)
    cells = [_cell(cell) for cell in series.to_list()]
    if hasattr(series.dtype, "categories") or any(isinstance(cell, str) for cell in cells):
        text = [cell if cell is None or isinstance(cell, str) else label_of(cell) for cell in cells]
        return Raw(name, _objects(text), levels)
    try:
        return Raw(name, np.array([math.nan if cell is None else float(cell) for cell in cells], np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f'{table}: column "{name}" holds neither numbers nor text but {kind}; leave it out') from error


def _cell(cell: Any) -> Any:
    """A cell, None where it is missing."""
    if cell is None or isinstance(cell, str):
        return None if cell == "" else cell
    return None if type(cell).__name__ in ("NAType", "NaTType") or cell != cell else cell


def label_of(cell: Any) -> str:
    """A cell as a label: numbers with all their digits."""
    return f"{cell:.15g}" if isinstance(cell, (float, np.floating)) else str(cell)


def _levels(series: Any) -> tuple[str, ...]:
    """The levels of an ordered category of pandas, or of an Enum of polars."""
    dtype = series.dtype
    if getattr(dtype, "ordered", False):
        return tuple(map(label_of, dtype.categories))
    return tuple(map(label_of, dtype.categories)) if type(dtype).__name__ == "Enum" else ()
