r"""What an encoder reads: numbers as standard scores with missing ones at zero, labels as one of their classes.

.. math:: x_d \mapsto (x_d - \mathrm{mean}_d) / \mathrm{sd}_d
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

LEAST_SD = 0.1  # of the root mean square sd of all entries: one that hardly varies is not blown up


class Numbers(nn.Module):
    """Entries of one argument as standard scores, and which were seen, where some of the data are missing (NaN).

    Args:
        mean: of each entry, of the shape of one datum.
        sd: likewise; an entry that does not vary has 0.
        has_missing: whether what is seen is read too.
    """

    def __init__(self, mean: Tensor, sd: Tensor, *, has_missing: bool) -> None:
        super().__init__()
        least = LEAST_SD * sd.square().mean().sqrt()
        sd = sd.clamp_min(least)
        self.mean, self.sd = nn.Buffer(mean), nn.Buffer(torch.where(sd > 0, sd, 1.0))
        self.has_missing = has_missing
        self.size = mean.numel() * (2 if has_missing else 1)

    def scores(self, x: Tensor) -> Tensor:
        """(N, *shape) -> the same shape."""
        return ((x.to(self.mean) - self.mean) / self.sd).nan_to_num(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, *shape) -> (N, size)."""
        read = self.scores(x).reshape(len(x), -1)
        return torch.cat([read, (~x.isnan()).to(read).reshape(len(x), -1)], -1) if self.has_missing else read


class Labels(nn.Module):
    """Whole numbers (N,) as one of the classes that the data showed; another is none of them.

    Args:
        classes: (C,), each once.
        like: of the dtype in which it is read.
    """

    def __init__(self, classes: Tensor, like: Tensor) -> None:
        super().__init__()
        self.classes, self.like, self.size = nn.Buffer(classes), nn.Buffer(like.new_zeros(())), len(classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N,) -> (N, C)."""
        return (x[:, None] == self.classes).to(self.like)


class TableRows(nn.Module):
    """Rows of a table as a network reads them: numbers as standard scores, classes one by one, and which were seen.

    Positive columns are scored by their logarithms, counts by log(1 + x), proportions by their log odds.

    Args:
        kinds: of each column its kind and how many labels it has.
        rows: (N, D), of the training data: what scores are counted from.
        missing: (D,) booleans, the columns of which it is read whether they are missing.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [3.0, 2.0], [torch.nan, 1.0]])
        >>> TableRows([("real", 0), ("categorical", 3)], rows, torch.tensor([True, False]))(rows)
        tensor([[-1.,  1.,  0.,  0.,  1.],
                [ 1.,  0.,  0.,  1.,  1.],
                [ 0.,  0.,  1.,  0.,  0.]])
    """

    def __init__(self, kinds: Sequence[tuple[str, int]], rows: Tensor, missing: Tensor) -> None:
        super().__init__()
        names, dtype = [kind for kind, _ in kinds], rows.dtype
        several = [(place, count) for place, (kind, count) in enumerate(kinds) if kind == "categorical"]
        classes = [(place, k) for place, count in several for k in range(count)]
        for name in _MOVES:
            self.register_buffer(f"is_{name}", torch.tensor([one == name for one in names]))
        self.numbers = nn.Buffer(torch.tensor([p for p, kind in enumerate(names) if kind != "categorical"]).long())
        self.places = nn.Buffer(torch.tensor([place for place, _ in classes]).long())
        self.classes = nn.Buffer(torch.tensor([k for _, k in classes], dtype=dtype))
        self.missing = nn.Buffer(missing.nonzero().flatten())
        moved = self._moved(rows)
        mean = moved.nanmean(0)
        sd = (moved - mean).square().nanmean(0).sqrt()
        self.mean, self.sd = nn.Buffer(mean), nn.Buffer(torch.where(sd > 0, sd, 1.0))
        self.size = len(self.numbers) + len(classes) + len(self.missing)

    def _moved(self, x: Tensor) -> Tensor:
        """Rows with columns moved to the line where their kind has a bound."""
        for name, move in _MOVES.items():
            x = torch.where(getattr(self, f"is_{name}"), move(x), x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, size)."""
        scores = ((self._moved(x.to(self.mean)) - self.mean) / self.sd).nan_to_num(0.0)
        classes = x.index_select(-1, self.places) == self.classes
        seen = ~x.index_select(-1, self.missing).isnan()
        return torch.cat([scores.index_select(-1, self.numbers), classes.to(scores), seen.to(scores)], -1)


_LEAST = 1e-30  # of what is positive, so that zeros on which a program is tried have a logarithm
_MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "positive": lambda x: x.clamp_min(_LEAST).log(),
    "count": lambda x: x.clamp_min(0.0).log1p(),
    "proportion": lambda x: torch.logit(x, eps=1e-6),
}
