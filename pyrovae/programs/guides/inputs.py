r"""What an encoder reads: numbers as standard scores with missing ones at zero, labels as one of their classes.

.. math:: x_d \mapsto (x_d - \mathrm{mean}_d) / \mathrm{sd}_d
"""

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
