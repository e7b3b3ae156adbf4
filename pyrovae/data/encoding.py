r"""A column of a split: rows as they are kept, and how they are decoded where they are used.

.. math:: x = k / c, \quad \text{the kept } k \text{ mostly a byte, } c \text{ the divisor}

A batch is gathered as it is kept and decoded on its device, so that images of bytes take a quarter of the memory
of their float32 values, and a gather reads as much less.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import machine_memory
from pyrovae.data.memmap import Mapped


@dataclass(frozen=True, eq=False, repr=False)
class Column:
    """Rows (N, *shape): kept in memory or in a file, and served in a dtype after division by a number.

    Attributes:
        kept: the rows as they are kept.
        dtype: of the rows as served.
        divisor: what is kept is divided by it, in that dtype.

    Example:
        >>> pixels = Column(torch.tensor([[0, 51], [255, 1]], dtype=torch.uint8), torch.float32, 255.0)
        >>> pixels[:1]
        tensor([[0.0000, 0.2000]])
    """

    kept: Tensor | Mapped
    dtype: torch.dtype
    divisor: float = 1.0

    @property
    def shape(self) -> torch.Size:
        """(N, *shape)."""
        return self.kept.shape

    @property
    def device(self) -> torch.device:
        """Where rows are served."""
        return self.kept.device

    @property
    def mapped(self) -> bool:
        """Whether the rows stay in a file."""
        return isinstance(self.kept, Mapped)

    def __len__(self) -> int:
        return len(self.kept)

    def __repr__(self) -> str:
        text = f"{self.dtype} {tuple(self.shape[1:])}, kept as {self.kept.dtype}{' in a file' if self.mapped else ''}"
        return text.replace("torch.", "")

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Rows as served, (B, *shape), by a slice or by int64 numbers from 0."""
        return self.decode(self.gather(rows))

    def gather(self, rows: slice | Tensor) -> Tensor:
        """Rows as they are kept, (B, *shape)."""
        if isinstance(rows, Tensor) and isinstance(self.kept, Tensor):  # of bytes ten times as fast as an index
            return self.kept.index_select(0, rows.to(self.kept.device))
        return self.kept[rows]

    def decode(self, kept: Tensor) -> Tensor:
        """Rows as served, from rows as kept. The divisor is a tensor: by a plain number, CUDA would multiply."""
        values = kept.to(self.dtype)
        if self.divisor == 1.0:
            return values
        return values / torch.full((), self.divisor, dtype=self.dtype, device=kept.device)

    def tensor(self) -> Tensor:
        """All rows as served, (N, *shape).

        Raises:
            InputError: where they stay in a file.
        """
        if isinstance(self.kept, Mapped):
            raise InputError(
                f"{self.kept.path}: expected a tensor, got {len(self)} rows that stay in this file and are served "
                "batch by batch; take some of them into memory: split[:1000]"
            )
        return self.decode(self.kept)

    def to(self, device: torch.device | str) -> "Column":
        """The same rows, kept (those of a file: served) on a device."""
        return Column(self.kept.to(device), self.dtype, self.divisor)


def binarized(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Zeros and ones of the same shape and dtype, by comparison: on a CPU a third of what `torch.bernoulli` takes."""
    dtype, device = probabilities.dtype, probabilities.device
    uniform = torch.rand(probabilities.shape, generator=generator, dtype=dtype, device=device)
    return (uniform < probabilities).to(dtype)


def dequantized(values: Tensor, divisor: float, generator: torch.Generator | None = None) -> Tensor:
    """Whole numbers k over a divisor c, with uniform noise of one of their steps: (k + u) / c, u in [0, 1).

    References:
        Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, arXiv:1511.01844.
    """
    noise = torch.rand(values.shape, generator=generator, dtype=values.dtype, device=values.device)
    above = torch.nextafter(values + 1 / divisor, values)  # of u next to 1, which rounding would make 1
    return torch.minimum(values + noise / divisor, above)


def require_room(name: str, column: Column, *, size: int = 1) -> None:
    """Raises InputError where rows of a file, drawn once and held (at so many bytes a value), take too much memory."""
    needed, memory = math.prod(column.shape) * size, machine_memory()
    if column.mapped and needed > memory // 4:
        drawn, undrawn = ("binarize", 'with binarization="none"') if size == 1 else ("dequantize", "as they are")
        raise InputError(
            f"{name}: expected {drawn}d rows of a quarter of the memory at most ({memory / 4e9:.3g} GB), got "
            f"{needed / 1e9:.3g} GB, {size} bytes a value; {drawn} the rows in the file itself and load them {undrawn}"
        )
