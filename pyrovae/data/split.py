"""A split: columns whose first dimension is the datum, and the protocol of how they came to be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import InputError, whole
from pyrovae.base.random import stream
from pyrovae.data.encoding import Column, binarized, dequantized, require_room
from pyrovae.data.memmap import Mapped, in_file
from pyrovae.data.protocol import Protocol, check_rows, describe, in_blocks
from pyrovae.data.tables.kinds import Columns


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Split:
    """A tuple of tensors with the datum as first dimension, and how they came to be.

    Attributes:
        columns: the tensors as they are kept, in memory or in a file, the observations (N, *shape) first; what
            they serve the programs get as positional arguments. Given as tensors or as columns.
        protocol: how the rows came to be.
        labels: (N,) int64, never passed to programs unless by `with_labels`.
        source: the observations before rescaling or binarization; None where they are as found.

    Example:
        >>> from pyrovae.data import load
        >>> test = load("digits").test
        >>> test
        Split(digits test: 300 data, values as found, sha256 c7060862; float32 (8, 8), kept as uint8)
        >>> len(test), test.shape
        (300, torch.Size([8, 8]))
        >>> [tuple(tensor.shape) for tensor in test.with_labels()[:5].tensors]
        [(5, 8, 8), (5,)]
    """

    columns: tuple[Column, ...]
    protocol: Protocol
    labels: Tensor | None
    source: Tensor | Mapped | None

    def __init__(
        self,
        columns: Sequence[Tensor | Column],
        protocol: Protocol,
        labels: Tensor | None = None,
        source: Tensor | Mapped | None = None,
    ) -> None:
        check_rows(columns if labels is None else (*columns, labels))
        served = tuple(Column(one, one.dtype) if isinstance(one, Tensor) else one for one in columns)
        vars(self).update(columns=served, protocol=protocol, labels=labels, source=source)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __repr__(self) -> str:
        return f"Split({self.protocol}; {'; '.join(map(repr, self.columns))})"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All rows as served, decoded at each call; refused where they stay in a file."""
        return tuple(column.tensor() for column in self.columns)

    @property
    def x(self) -> Tensor:
        """The observations, (N, *shape); where they are drawn anew at each use, what they are drawn from."""
        return self.columns[0].tensor()

    @property
    def shape(self) -> torch.Size:
        """The shape of one datum."""
        return self.columns[0].shape[1:]

    @property
    def device(self) -> torch.device:
        """Where rows are served."""
        return self.columns[0].device

    @property
    def mapped(self) -> bool:
        """Whether rows stay in a file, so that batches are to be prefetched."""
        return any(column.mapped for column in self.columns)

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> "Split":
        """Some of the rows, in memory, as a split with its own size and hashes; to train, use the cheaper `batch`.

        Args:
            index: a slice, row numbers, or a boolean for each row: ``test[test.labels == 3]``.
        """
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self  # all of them, with the protocol that they have
        rows = index if isinstance(index, slice) else _row_numbers(index, len(self))
        return self._with(
            tuple(replace(column, kept=column.gather(rows)) for column in self.columns),
            None if self.labels is None else self.labels[rows],
            None if self.source is None else self.source[rows],
        )

    def to(self, device: torch.device | str) -> "Split":
        """The same split with its tensors and labels on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, columns=tuple(column.to(device) for column in self.columns), labels=labels)

    def with_labels(self, num_labels: int | None = None, *, seed: int = 0) -> "Split":
        """The split with tensors (x, labels), so that programs get both; `sha256` then covers both.

        Args:
            num_labels: how many rows keep their label, as many of each class (but for one) drawn at random; that of the
                others is -1, unknown, for semi-supervised learning. None keeps all. `labels` holds the truth still.
            seed: of that draw.

        Raises:
            InputError: where there are no labels, or not so many of each class.

        Example:
            >>> from pyrovae.data import load
            >>> x, y = load("digits").train.with_labels(100).tensors
            >>> int((y >= 0).sum()), torch.bincount(y[y >= 0]).tolist()
            (100, [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
        """
        if self.labels is None:
            raise InputError(
                f"{self.protocol.dataset}: expected labels, but this set has none; give a tuple of tensors (x, labels)"
            )
        labels = self.labels if num_labels is None else _some_known(self.labels, num_labels, seed)
        return self._with((self.columns[0], _column(labels)), self.labels, self.source)

    def batch(self, index: Tensor | slice, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Some of the rows as bare tensors; a dynamically binarized train split draws them anew at each call.

        Args:
            index: (B,) int64 row numbers from 0, or a slice.
            generator: of the draw, on the tensors' device; torch's default generator when None.

        Returns:
            One tensor (B, ...) for each of `tensors`.
        """
        return self.decode(self.gather(index), generator)

    def gather(self, index: Tensor | slice) -> tuple[Tensor, ...]:
        """The rows of a batch as they are kept."""
        return tuple(column.gather(index) for column in self.columns)

    def decode(self, kept: Sequence[Tensor], generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """The batch as served, on the device of its rows as they are kept."""
        rows = tuple(column.decode(part) for column, part in zip(self.columns, kept, strict=True))
        return (self._redrawn(rows[0], generator), *rows[1:]) if self.protocol.drawn_anew else rows

    def _redrawn(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Observations of which each use is a new draw: bits of probabilities, or whole numbers with noise."""
        if self.protocol.dequantized == "anew":
            return dequantized(x, self.protocol.divisor, generator)
        return binarized(x, generator)

    def missing(self) -> Tensor:
        """Numbers of the rows that hold missing values (NaN), ascending."""
        x = self.columns[0]
        blocks = [
            rows.start + x[rows].isnan().reshape(rows.stop - rows.start, -1).any(1).nonzero()[:, 0]
            for rows in in_blocks(x)
        ]
        return torch.cat(blocks)

    def log_jacobians(self) -> Tensor | None:
        """The log Jacobian of each row where values are missing, (N,) nats, float64; None where that of all is one.

        It counts the values that a row has; the protocol holds the mean.
        """
        protocol, x = self.protocol, self.columns[0]
        if protocol.log_jacobian == 0 or not len(self.missing()):
            return None
        log_scale = torch.tensor(protocol.scale or (protocol.divisor,), dtype=torch.float64).log()
        blocks = [(~x[rows].isnan()).flatten(1).double().cpu() for rows in in_blocks(x)]
        return torch.cat([-(seen * log_scale).sum(1) for seen in blocks])

    def drawn(self, seed: int) -> "Split":
        """The split with its rows fixed: where they would be drawn anew at each use, one draw of them all.

        Args:
            seed: of that draw, on the CPU; the protocol then says "static", or "once".

        Raises:
            InputError: where a draw of rows that stay in a file takes too much memory, at a byte a value.
        """
        if not self.protocol.drawn_anew:
            return self
        x, noise, whole = self.columns[0], stream("drawn", seed), self.protocol.dequantized == "anew"
        require_room(self.protocol.dataset, x, size=4 if whole else 1)
        blocks = [self._drawn_once(x[rows].cpu(), noise) for rows in in_blocks(x)]
        columns = (Column(torch.cat(blocks).to(x.device), x.dtype), *self.columns[1:])
        sha256 = describe(columns, dataset=self.protocol.dataset, split=self.protocol.split).sha256
        kinds = ("none", "once") if whole else ("static", "none")
        protocol = replace(self.protocol, binarization=kinds[0], dequantized=kinds[1], seed=seed, sha256=sha256)
        return Split(columns, protocol, self.labels, self.source)

    def _drawn_once(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """One draw of some observations, in the least room."""
        if self.protocol.dequantized == "anew":
            return dequantized(x, self.protocol.divisor, noise)
        return torch.bernoulli(x, generator=noise).to(torch.uint8)

    def replaced(self, tensors: Sequence[Tensor]) -> "Split":
        """The same rows with other tensors in the place of theirs."""
        return self._with(tuple(map(_column, tensors)), self.labels, None)

    def _with(self, columns: tuple[Column, ...], labels: Tensor | None, source: Tensor | Mapped | None) -> "Split":
        metadata = {
            name: getattr(self.protocol, name)
            for name in ("dataset", "split", "binarization", "divisor", "seed", "shift", "scale", "dequantized")
        }
        return Split(columns, describe(columns, source=source, **metadata), labels, source)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three splits of one set.

    Attributes:
        name: as given to `load`, or the file's name.
        train, valid, test: the splits.
        kind: what a value is: "counts", "binary", "unit" (in [0, 1]) or "real"; or "table": each column its own.
        maximum: the largest count; 1 for "binary" and "unit", None for "real".
        num_classes: the number of classes of the labels, None where there are none.
        columns: of a table, what each column of the observations is; else None.
        covariates: of a table with a second tensor of covariates, what each column of them is.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    kind: str
    maximum: int | None
    num_classes: int | None
    columns: Columns | None = None
    covariates: Columns | None = None

    def __str__(self) -> str:
        parts = [("observed", self.columns), ("covariates", self.covariates)]
        return "\n".join([repr(self), *(f"{name}\n{columns}" for name, columns in parts if columns is not None)])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(split)} {split.protocol.split}" for split in (self.train, self.valid, self.test))
        return f"Dataset({self.name}: {self.range} of shape {tuple(self.shape)}; {sizes})"

    @property
    def shape(self) -> torch.Size:
        """The shape of one datum."""
        return self.train.shape

    @property
    def is_bytes(self) -> bool:
        """Whether values are levels of grey of 8 bits, the largest of which is no number of trials."""
        as_bytes = self.train.columns[0].kept.dtype == torch.uint8 and (self.maximum or 0) > 100
        return self.kind == "counts" and (as_bytes or self.maximum == 255)

    @property
    def range(self) -> str:
        """What a value is, in words: "counts 0..16"."""
        if self.columns is not None:
            return f"columns {self.columns.summary()}"
        words = {"counts": f"counts 0..{self.maximum}", "unit": "values in [0, 1]", "real": "reals"}
        return words.get(self.kind, self.kind)


def as_split(data: Any) -> Split:
    """Makes a split of whatever may be given as data.

    Args:
        data: a `Split` (returned as it is), a tensor or array (N, ...), or a tuple or list of these with
            one N. Dtypes are kept; what `numpy.load(path, mmap_mode="r")` gives stays in its file.

    Returns:
        The split; for tensors, of the set "user's tensor", split "all".

    Raises:
        InputError: something else, no rows, or different numbers of rows.

    Example:
        >>> as_split(torch.zeros(3, 2)).protocol.dataset
        "user's tensor"
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        raise InputError(f"expected one split, got the whole set {data.name}; give its .train, .valid or .test")
    columns = tuple(map(_column, data if isinstance(data, (tuple, list)) else (data,)))
    return Split(columns, describe(columns, dataset="user's tensor", split="all"))


def _column(data: Any) -> Column:
    if isinstance(data, Tensor):
        return Column(data, data.dtype)
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "buif":
        kind = f"array of {data.dtype}" if isinstance(data, np.ndarray) else type(data).__name__
        what = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        raise InputError(
            f"expected a Split, a tensor (N, ...) or a tuple of tensors, got {what}; make it a tensor with a row for "
            "each datum, or bind what all data share to both programs (functools.partial)"
        )
    if (mapped := in_file(data)) is not None:
        return Column(mapped, mapped.dtype)
    return _column(torch.as_tensor(data if data.flags.writeable else data.copy()))


def _some_known(labels: Tensor, num_labels: int, seed: int) -> Tensor:
    """Labels of which so many are left, as many of each class, and the others are -1."""
    classes, counts = labels.cpu().unique(return_counts=True)
    noise = stream("labels", seed)
    each, over = divmod(whole("num_labels", num_labels), len(classes))
    wanted = torch.full_like(classes, each)
    wanted[torch.randperm(len(classes), generator=noise)[:over]] += 1
    if num_labels < 0 or (wanted > counts).any():
        raise InputError(
            f"num_labels: expected 0 to {int(counts.min()) * len(classes)}, as many of each of {len(classes)} classes, "
            f"got {num_labels}"
        )
    known = torch.full_like(labels, -1)
    for name, count in zip(classes.tolist(), wanted.tolist(), strict=True):
        rows = (labels.cpu() == name).nonzero()[:, 0]
        kept = rows[torch.randperm(len(rows), generator=noise)[:count]].to(labels.device)
        known[kept] = name
    return known


def _row_numbers(index: Any, num_data: int) -> Tensor:
    rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
    if rows.dtype.kind == "b" and rows.shape == (num_data,):
        rows = rows.nonzero()[0]
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or rows.size == 0:
        told = repr(index) if rows.ndim == 0 else f"{rows.dtype} of shape {rows.shape}"
        raise InputError(
            f"expected a slice, row numbers, or a boolean for each of {num_data} rows, some of them true, got {told}; "
            "for one row give [i]"
        )
    if rows.min() < -num_data or rows.max() >= num_data:
        raise InputError(f"expected row numbers below {num_data}, got {rows.min()}..{rows.max()}; check them")
    return torch.from_numpy(rows.astype(np.int64) % num_data)
