"""A split: tensors whose first dimension is the datum, and the protocol of how they came to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.random import stream
from pyrovae.data.encoding import Bits, Scaled, Stored, binarized, pack
from pyrovae.data.memmap import Mapped, lies_in_file
from pyrovae.data.protocol import Protocol, describe, digest, in_blocks

__all__ = ["Dataset", "Split", "as_split"]

# ---------------------------------------------------------------------------------------- the records


@dataclass(frozen=True, eq=False)
class Split:
    """A tuple of tensors with the datum as first dimension, and how they came to be.

    Attributes:
        tensors: the observations (N, *shape) first; what the programs get as positional arguments. Rows that
            stay in a file stand here as :class:`~pyrovae.data.encoding.Stored`, of which `batch` and slices give
            tensors.
        protocol: how the rows came to be.
        labels: (N,) int64, never passed to programs unless by `with_labels`.
        source: the observations before rescaling or binarization; None where they are as found.

    Example:
        >>> from pyrovae.data import load
        >>> test = load("digits").test
        >>> len(test), test.shape
        (300, torch.Size([8, 8]))
        >>> [tuple(tensor.shape) for tensor in test.with_labels()[:5].tensors]
        [(5, 8, 8), (5,)]
    """

    tensors: tuple[Tensor, ...]
    protocol: Protocol
    labels: Tensor | None = None
    source: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_rows(self.tensors if self.labels is None else (*self.tensors, self.labels))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def x(self) -> Tensor:
        """The observations, (N, *shape); under dynamic binarization the probabilities of the train split."""
        return self.tensors[0]

    @property
    def shape(self) -> torch.Size:
        """The shape of one datum."""
        return self.x.shape[1:]

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Split:
        """Some of the rows, in memory, as a split with its own size and hashes; to train, use the cheaper `batch`."""
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self  # all of them, with the protocol that they have
        rows = index if isinstance(index, slice) else _row_numbers(index, len(self))
        return self._with(
            tuple(tensor[_on(rows, tensor)] for tensor in self.tensors),
            None if self.labels is None else self.labels[_on(rows, self.labels)],
            None if self.source is None else self.source[_on(rows, self.source)],
        )

    def to(self, device: torch.device | str) -> Split:
        """The same split with its tensors and labels on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, tensors=tuple(tensor.to(device) for tensor in self.tensors), labels=labels)

    def with_labels(self) -> Split:
        """The split with tensors (x, labels), so that programs get both; `sha256` then covers both."""
        if self.labels is None:
            raise InputError(
                f"{self.protocol.dataset}: expected labels, but this set has none; give a tuple of tensors (x, labels)"
            )
        return self._with((self.x, self.labels), self.labels, self.source)

    def batch(self, index: Tensor | slice, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Some of the rows as bare tensors; a dynamically binarized train split draws them anew at each call.

        Args:
            index: (B,) int64 row numbers, or a slice.
            generator: of the draw, on the tensors' device; torch's default generator when None.

        Returns:
            One tensor (B, ...) for each of `tensors`.
        """
        rows = tuple(tensor[index] for tensor in self.tensors)
        return (binarized(rows[0], generator), *rows[1:]) if self.protocol.drawn_anew else rows

    def missing(self) -> Tensor:
        """Numbers of the rows that hold missing values (NaN), ascending."""
        blocks = [
            rows.start + self.x[rows].isnan().reshape(rows.stop - rows.start, -1).any(1).nonzero()[:, 0]
            for rows in in_blocks(self.x)
        ]
        return torch.cat(blocks)

    def drawn(self, seed: int) -> Split:
        """The split with its rows fixed: where they would be drawn anew at each use, one draw of them all.

        Args:
            seed: of that draw, on the CPU; the protocol then says "static".
        """
        if not self.protocol.drawn_anew:
            return self
        tensors = (_drawn(self.x, stream(seed, "drawn")), *self.tensors[1:])
        protocol = replace(self.protocol, binarization="static", seed=seed, sha256=digest(tensors))
        return Split(tensors, protocol, self.labels, self.source)

    def _with(self, tensors: tuple[Tensor, ...], labels: Tensor | None, source: Tensor | None) -> Split:
        _check_rows(tensors)
        old = self.protocol
        protocol = describe(
            tensors,
            source=source,
            dataset=old.dataset,
            split=old.split,
            binarization=old.binarization,
            divisor=old.divisor,
            seed=old.seed,
        )
        return Split(tensors, protocol, labels, source)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one set.

    Attributes:
        name: as given to `load`, or the file's name.
        train, valid, test: the splits.
        kind: what a value is: "counts", "binary", "unit" (in [0, 1]) or "real".
        maximum: the largest count; 1 for "binary" and "unit", None for "real".
        num_classes: the number of classes of the labels, None where there are none.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    kind: str
    maximum: int | None
    num_classes: int | None

    @property
    def shape(self) -> torch.Size:
        """The shape of one datum."""
        return self.train.shape

    @property
    def range(self) -> str:
        """What a value is, in words: "counts 0..16"."""
        words = {
            "counts": f"counts 0..{self.maximum}",
            "binary": "binary",
            "unit": "values in [0, 1]",
            "real": "reals",
        }
        return words[self.kind]


# ----------------------------------------------------------------------------------------- to splits


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
    tensors = tuple(map(_as_tensor, data)) if isinstance(data, (tuple, list)) else (_as_tensor(data),)
    _check_rows(tensors)
    return Split(tensors, describe(tensors, dataset="user's tensor", split="all"))


def _drawn(x: Any, noise: torch.Generator) -> Tensor:
    """One draw of all probabilities, (N, *shape); as bits where they lie in a file."""
    if isinstance(x, Tensor):
        return torch.bernoulli(x.cpu(), generator=noise).to(x.device)
    blocks = [pack(torch.bernoulli(x[rows].cpu(), generator=noise)) for rows in in_blocks(x)]
    return cast(Tensor, Stored(torch.cat(blocks), Bits.of(x.shape[1:], x.dtype)).to(x.device))


def _as_tensor(data: Any) -> Tensor:
    if isinstance(data, Tensor):
        return data
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "buif":
        what = f"an array of {data.dtype}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
        raise InputError(f"expected a Split, a tensor (N, ...) or a tuple of tensors, got {what}; make it a tensor")
    if lies_in_file(data):
        rows = Mapped(data, torch.arange(len(data)))
        return cast(Tensor, Stored(rows, Scaled(rows.dtype)))
    return torch.as_tensor(data if data.flags.writeable else data.copy())


def _check_rows(tensors: Sequence[Tensor]) -> None:
    """Demands tensors of one and the same N > 0."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
        raise InputError(
            f"expected tensors of one first dimension N > 0 (the datum), got shapes {shapes}; "
            "give each one row per datum"
        )


def _row_numbers(index: Any, num_data: int) -> Tensor:
    rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or rows.size == 0:
        raise InputError(
            f"expected a slice, or a list or LongTensor of row numbers, got {index!r}; for one row give [i]"
        )
    if rows.min() < -num_data or rows.max() >= num_data:
        raise InputError(f"expected row numbers below {num_data}, got {rows.min()}..{rows.max()}; check them")
    return torch.from_numpy(rows.astype(np.int64) % num_data)


def _on(rows: slice | Tensor, tensor: Tensor) -> slice | Tensor:
    return rows if isinstance(rows, slice) else rows.to(tensor.device)
