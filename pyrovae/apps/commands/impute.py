"""The command impute: a table with what is missing filled in by a run, and how reliable that is.

What was there stays as it was written, in .csv letter by letter, in .parquet in its type; what is filled in has the
unit and the labels of its column.
"""

import csv
import io
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyrovae as pv
from pyrovae.apps.arguments import Action, bring_back, check_parent, deliver, run_arguments
from pyrovae.base.errors import InputError

FOR_MEANS = 1000  # draws of latents that a mean is taken over


def impute(p: ArgumentParser) -> Action:
    """Fill in what is missing in a table, once or several times, by what a run says of it.

    example:
      pyrovae impute runs/wine wine.csv --out completed.csv
      pyrovae impute runs/wine later.csv --out completed.csv --draws 20
      pyrovae impute runs/wine later.parquet --out completed.parquet
    """
    run_arguments(p)
    p.add_argument(
        "table", metavar="TABLE", help="a .csv or .parquet with gaps: that of the run, or later rows of its columns"
    )
    p.add_argument("--out", required=True, metavar="FILE", help="for the completed rows, of the ending of TABLE")
    about = "complete the table M times by draws, one below the other, numbered in a first column imputation, for "
    p.add_argument("--draws", type=int, metavar="M", help=f"{about}pyrovae.pool [once, by means and likeliest classes]")
    p.add_argument("--particles", type=int, default=1000, metavar="K", help="that draws are resampled from [1000]")
    p.add_argument("--method", default="auto", help="of evaluate, or gibbs for chains [auto]")
    p.add_argument("--seed", type=int, default=0, help="of the draws [0]")
    p.add_argument("--json", metavar="FILE", help="write the account there too")
    return _impute


def _impute(given: Namespace) -> int:
    source, out = Path(given.table), Path(given.out)
    ending = source.suffix.lower()
    if ending not in SHEETS or out.suffix.lower() != ending:
        ends = " or both in ".join(SHEETS)
        raise InputError(f"expected two names that end in {ends}, got {given.table} and --out {given.out}")
    for name, number in (("draws", given.draws), ("particles", given.particles)):
        if number is not None and number < 1:
            raise InputError(f"--{name} must be at least 1, got {number}")
    check_parent(given.out)
    check_parent(given.json)
    from pyrovae.base.storage import write_whole
    from pyrovae.data import load_like

    loaded = bring_back(given)
    split, sheet = load_like(source, loaded.dataset), SHEETS[ending].read(source)
    rows = split.missing()
    if not len(rows):
        names = [*loaded.dataset.columns.names[:5], *["..."] * (len(loaded.dataset.columns) > 5)]
        raise InputError(f"{given.table}: nothing is missing in the columns of the run ({', '.join(names)})")
    how = {"num_draws": given.draws or FOR_MEANS, "num_particles": given.particles}
    found = pv.conditional(loaded.fit.model, loaded.fit.guide, split[rows], **how, method=given.method, seed=given.seed)
    versions = found.mean[None] if given.draws is None else found.draws
    columns = loaded.dataset.columns
    completed = [sheet.completed(rows.tolist(), columns, one, split.x[rows].isnan()) for one in versions]
    write_whole(out, sheet.written(completed, numbered=given.draws is not None))
    deliver(given.json, found)
    print(f"{given.out}: {len(completed)} completed table{'s' * (len(completed) > 1)} of {len(split):,} rows")
    return 0


class Sheet(NamedTuple):
    """A .csv as it is written."""

    header: list[str] | None
    names: list[str]  # of columns
    body: list[list[str]]  # cells of each row

    @classmethod
    def read(cls, path: Path) -> "Sheet":
        """Reads what :func:`~pyrovae.data.load_like` took without a complaint."""
        from pyrovae.data.tables.reading import read_table
        from pyrovae.data.user_files import content_of, csv_lines, is_header

        lines = [cells for _, cells in csv_lines(path, content_of(path))]
        header = lines[0] if is_header(lines[0]) else None
        return cls(header, read_table(path).names, lines[1:] if header else lines)

    def completed(self, rows: list[int], columns: Any, values: Any, missing: Any) -> list[list[str]]:
        """All rows, some of them with values (n, D) where these are missing."""
        found, body = columns.decoded(values), [list(cells) for cells in self.body]
        for place, kind in enumerate(columns):
            where = self.names.index(kind.name)
            for number in missing[:, place].nonzero().flatten().tolist():
                body[rows[number]][where] = _written(kind.kind, found[kind.name][number])
        return body

    def written(self, tables: list[list[list[str]]], *, numbered: bool) -> bytes:
        """Completed tables one below the other."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._lines(tables, numbered))
        return text.getvalue().encode()

    def _lines(self, tables: list[list[list[str]]], numbered: bool) -> Iterator[list[str]]:
        if self.header is not None:
            yield [*["imputation"] * numbered, *self.header]
        for number, table in enumerate(tables):
            yield from ([*[str(number + 1)] * numbered, *cells] for cells in table)


class Frame(NamedTuple):
    """A .parquet as pandas reads it."""

    frame: Any

    @classmethod
    def read(cls, path: Path) -> "Frame":
        """Reads what :func:`~pyrovae.data.load_like` took without a complaint."""
        import pandas

        return cls(pandas.read_parquet(path))

    def completed(self, rows: list[int], columns: Any, values: Any, missing: Any) -> Any:
        """As that of :class:`Sheet`; where nothing is missing, nothing is read of the values."""
        from pyrovae.posteriors.missing.imputation import completed_frame

        whole = values.new_zeros(len(self.frame), values.shape[1])
        whole[rows] = values
        return completed_frame(self.frame, columns, whole)

    def written(self, tables: list[Any], *, numbered: bool) -> bytes:
        """Completed tables one below the other."""
        import pandas

        if numbered:
            for number, table in enumerate(tables):
                table.insert(0, "imputation", number + 1)
        counted = isinstance(self.frame.index, pandas.RangeIndex)
        return pandas.concat(tables, ignore_index=counted).to_parquet()


SHEETS: dict[str, Any] = {".csv": Sheet, ".parquet": Frame}


def _written(kind: str, value: Any) -> str:
    """A value as a cell: a label as it is, a count whole."""
    if isinstance(value, str):
        return value
    return str(max(0, round(value))) if kind == "count" else f"{value:.7g}"
