"""Rows that stay in their file: mapped, asked for ahead of their use, and gathered while the device computes.

A batch takes the longer of two times, reading and computing, in place of their sum.
"""

from __future__ import annotations

import math
import mmap
import resource
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.data.encoding import Stored

if TYPE_CHECKING:
    from pyrovae.data.split import Split

__all__ = ["Mapped", "is_mapped", "lies_in_file", "open_npy"]
Array = np.ndarray[Any, np.dtype[Any]]
CPU = torch.device("cpu")


# ------------------------------------------------------------------------------------- rows in a file


@dataclass(frozen=True, eq=False)
class Mapped:
    """Some of the rows of an array that lies in a file, read as they are asked for.

    Args:
        array: of shape (M, *shape), as `numpy.load(path, mmap_mode="r")` gives it.
        rows: (N,) int64, which of them and in which order; it is all that is held in memory.
        device: where they are served.
    """

    array: Array
    rows: Tensor
    device: torch.device = CPU
    file: _File = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", _File(self.array))

    @property
    def shape(self) -> torch.Size:
        """(N, *shape)."""
        return torch.Size((len(self.rows), *self.array.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Of the file."""
        return _tensor(np.empty(0, self.array.dtype)).dtype

    @property
    def nbytes(self) -> int:
        """Bytes of memory, not of the file."""
        return self.rows.nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> Tensor:
        return self._read(self.rows[index])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Rows by their numbers, (B, *shape); the datum is the only dimension that they are taken from."""
        return self._read(self.rows[index.cpu()])

    def to(self, device: torch.device | str) -> Mapped:
        """The same rows, served on a device."""
        return replace(self, device=torch.device(device))

    def _read(self, rows: Tensor) -> Tensor:
        return _tensor(self.file.take(rows.numpy())).to(self.device)


class _File:
    """A mapped array: its rows, where they lie, and whether the file still holds them."""

    def __init__(self, array: Any) -> None:
        self.path, self.array = Path(str(array.filename)), np.asarray(array)
        self.buffer = _buffer(array)
        begin = np.frombuffer(self.buffer, np.uint8)
        self.start = _address(self.array) - _address(begin)  # of row 0, within the buffer
        self.width = self.array.nbytes // len(self.array)
        skipped = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY  # of the file, before the buffer
        self.end = skipped + self.start + self.array.nbytes
        self.cold = True  # whether the disk was read when rows were last taken

    def take(self, rows: Array) -> Array:
        """A copy of some rows.

        Raises:
            InputError: if the file was cut short; to touch its lost pages would kill the process.
        """
        if self.buffer.size() < self.end:
            raise InputError(
                f"{self.path}: expected {self.end} bytes, found {self.buffer.size()}: it was cut short while in use; "
                "write it again, and fit with resume"
            )
        before = _blocks_read()
        if self.cold and len(rows):
            self._ask(np.sort(rows))
        taken = np.take(self.array, rows, axis=0)
        self.cold = _blocks_read() > before
        return taken

    def _ask(self, rows: Array) -> None:
        """Lets the system read all these rows at once; without that, it would wait for each in turn."""
        first = (self.start + rows * self.width) // mmap.PAGESIZE * mmap.PAGESIZE
        after = self.start + (rows + 1) * self.width
        apart = first[1:] > after[:-1]
        firsts, afters = first[np.append(True, apart)], after[np.append(apart, True)]
        for begin, end in zip(firsts.tolist(), afters.tolist(), strict=True):
            self.buffer.madvise(mmap.MADV_WILLNEED, begin, end - begin)


def lies_in_file(array: Any) -> bool:
    """Whether an array is mapped, with its rows one after another, so that :class:`Mapped` can serve them."""
    mapped = isinstance(array, np.memmap) and isinstance(_buffer(array), mmap.mmap)
    return mapped and array.size > 0 and array.ndim > 0 and array.flags.c_contiguous


def _buffer(array: Any) -> Any:
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def _blocks_read() -> int:
    """How many blocks this thread has had read from disk."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_inblock


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]


def _tensor(array: Array) -> Tensor:
    """A tensor in the machine's own order of bytes."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def is_mapped(split: Split) -> bool:
    """Whether rows of a split stay in a file, so that batches are to be prefetched."""
    return any(isinstance(x, Stored) and isinstance(x.kept, Mapped) for x in split.tensors)


def open_npy(path: Path) -> Array:
    """Maps the array of a .npy file, of which nothing but the header is read.

    Raises:
        InputError: for a file that is cut short, and for arrays whose rows cannot be read one by one.
    """
    shape, fortran, dtype, start = _header(path)
    if dtype.hasobject or dtype.kind not in "buif" or dtype.itemsize > 8:
        raise InputError(f"{path}: expected numbers, got dtype {dtype}; save it with a numeric dtype")
    if fortran and len(shape) > 1:
        raise InputError(
            f"{path}: expected rows one after another, got an array in Fortran order, which scatters each row over the "
            "file; save numpy.ascontiguousarray of it, or read all of it into memory with mmap=False"
        )
    expected, found = start + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if found < expected:
        raise InputError(f"{path}: expected {expected} bytes for shape {shape}, found {found}; write it again")
    if expected == start:
        raise InputError(f"{path}: expected rows (N, ...) with N > 0, got shape {shape}; check the file")
    return np.memmap(path, dtype, "r", start, shape)


def _header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the array begins."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with path.open("rb") as file:
            header = read[np.lib.format.read_magic(file)](file)
            return *header, file.tell()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected a whole .npy file, got {error}; write it again") from error
