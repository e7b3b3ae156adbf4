"""Records: what every result is: an account as text and in a notebook, plain values, a table, and files.

A record is a frozen dataclass. Saved, its per-datum columns are a CSV that any program reads, its other tensors a
safetensors file, and the rest is JSON, with a SHA-256 of all three; nothing is ever unpickled.
"""

import csv
import hashlib
import html
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from pyrovae.base import storage
from pyrovae.base.choices import resolve
from pyrovae.base.errors import InputError
from pyrovae.base.forms import datatree
from pyrovae.base.forms.tables import TextTable

FORMAT = 1
LIBRARIES = ("pandas", "polars")  # of data frames
_PAGE = "pyrovae.reports.html.page:page_of"
UNSEALED = b'"sha256": ""'  # of a record, before its hash is put in
ALTERED = "altered since it was written, or a file beside it was (its SHA-256 does not fit)"
SUFFIXES = (".csv", ".safetensors", ".json")  # in the order of writing: the last holds the hash of all


def mean_and_se(values: Tensor, mc_se: Tensor | None = None) -> dict[str, float | None]:
    """Mean over data with its standard error and, of values with Monte-Carlo errors (N,), the mean's, for JSON."""
    se = values.double().std() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    found = {"mean": number(values.mean()), "data_se": number(se)}
    return found if mc_se is None else found | {"mc_se": number(mc_se.square().sum().sqrt() / len(values))}


def spread(values: Tensor) -> dict[str, float | None]:
    """Mean, median and least of values (N,), for JSON."""
    return {"mean": number(values.mean()), "median": number(values.median()), "min": number(values.min())}


def number(value: Tensor | float) -> float | None:
    """A float for JSON; None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def as_json(account: Mapping[str, Any]) -> str:
    """Plain values as text; there is no NaN in JSON, so an undefined number must be None."""
    return json.dumps(account, indent=2, allow_nan=False) + "\n"


class Record(ABC):
    """A result: a frozen dataclass of tensors and plain values, whose annotations say how it is read back.

    A subclass writes :meth:`lines`, and :meth:`numbers`, :meth:`table`, :meth:`row_names` where fields do not say all.
    """

    categories: ClassVar[Mapping[str, Sequence[str]]] = {}  # column whose numbers stand for words -> the words

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, _plain(value))

    @abstractmethod
    def lines(self) -> list[str | TextTable]:
        """The account for a reader, line by line and table by table."""

    def numbers(self) -> dict[str, Any]:
        """What :meth:`to_dict` holds beside the fields that are plain values: plain values too."""
        return {}

    def table(self) -> dict[str, Tensor]:
        """The columns by name, (N,) each, of one row for each datum, or for each of :meth:`row_names`."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor) and value.dim() == 1}

    def shown(self) -> dict[str, Tensor]:
        """The table as a frame shows it, with what is worked out of its columns."""
        return self.table()

    def row_names(self) -> Sequence[str]:
        """What the rows of the table are called; empty where they are data."""
        return ()

    def named_rows(self) -> dict[str, dict[str, float]]:
        """The table row by row: name -> column -> number."""
        table = self.table()
        rows = zip(*(column.tolist() for column in table.values()), strict=True)
        return {name: dict(zip(table, row, strict=True)) for name, row in zip(self.row_names(), rows, strict=True)}

    def summary(self) -> str:
        """The account as text."""
        return "\n".join(map(str, self.lines()))

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        parts = [
            one.to_html() if isinstance(one, TextTable) else f"<div>{html.escape(one)}</div>" for one in self.lines()
        ]
        return f'<div style="white-space: pre-wrap">{"".join(parts)}</div>'

    def to_dict(self) -> dict[str, Any]:
        """The account as plain values for JSON; an undefined number is None."""
        held = {name: value for name, value in _opened(self).items() if not _holds_tensor(value)}
        return json.loads(json.dumps(held | self.numbers()), parse_constant=lambda _: None)

    def to_html(self) -> str:
        """The record as a page by itself, with findings and figures; :func:`pyrovae.report` writes it to a file."""
        return resolve(_PAGE)(self)  # a path, as nothing here knows of pages

    def to_json(self) -> str:
        """:meth:`to_dict` as text; an undefined number is null."""
        return as_json(self.to_dict())

    def to_csv(self) -> str:
        """:meth:`table` as text; numbers read back exactly, an undefined one is empty."""
        names, table, written = self.row_names(), self.table(), io.StringIO()
        columns = [self._words(name) or list(map(_written, column.tolist())) for name, column in table.items()]
        rows = csv.writer(written, lineterminator="\n")
        rows.writerow([*(["name"] if names else []), *table])
        rows.writerows(zip(*([names] if names else []), *columns, strict=True))
        return written.getvalue()

    def to_dataframe(self, library: str = "pandas") -> Any:
        """:meth:`shown` as a DataFrame: the table, and what is worked out of its columns.

        Args:
            library: "pandas" or "polars". Names of rows are the index of the one, a first column "name" of the other.

        Raises:
            InputError: for another library, and where it is not installed.
        """
        if library not in LIBRARIES:
            raise InputError(f"library is one of {', '.join(LIBRARIES)}, got {library!r}")
        try:
            frames = import_module(library)
        except ImportError as error:
            raise InputError(f"to_dataframe() needs {library}: pip install {library}") from error
        names = list(self.row_names())
        columns = {name: self._words(name) or column.numpy() for name, column in self.shown().items()}
        if library == "pandas":
            return frames.DataFrame(columns, index=names or None)
        return frames.DataFrame(({"name": names} if names else {}) | columns)

    def groups(self) -> datatree.Groups:
        """What :meth:`to_datatree` holds, group by group; of a record without draws the table alone."""
        lead = "row" if self.row_names() else "datum"
        columns = self.table().items()
        return {"constant_data": {n: datatree.Variable(self._words(n) or column, (lead,)) for n, column in columns}}

    def to_datatree(self) -> Any:
        """The record as ArviZ takes it: an xarray ``DataTree`` with the groups and dimensions of ArviZ's schema.

        Records of draws hold "posterior" and what else they know; every record its table, as "constant_data", and the
        protocol of its data, as JSON among the attributes.

        Raises:
            InputError: where ArviZ is not installed.
        """
        protocol = getattr(self, "protocol", None)
        attrs = {"inference_library": "pyrovae", "record": type(self).__name__, "seed": getattr(self, "seed", None)}
        attrs["protocol"] = None if protocol is None else json.dumps(protocol.to_dict())
        return datatree.tree(self.groups(), attrs, {"row": list(self.row_names())} if self.row_names() else {})

    def _words(self, name: str) -> list[str]:
        """What a column of categories says; empty for numbers."""
        words = self.categories.get(name, ())
        return [words[int(number)] for number in self.table()[name].tolist()] if words else []

    def save(self, path: str | Path) -> None:
        """Writes the record to ``path`` (JSON), its table beside it (.csv), and its other tensors (.safetensors)."""
        paths = _paths(path)
        paths[".json"].parent.mkdir(parents=True, exist_ok=True)
        for suffix, data in self.to_files().items():
            storage.write_whole(paths[suffix], data)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote, every number of it.

        Raises:
            InputError: if a file is missing or altered, or holds another record or one of a newer version.
        """
        try:
            files = {suffix: one.read_bytes() for suffix, one in _paths(path).items() if one.exists()}
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        return cls.from_files(files, str(path))

    def to_files(self) -> dict[str, bytes]:
        """What :meth:`save` writes, by suffix: ".csv", ".safetensors" where columns are not all, and ".json"."""
        tensors: dict[str, Tensor] = {}
        held = {name: storage.flatten(value, tensors, name) for name, value in _opened(self).items()}
        table = self.table()
        named = {id(column): name for name, column in table.items() if column.dtype == torch.float64}
        columns = {key: named[id(tensor)] for key, tensor in tensors.items() if id(tensor) in named}
        others = {key: tensor.clone() for key, tensor in tensors.items() if key not in columns}
        files = {".csv": self.to_csv().encode()} | ({".safetensors": storage.pack(others)} if others else {})
        record = {"kind": type(self).__name__, "format": FORMAT, "files": [*files], "columns": columns, "fields": held}
        # The account to be read by people, and in one more line what gives the record back.
        last = json.dumps(record | {"sha256": ""}, allow_nan=False)
        whole = f'{as_json(self.to_dict())[:-3]},\n  "record": {last}\n}}\n'.encode()
        return files | {".json": whole.replace(UNSEALED, UNSEALED[:-1] + _sha256(whole, files).encode() + b'"')}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], what: str) -> Self:
        """The record that :meth:`to_files` gave.

        Raises:
            InputError: naming ``what``, for anything else.
        """
        try:
            if ".json" not in files:
                raise InputError(f"{what}: there is no such file")
            account = json.loads(files[".json"])
            record = account.get("record", {"files": [".csv"]})
            if not {*record["files"]} <= {*SUFFIXES}:
                raise InputError(f"{what}: {ALTERED}")
            if missing := [suffix for suffix in record["files"] if suffix not in files]:
                raise InputError(f"{what}: there is no file beside it that ends in {missing[0]}")
            if "record" not in account:
                return cls._from_older(account, _read_csv(files[".csv"], cls.categories))
            _check(record, files, cls.__name__, what)
            table, tensors = _read_csv(files[".csv"], cls.categories), dict[str, Tensor]()
            if ".safetensors" in record["files"]:
                tensors |= storage.unpack(files[".safetensors"], what)
            tensors |= {key: table[name] for key, name in record["columns"].items()}
            held = {name: storage.unflatten(value, tensors) for name, value in record["fields"].items()}
            if lacking := _required(cls) - held.keys():
                raise InputError(f"{what}: saved by an older version, without {', '.join(lacking)}: measure it again")
            return _restored(cls, held)
        except InputError:
            raise
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{what}: not a {cls.__name__} that pyrovae saved ({reason})") from error

    @classmethod
    def _from_older(cls, account: Mapping[str, Any], columns: dict[str, Tensor]) -> Self:
        """The record in files of before records said what they are."""
        raise ValueError("it does not say of what it is the record")


def _paths(path: str | Path) -> dict[str, Path]:
    """Where the files of a record are, by suffix."""
    path = Path(path)
    if path.suffix in (".csv", ".safetensors"):
        raise InputError(
            f"{path}: tables and tensors go to such names; give the record another, such as {path.stem}.json"
        )
    return {suffix: path if suffix == ".json" else path.with_suffix(suffix) for suffix in SUFFIXES}


def _written(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _read_csv(data: bytes, categories: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """The columns of a table, (N,) float64 each, names of its rows apart."""
    names, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
    columns = {name: column for name, column in zip(names, zip(*rows, strict=True), strict=True) if name != "name"}
    words = {name: {word: float(code) for code, word in enumerate(known)} for name, known in categories.items()}
    numbers = {
        name: [words[name][value] if name in words else float(value or "nan") for value in column]
        for name, column in columns.items()
    }
    return {name: torch.tensor(column, dtype=torch.float64) for name, column in numbers.items()}


def _check(record: Mapping[str, Any], files: Mapping[str, bytes], kind: str, what: str) -> None:
    """Demands a record of a kind, of a format that is known, with every byte as it was written."""
    if record["kind"] != kind:
        raise InputError(f"{what}: holds a {record['kind']}, not a {kind}; load it with {record['kind']}.load")
    if record["format"] > FORMAT:
        raise InputError(f"{what}: has format {record['format']}, this version reads up to {FORMAT}; update pyrovae")
    unsealed = files[".json"].replace(f'"sha256": "{record["sha256"]}"'.encode(), UNSEALED)
    if record["sha256"] != _sha256(unsealed, {suffix: files[suffix] for suffix in record["files"]}):
        raise InputError(f"{what}: {ALTERED}")


def _sha256(whole: bytes, files: Mapping[str, bytes]) -> str:
    return hashlib.sha256(b"\0".join([whole, *files.values()])).hexdigest()


# --------------------------------------------------------------------------------------- fields as plain values


def _names(kind: Any) -> list[str]:
    """Of the fields of a dataclass or a named tuple, or of one of its instances; empty for anything else."""
    return [one.name for one in fields(kind)] if is_dataclass(kind) else list(getattr(kind, "_fields", ()))


def _opened(value: Any) -> Any:
    """A value with the dataclasses and named tuples in it as dicts of their fields."""
    if names := _names(value):
        return {name: _opened(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _opened(item) for key, item in value.items()}
    return type(value)(map(_opened, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """A value with NumPy's whole numbers as Python's, which alone JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return int(value) if isinstance(value, Integral) and not isinstance(value, int) else value


def _required(kind: Any) -> set[str]:
    """The fields of a dataclass or a named tuple that have no default, which what an older version saved may lack."""
    if not is_dataclass(kind):
        return set(getattr(kind, "_fields", ())) - getattr(kind, "_field_defaults", {}).keys()
    return {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}


def _restored(hint: Any, value: Any) -> Any:
    """The inverse of :func:`_opened`, by the annotation of the value."""
    arguments = get_args(hint)
    if get_origin(hint) is dict:
        return {key: _restored(arguments[1], item) for key, item in value.items()}
    if get_origin(hint) in (list, tuple):
        return type(value)(_restored(arguments[0], item) for item in value)
    for kind in arguments or (hint,):  # of a union, the member that has these fields
        if isinstance(value, dict) and _names(kind) and _required(kind) <= value.keys() <= set(_names(kind)):
            hints = get_type_hints(kind)
            return kind(**{name: _restored(hints[name], item) for name, item in value.items()})
    if isinstance(value, dict) and hint is not Any:
        raise TypeError(f"no {hint} has the fields {', '.join(value)}")
    return value


def _holds_tensor(value: Any) -> bool:
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, Tensor) or any(map(_holds_tensor, items))
