"""Records: numbers as plain values for JSON and for text, the same in every result."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.storage import write_whole


def mean_and_se(values: Tensor) -> dict[str, float | None]:
    """Mean over data and its standard error, for JSON."""
    se = values.double().std() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": number(values.mean()), "data_se": number(se)}


def number(value: Tensor | float) -> float | None:
    """A float for JSON; None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def text(value: float | None, digits: int) -> str:
    """A number with so many digits; a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def as_json(account: Mapping[str, Any]) -> str:
    """Plain values as text; there is no NaN in JSON, so an undefined number must be None."""
    return json.dumps(account, indent=2, allow_nan=False) + "\n"


def as_csv(table: Mapping[str, Tensor]) -> str:
    """Columns (N,) as text; numbers read back exactly, an undefined one is empty."""
    rows = zip(*(column.tolist() for column in table.values()), strict=True)
    lines = [",".join("" if math.isnan(value) else repr(value) for value in row) for row in rows]
    return "\n".join([",".join(table), *lines]) + "\n"


class Tabulated(ABC):
    """A record of an account and of a table with a row for each datum, and how the two are written."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The account as plain values for JSON."""

    @abstractmethod
    def table(self) -> dict[str, Tensor]:
        """The per-datum columns by name, (N,) each."""

    def save(self, path: str | Path) -> None:
        """Writes the account to ``path`` (JSON) and the per-datum table beside it, with the suffix ``.csv``."""
        path = Path(path)
        if path.suffix == ".csv":
            raise InputError(f"{path}: the table goes to this name; give the account another, such as {path.stem}.json")
        write_whole(path.with_suffix(".csv"), self.to_csv().encode())
        write_whole(path, self.to_json().encode())

    def to_json(self) -> str:
        """:meth:`to_dict` as text; an undefined number is null."""
        return as_json(self.to_dict())

    def to_csv(self) -> str:
        """The per-datum table as text; numbers read back exactly, an undefined one is empty."""
        return as_csv(self.table())
