"""Numbers as plain values for JSON and for text, the same in every record; and the checks of whole numbers."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.inference import estimators
from pyrovae.storage import write_whole


def mean_and_se(values: Tensor) -> dict[str, float | None]:
    """Mean over data and its standard error, for JSON."""
    return {"mean": number(values.mean()), "data_se": number(estimators.mean_se(values))}


def number(value: Tensor | float) -> float | None:
    """A float for JSON; None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def text(value: float | None, digits: int) -> str:
    """A number with so many digits; a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def check_at_least_one(**numbers: int) -> None:
    """Raises InputError, naming the argument, unless each is a whole number from 1."""
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number, at least 1; got {value!r}")


def blocks_of(num_data: int, batch_size: int) -> list[slice]:
    """The rows of each block of data."""
    return [slice(i, min(i + batch_size, num_data)) for i in range(0, num_data, batch_size)]


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


def coordinates(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """A name for each coordinate of each site of a datum, by the site's shape: "z[3]", or the site's own for one alone.

    Example:
        >>> coordinates({"mu": (), "theta": (1, 2)})
        ['mu', 'theta[0]', 'theta[1]']
    """
    places = {name: np.ndindex(*(size for size in shape if size > 1)) for name, shape in shapes.items()}
    return [
        name + (f"[{','.join(map(str, place))}]" if place else "")
        for name, of_site in places.items()
        for place in of_site
    ]
