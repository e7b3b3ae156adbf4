"""Rows that stay in their .npy file: mapped, and asked of the disk together before they are read."""

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]
CPU = torch.device("cpu")


class Mapped:
    """Some of the rows of an array that lies in a file, read as they are asked for.

    Args:
        array: of shape (M, *shape), as `numpy.load(path, mmap_mode="r")` gives it.
        rows: (N,) int64, which of them and in which order; it is all that is held in memory.
        device: where they are served.
    """

    def __init__(self, array: Any, rows: Tensor, device: torch.device | str = CPU) -> None:
        self.array, self.rows, self.device = array, rows, torch.device(device)
        self.path, self.buffer = Path(str(array.filename)), _buffer(array)
        self.start = array.ctypes.data - np.frombuffer(self.buffer, np.uint8).ctypes.data  # of row 0, in the buffer
        skipped = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY  # of the file, before the buffer
        self.end = skipped + self.start + array.nbytes

    @property
    def shape(self) -> torch.Size:
        """(N, *shape)."""
        return torch.Size((len(self.rows), *self.array.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Of the file."""
        return _tensor(np.empty(0, self.array.dtype)).dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Rows in memory, (B, *shape).

        Raises:
            InputError: if the file was cut short; to touch its lost pages would kill the process.
        """
        if self.buffer.size() < self.end:
            raise InputError(
                f"{self.path}: expected {self.end} bytes, found {self.buffer.size()}: it was cut short while in use; "
                "write it again, and fit with resume"
            )
        rows = self.rows[index if isinstance(index, slice) else index.cpu()].numpy()
        if len(rows):
            self._ask(rows)
        return _tensor(np.take(np.asarray(self.array), rows, axis=0)).to(self.device)

    def to(self, device: torch.device | str) -> "Mapped":
        """The same rows, served on a device."""
        return Mapped(self.array, self.rows, device)

    def _ask(self, rows: Array) -> None:
        """Lets the system read just these rows, all at once; else it waits for each, and reads far around it.

        Where nothing stays in the cache, 128 rows of 784 float32 take 1.8 ms so, else 12 (no reading ahead
        at all) to 120 (8 MB of it).
        """
        width = self.array.nbytes // len(self.array)
        begins = np.sort(self.start + rows * width)
        firsts, ends = begins // mmap.PAGESIZE * mmap.PAGESIZE, begins + width
        apart = firsts[1:] > ends[:-1]  # rows in a run are asked for once: there may be millions of narrow ones
        firsts, ends = firsts[np.append(True, apart)], ends[np.append(apart, True)]
        for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
            self.buffer.madvise(mmap.MADV_WILLNEED, first, end - first)


def in_file(array: Any) -> Mapped | None:
    """The rows of an array that is mapped, with its rows one after another; None for one that is in memory."""
    if not isinstance(array, np.memmap) or not isinstance(_buffer(array), mmap.mmap):
        return array if isinstance(array, Mapped) else None
    rows = array.size > 0 and array.ndim > 0 and array.flags.c_contiguous
    return Mapped(array, torch.arange(len(array))) if rows else None


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


def _buffer(array: Any) -> Any:
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def _tensor(array: Array) -> Tensor:
    """A tensor in the machine's own order of bytes."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
