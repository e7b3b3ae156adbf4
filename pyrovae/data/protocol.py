"""The protocol of rows: what they are, how they came to be and their SHA-256, read off one block after another.

Rows x of D values that are source / c have log p(source) = log p(x) - D log c; the protocol carries the last
term, so that densities in different units can be compared.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import blocks_of
from pyrovae.data.encoding import Column
from pyrovae.data.memmap import Mapped

VALUES_AT_ONCE = 2**23  # in a block: 32 MB of float32


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
            -D log(divisor); D counts observed values (their mean over the data, where some are missing).
            0.0 under binarization: a mass needs none.
        seed: of the split's permutation and the fixed draws; None where nothing depended on it.
        sha256: of the rows as served (dtype, shape and bytes of each tensor; if dynamic, the probabilities).
        source_sha256: of the same rows before rescaling or binarization, in the same dtype.
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

    @property
    def drawn_anew(self) -> bool:
        """Whether each use of a row is a new draw of it."""
        return self.binarization == "dynamic" and self.split == "train"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Protocol":
        """The inverse of `to_dict`."""
        names = [one.name for one in fields(cls)]
        if set(values) != set(names):
            raise InputError(f"expected a protocol with {names}, got {sorted(values)}; give what to_dict() returned")
        return cls(**values)

    def __str__(self) -> str:
        values = {
            "none": "values as found" if self.divisor == 1.0 else f"values divided by {self.divisor:g}",
            "dynamic": "binarized anew at each use" if self.split == "train" else "binarized once",
            "static": "binarized once",
            "threshold": "binarized at 0.5",
        }[self.binarization]
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.dataset} {self.split}: {self.num_data} data, {values}{seed}, sha256 {self.sha256[:8]}"


class Account:
    """A protocol in the making: the rows of a column pass by once, block after block.

    Args:
        column: what the blocks come from, or one of its shape and dtype.
        told: dataset, split, and what else is not as found of binarization, divisor and seed.
    """

    def __init__(self, column: Column, **told: Any) -> None:
        self.told: dict[str, Any] = {
            "num_data": len(column),
            "binarization": "none",
            "divisor": 1.0,
            "seed": None,
        } | told
        self.rescaled = self.told["binarization"] == "none" and self.told["divisor"] != 1.0
        self.num_observed, self.as_found = 0, True
        self.served, self.found = (hashlib.sha256(_head(column)) for _ in range(2))

    def add(self, x: Tensor, source: Tensor | None = None) -> None:
        """Takes in the next rows as they are served, and as they were found where that is something else."""
        self.served.update(_bytes(x))
        if source is not None:
            self.as_found = False
            self.found.update(_bytes(source.to(x.dtype)))
        if self.rescaled:
            self.num_observed += x.numel() - num_missing(x)

    def protocol(self, others: Sequence[Column] = ()) -> Protocol:
        """The protocol of the rows that went by, and of other columns beside them."""
        if self.as_found:
            self.found = self.served.copy()
        for column in others:
            for hashed in (self.served, self.found):
                _update(hashed, column)
        observed = self.num_observed / self.told["num_data"]
        jacobian = -observed * math.log(self.told["divisor"]) if self.rescaled else 0.0
        sha256, source_sha256 = self.served.hexdigest(), self.found.hexdigest()
        return Protocol(**self.told, log_jacobian=jacobian, sha256=sha256, source_sha256=source_sha256)


def check_rows(columns: Sequence[Tensor | Column]) -> None:
    """Demands tensors of one and the same N > 0."""
    shapes = [tuple(column.shape) for column in columns]
    if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
        raise InputError(
            f"expected tensors of one first dimension N > 0 (the datum), got shapes {shapes}; "
            "give each one row per datum"
        )


def describe(columns: Sequence[Column], *, source: Tensor | Mapped | None = None, **told: Any) -> Protocol:
    """The protocol of columns at hand; what is ``told`` are the arguments of :class:`Account`."""
    check_rows(columns)
    account = Account(columns[0], **told)
    for rows in in_blocks(columns[0]):
        account.add(columns[0][rows], None if source is None else source[rows])
    return account.protocol(columns[1:])


def digest(columns: Sequence[Column]) -> str:
    """SHA-256 of each column's dtype, shape and bytes."""
    hashed = hashlib.sha256()
    for column in columns:
        _update(hashed, column)
    return hashed.hexdigest()


def in_blocks(x: Tensor | Mapped | Column) -> list[slice]:
    """The rows of (N, *shape) in blocks that memory holds with ease."""
    return blocks_of(len(x), max(1, VALUES_AT_ONCE // max(1, math.prod(x.shape[1:]))))


def num_missing(x: Tensor) -> int:
    """How many values are NaN; where none is, a sum tells so without looking at each."""
    return int(x.isnan().sum()) if x.sum().isnan() else 0


def _update(hashed: Any, column: Column) -> None:
    hashed.update(_head(column))
    for rows in in_blocks(column):
        hashed.update(_bytes(column[rows]))


def _head(column: Column) -> bytes:
    return f"{column.dtype} {tuple(column.shape)}\n".encode()


def _bytes(rows: Tensor) -> memoryview:
    return rows.detach().cpu().contiguous().view(torch.uint8).numpy().data
