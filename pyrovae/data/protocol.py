"""The protocol of rows: what they are, how they came to be and their SHA-256, read off one block after another.

Rows x of D values that are source / c have log p(source) = log p(x) - D log c, and rows of a table whose columns are
(source - m_d) / c_d have log p(source) = log p(x) - sum_d log c_d; the protocol carries the last term, so that
densities in different units can be compared.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import blocks_of
from pyrovae.data.encoding import Column
from pyrovae.data.memmap import Mapped

VALUES_AT_ONCE = 2**23  # in a block: 32 MB of float32
_AS_FOUND = ("dequantized", "none")


@dataclass(frozen=True)
class Protocol:
    """How the rows of a split came to be.

    Attributes:
        dataset: the set: "digits", "mnist", "user's tensor", or the name of the user's file.
        split: "train", "valid", "test" or "all".
        num_data: N.
        binarization: "none"; "dynamic" (train drawn anew at each use, valid and test drawn once);
            "static" (drawn once); "threshold" (at 0.5).
        divisor: the rows (under binarization: the probabilities) are source / divisor; 1.0 is as found.
        log_jacobian: nats per datum to add to a log density of the rows to get that of the source rows,
            -D log(divisor); D counts observed values (their mean over the data, where some are missing). Of a table,
            minus the sum of log(scale) over the observed values of a row. 0.0 under binarization: a mass needs none.
        seed: of the split's permutation and the fixed draws; None where nothing depended on it.
        sha256: of the rows as served (dtype, shape and bytes of each tensor; if dynamic, the probabilities).
        source_sha256: of the same rows before rescaling or binarization, in the same dtype.
        dequantized: "none"; "anew" or "once": the rows are (whole number + u) / divisor with u uniform on [0, 1), drawn
            at each use or once. log p(source) is then in expectation at most the log mass of the whole numbers.
        shift, scale: of a table some of whose columns were rescaled: column d is (source - shift[d]) / scale[d].
    """

    dataset: str
    split: str
    num_data: int
    binarization: str
    divisor: float
    log_jacobian: float
    seed: int | None
    sha256: str
    source_sha256: str
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    dequantized: str = "none"

    @property
    def drawn_anew(self) -> bool:
        """Whether each use of a row is a new draw of it."""
        return (self.binarization == "dynamic" and self.split == "train") or self.dequantized == "anew"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, fit for JSON; without shift, scale and dequantized where there are none."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if value != [] and (name, value) != _AS_FOUND}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Protocol":
        """The inverse of `to_dict`."""
        names = [one.name for one in fields(cls)]
        needed = [one.name for one in fields(cls) if one.default is MISSING]
        if not set(needed) <= set(values) <= set(names):
            raise InputError(f"expected a protocol with {names}, got {sorted(values)}; give what to_dict() returned")
        columns = {name: tuple(values.get(name, ())) for name in ("shift", "scale")}
        return cls(**{**values, **columns})

    def __str__(self) -> str:
        values = {
            "none": self._rescaling(),
            "dynamic": "binarized anew at each use" if self.split == "train" else "binarized once",
            "static": "binarized once",
            "threshold": "binarized at 0.5",
        }[self.binarization]
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.dataset} {self.split}: {self.num_data} data, {values}{seed}, sha256 {self.sha256[:8]}"

    def _rescaling(self) -> str:
        if self.scale:
            count = sum(each != 1.0 for each in self.scale)
            return f"{count} of {len(self.scale)} columns rescaled (log Jacobian {self.log_jacobian:.3f})"
        noise = {"none": "", "anew": "dequantized anew at each use", "once": "dequantized once"}[self.dequantized]
        if self.divisor == 1.0:
            return noise or "values as found"
        return f"{noise}, divided by {self.divisor:g}" if noise else f"values divided by {self.divisor:g}"


def describe(
    columns: Sequence[Column],
    *,
    blocks: Iterable[tuple[Tensor, Tensor | None]] | None = None,
    source: Tensor | Mapped | None = None,
    dataset: str,
    split: str,
    binarization: str = "none",
    divisor: float = 1.0,
    seed: int | None = None,
    shift: tuple[float, ...] = (),
    scale: tuple[float, ...] = (),
    dequantized: str = "none",
    beside: Sequence[Column] | None = None,
) -> Protocol:
    """The protocol of columns, whose observations are read once, block after block.

    Args:
        columns: the observations first; of them shape and dtype are enough where ``blocks`` are given.
        blocks: of observations as they are served, and as they were found where that is something else.
        source: the observations as they were found, where there are no ``blocks`` and that is something else.
        dataset, split, binarization, divisor, seed, shift, scale, dequantized: as in the :class:`Protocol`.
        beside: the further columns as they were found, where they are served otherwise.
    """
    check_rows(columns)
    x, *others = columns
    if blocks is None:
        blocks = ((x[rows], None if source is None else source[rows]) for rows in in_blocks(x))
    served, found = (hashlib.sha256(_head(x)) for _ in range(2))
    rescaled, as_found = binarization == "none" and bool(scale or divisor != 1.0), True
    divisors = torch.tensor(scale or (divisor,), dtype=torch.float64)
    observed = torch.zeros(len(divisors), dtype=torch.int64)
    for rows, unchanged in blocks:
        served.update(_bytes(rows))
        if unchanged is not None:
            as_found = False
            found.update(_bytes(unchanged.to(rows.dtype)))
        if rescaled:
            observed += _num_observed(rows, each_column=bool(scale))
    found = served.copy() if as_found else found
    for part in (part for other in others for part in _content(other)):
        served.update(part)
    for part in (part for other in (others if beside is None else beside) for part in _content(other)):
        found.update(part)
    jacobian = -float(observed.double() @ divisors.log()) / len(x) if rescaled else 0.0
    hashes = served.hexdigest(), found.hexdigest()
    return Protocol(dataset, split, len(x), binarization, divisor, jacobian, seed, *hashes, shift, scale, dequantized)


def _num_observed(rows: Tensor, *, each_column: bool) -> Tensor:
    """How many values are there: in each column, or in all of them as one number."""
    if each_column:
        return (~rows.isnan()).sum(0).cpu()
    return torch.tensor([rows.numel() - num_missing(rows)])


def check_rows(columns: Sequence[Tensor | Column]) -> None:
    """Demands tensors of one and the same N > 0."""
    shapes = [tuple(column.shape) for column in columns]
    if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
        raise InputError(
            f"expected tensors of one first dimension N > 0 (the datum), got shapes {shapes}; "
            "give each one row per datum"
        )


def in_blocks(x: Tensor | Mapped | Column) -> list[slice]:
    """The rows of (N, *shape) in blocks that memory holds with ease."""
    return blocks_of(len(x), max(1, VALUES_AT_ONCE // max(1, math.prod(x.shape[1:]))))


def num_missing(x: Tensor) -> int:
    """How many values are NaN; where none is, a sum tells so without looking at each."""
    return int(x.isnan().sum()) if x.sum().isnan() else 0


def _content(column: Column) -> Iterator[bytes | memoryview]:
    yield _head(column)
    yield from (_bytes(column[rows]) for rows in in_blocks(column))


def _head(column: Column) -> bytes:
    return f"{column.dtype} {tuple(column.shape)}\n".encode()


def _bytes(rows: Tensor) -> memoryview:
    return rows.detach().cpu().contiguous().view(torch.uint8).numpy().data
