"""Where the plates of a program lie, and rows of them: one row holds all that a program has of one datum.

Programs keep data at a dimension of their own among other plates, with particles to the left of all; networks read
rows (*particles, N, features). The two methods here go from one to the other.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Size, Tensor


class Layout(NamedTuple):
    """The plates of one program.

    Example:
        >>> import torch
        >>> layout = Layout(dim=-1, depth=2)  # data in the last dimension, and members of a datum before it
        >>> sizes = layout.sizes({-2: 3})
        >>> rows = layout.to_rows(torch.zeros(10, 3, 5, 2), sizes)  # 10 particles, 3 members, 5 data, 2 features
        >>> rows.shape, layout.from_rows(rows, sizes, 2).shape
        (torch.Size([10, 5, 6]), torch.Size([10, 3, 5, 2]))
    """

    dim: int  # of the data plate, counted from the right (negative)
    depth: int  # how many dimensions the plates of the program take

    def sizes(self, plates: Mapping[int, int]) -> Size:
        """Shape of one datum's part of a site in these plates: dimension -> size; 1 for the data and where none is."""
        return Size([1 if dim == self.dim else plates.get(dim, 1) for dim in range(-self.depth, 0)])

    def to_rows(self, value: Tensor, sizes: Size) -> Tensor:
        """Features (*batch, F) of each place of a site's plates -> (*particles, N, all of them)."""
        value = value.reshape((1,) * (self.depth + 1 - value.dim()) + value.shape)
        value = value.movedim(self.dim - 1, -self.depth - 1)
        inside = self._inside(sizes)
        return value.expand(*value.shape[: value.dim() - self.depth], *inside, -1).flatten(-self.depth)

    def from_rows(self, rows: Tensor, sizes: Size, own_depth: int) -> Tensor:
        """Rows (*particles, N, P of each place) -> (*batch, P), in no more dimensions than a plain run needs.

        Args:
            rows: of all places of a site's plates, one after another.
            sizes: of one datum's part, as :meth:`sizes` gives them.
            own_depth: dimensions that the plates of this site take.
        """
        value = rows.unflatten(-1, (*self._inside(sizes), -1)).movedim(-self.depth - 1, self.dim - 1)
        return value.reshape(value.shape[self.depth - own_depth :]) if value.dim() == self.depth + 1 else value

    def _inside(self, sizes: Size) -> tuple[int, ...]:
        """The sizes without that of the data."""
        return tuple(size for dim, size in zip(range(-self.depth, 0), sizes, strict=True) if dim != self.dim)
