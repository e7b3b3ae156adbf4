r"""Rows kept in a smaller form that gives them back bit for bit: a byte for a quotient, a bit for zero or one.

.. math:: x = k / c, \quad k \in \{0, \dots, 255\}, \qquad \text{or} \qquad x \in \{0, 1\}

A batch is gathered as it is kept and decoded on the device where it is used, so that a quarter or a thirty-second
of the memory holds the same float32 rows, and a gather reads as much less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.data.protocol import in_blocks

if TYPE_CHECKING:
    from pyrovae.data.memmap import Mapped
    from pyrovae.data.split import Split

__all__ = ["Bits", "Compact", "Decoder", "Scaled", "Stored", "binarized", "pack"]
GREY = 255.0  # the divisor of images that come as values in [0, 1]
FIRST_LOOK = 16  # rows that refute most forms
BITS_FROM = 2**30  # values; with fewer, bytes fit anywhere, and 128 rows of 784 take 26 us to bits' 39 (floats: 48)


# ------------------------------------------------------------------------------------------ the two forms


class Scaled(NamedTuple):
    """Served rows are what is kept in another dtype, over a divisor.

    Attributes:
        dtype: of the rows as served.
        divisor: () of that dtype, on the device of what is decoded; None is 1. As a tensor it divides alike
            on every device, where CUDA multiplies by the reciprocal of a plain number.
    """

    dtype: torch.dtype
    divisor: Tensor | None = None

    @classmethod
    def by(cls, divisor: float, dtype: torch.dtype) -> Scaled:
        """Division by a plain number."""
        return cls(dtype, None if divisor == 1.0 else torch.tensor(divisor, dtype=dtype))

    def encode(self, rows: Tensor) -> Tensor:
        """The nearest whole numbers k, as bytes."""
        scaled = rows if self.divisor is None else rows * self.divisor
        return scaled.round().to(torch.uint8)

    def decode(self, kept: Tensor) -> Tensor:
        """Rows as served, (B, *shape)."""
        values = kept.to(self.dtype)
        return values if self.divisor is None else values / self.divisor

    def to(self, device: torch.device | str) -> Scaled:
        """The same, for what is kept on a device."""
        return self if self.divisor is None else Scaled(self.dtype, self.divisor.to(device))


class Bits(NamedTuple):
    """Served rows are zeros and ones, of which eight are kept in a byte, as `numpy.packbits` does.

    Attributes:
        shape: of one datum.
        table: (256, 8), the values that each byte stands for, in the dtype of the rows as served.
    """

    shape: torch.Size
    table: Tensor

    @classmethod
    def of(cls, shape: torch.Size, dtype: torch.dtype) -> Bits:
        """For data of a shape, served in a dtype."""
        return cls(shape, (torch.arange(256)[:, None] & _weights(torch.device("cpu"))).ne(0).to(dtype))

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows as served."""
        return self.table.dtype

    def encode(self, rows: Tensor) -> Tensor:
        """Bytes (B, ceil(D / 8))."""
        return pack(rows)

    def decode(self, kept: Tensor) -> Tensor:
        """Rows as served, (B, *shape): each byte's values are looked up, which takes less than shifting them out."""
        values = self.table.index_select(0, kept.flatten().int()).view(len(kept), kept.shape[1] * 8)
        return values[:, : math.prod(self.shape)].reshape(len(kept), *self.shape).contiguous()

    def to(self, device: torch.device | str) -> Bits:
        """The same, for what is kept on a device."""
        return Bits(self.shape, self.table.to(device))


def pack(rows: Tensor) -> Tensor:
    """Which values of (B, *shape) are not zero, eight to a byte: (B, ceil(D / 8)), the last bits zero.

    Example:
        >>> pack(torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 1, 1]])).tolist()
        [[129, 128]]
    """
    ones = rows.ne(0).flatten(1) if rows.dim() > 1 else rows.ne(0)[:, None]
    ones = torch.nn.functional.pad(ones, (0, -ones.shape[1] % 8)).view(len(rows), -1, 8)
    return (ones * _weights(rows.device)).sum(-1, dtype=torch.uint8)


def binarized(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Zeros and ones of the same shape and dtype, by comparison: on a CPU a third of what `torch.bernoulli` takes."""
    dtype, device = probabilities.dtype, probabilities.device
    uniform = torch.rand(probabilities.shape, generator=generator, dtype=dtype, device=device)
    return (uniform < probabilities).to(dtype)


def _weights(device: torch.device) -> Tensor:
    return torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)


# ------------------------------------------------------------------------------------------- what is kept


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows (N, *shape) kept in another form than they are served in; of a tensor it has what a split needs.

    Attributes:
        kept: the rows as they are kept: a tensor, or :class:`~pyrovae.data.memmap.Mapped` rows of a file.
        code: how they are decoded.
    """

    kept: Tensor | Mapped
    code: Scaled | Bits

    @property
    def shape(self) -> torch.Size:
        """(N, *shape), of the rows as served."""
        datum = self.code.shape if isinstance(self.code, Bits) else self.kept.shape[1:]
        return torch.Size((len(self.kept), *datum))

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows as served."""
        return self.code.dtype

    @property
    def device(self) -> torch.device:
        """Where rows are served."""
        return self.kept.device

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Rows as served; ``index`` is a slice, or int64 row numbers from 0."""
        return self.code.decode(self.gather(index))

    def gather(self, index: slice | Tensor) -> Tensor:
        """Rows as they are kept."""
        if isinstance(index, slice):
            return self.kept[index]
        return self.kept.index_select(0, index.to(self.kept.device) if isinstance(self.kept, Tensor) else index)

    def to(self, device: torch.device | str) -> Stored:
        """The same rows, served on a device."""
        return Stored(self.kept.to(device), self.code.to(device))

    def __getattr__(self, name: str) -> NoReturn:
        if not name.startswith("_") and hasattr(Tensor, name):
            self._refuse(f".{name}")
        raise AttributeError(f"'Stored' object has no attribute {name!r}")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        cls._refuse(getattr(function, "__name__", str(function)))

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise InputError(
            f"expected a tensor for {what}, got rows that are kept in a file or as bits, and served batch by batch; "
            "take some of them into memory: split[:1000]"
        )


# ------------------------------------------------------------------------------------------ a whole split


@dataclass(frozen=True, eq=False)
class Compact:
    """A split's tensors in the smallest form that is exact; its batches equal those of the split bit for bit.

    Attributes:
        columns: one for each of the split's tensors.
        drawn_anew: whether the first holds probabilities, of which each batch is a new draw.

    Example:
        >>> from pyrovae.data import load
        >>> train = load("digits", binarization="dynamic").train
        >>> compact, rows = Compact.of(train), torch.tensor([7, 1])
        >>> train.x.nbytes / compact.nbytes
        4.0
        >>> first, second = (one.batch(rows, torch.Generator().manual_seed(0))[0] for one in (train, compact))
        >>> torch.equal(first, second)
        True
    """

    columns: tuple[Stored, ...]
    drawn_anew: bool

    @classmethod
    def of(cls, split: Split) -> Compact:
        """Finds the smallest exact form of each tensor: bits (of large sets), bytes, bytes over 255 or the protocol's
        divisor, or the tensor as it is."""
        columns = tuple(_smallest(tensor, split.protocol.divisor) for tensor in split.tensors)
        return cls(columns, split.protocol.drawn_anew)

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the rows take as they are kept."""
        return sum(column.kept.nbytes for column in self.columns)

    def to(self, device: torch.device | str) -> Compact:
        """The same rows, kept (those of a file: served) on a device."""
        return Compact(tuple(column.to(device) for column in self.columns), self.drawn_anew)

    def batch(self, rows: Tensor | slice, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """What `Split.batch` gives for these rows and this generator; row numbers count from 0."""
        return self.decoder.decode(self.gather(rows), generator)

    def gather(self, rows: Tensor | slice) -> tuple[Tensor, ...]:
        """The rows of a batch as they are kept."""
        return tuple(column.gather(rows) for column in self.columns)

    @property
    def decoder(self) -> Decoder:
        """What makes a batch of its rows as they are kept."""
        return Decoder(tuple(column.code for column in self.columns), self.drawn_anew)


class Decoder(NamedTuple):
    """What makes a batch of its rows as they are kept: a code for each tensor, and whether the first is drawn."""

    codes: tuple[Scaled | Bits, ...]
    drawn_anew: bool

    def decode(self, kept: tuple[Tensor, ...], generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """The batch as it is served; the generator is on the device of the rows."""
        served = tuple(code.decode(rows) for code, rows in zip(self.codes, kept, strict=True))
        return (binarized(served[0], generator), *served[1:]) if self.drawn_anew else served

    def to(self, device: torch.device | str) -> Decoder:
        """The same, for rows on a device."""
        return Decoder(tuple(code.to(device) for code in self.codes), self.drawn_anew)


def _smallest(tensor: Tensor | Stored, divisor: float) -> Stored:
    if isinstance(tensor, Stored):
        return tensor
    for code in _codes(tensor, divisor):
        code = code.to(tensor.device)
        if _encoded(tensor[:FIRST_LOOK], code) is not None and (kept := _encoded(tensor, code)) is not None:
            return Stored(kept, code)
    return Stored(tensor, Scaled(tensor.dtype))


def _codes(tensor: Tensor, divisor: float) -> Iterator[Scaled | Bits]:
    """The forms that could do, in the order in which they are to be preferred."""
    if tensor.is_complex() or tensor.requires_grad:
        return
    if tensor.numel() >= BITS_FROM:
        yield Bits.of(tensor.shape[1:], tensor.dtype)
    if tensor.dtype.itemsize > 1:
        yield Scaled(tensor.dtype)
    if tensor.is_floating_point():
        yield from (Scaled.by(value, tensor.dtype) for value in {divisor, GREY} - {1.0})


def _encoded(tensor: Tensor, code: Scaled | Bits) -> Tensor | None:
    """The rows in another form, or None where that does not give back every bit of them (-0.0 and NaN too)."""
    blocks = []
    for rows in in_blocks(tensor):
        block = tensor[rows].contiguous()
        blocks.append(code.encode(block))
        if not torch.equal(code.decode(blocks[-1]).view(torch.uint8), block.view(torch.uint8)):
            return None
    return torch.cat(blocks)
