r"""Many right answers: do draws of p(x | y) differ from each other as much as data of one class do, and from the data?

For draws x' and data x of a class, with d the Euclidean distance,

.. math:: D_{draws} = E\, d(x'_1, x'_2), \qquad D_{data} = E\, d(x_1, x_2), \qquad
    \mathcal{E} = 2 E\, d(x', x) - D_{draws} - D_{data} \ge 0

The energy distance (Székely and Rizzo 2013) is 0 only where both have one distribution; draws of too little diversity
have D_draws < D_data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record, number
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import as_split
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import sample


@dataclass(frozen=True, eq=False, repr=False)
class Diversity(Record):
    """Mean distances within and between draws and data of each of C classes, (C,) each, float64."""

    site: str
    classes: list[int]
    num_data: Tensor  # rows of the class, and as many draws
    draws: Tensor  # mean distance of two draws
    se_draws: Tensor
    data: Tensor  # mean distance of two data
    se_data: Tensor
    between: Tensor  # mean distance of a draw and a datum
    seed: int
    protocol: Protocol

    def __repr__(self) -> str:
        return f"Diversity(C={len(self.classes)}, draws / data {self.ratio.mean():.3f})"

    @property
    def ratio(self) -> Tensor:
        """How far draws are apart, of how far data are: (C,)."""
        return self.draws / self.data

    @property
    def energy(self) -> Tensor:
        """The energy distance of draws and data; below 0 by chance alone: (C,)."""
        return 2 * self.between - self.draws - self.data

    def row_names(self) -> Sequence[str]:
        return list(map(str, self.classes))

    def table(self) -> dict[str, Tensor]:
        """One row for each class."""
        return super().table() | {"ratio": self.ratio, "energy": self.energy}

    def numbers(self) -> dict[str, Any]:
        """The table, class by class, and the means over classes."""
        means = {name: number(getattr(self, name).mean()) for name in ("draws", "data", "ratio", "energy")}
        return {"of_classes": self.named_rows(), "mean": means}

    def lines(self) -> list[str | TextTable]:
        table = self.table()
        rows = zip(self.row_names(), *(table[name].tolist() for name, *_ in _SHOWN), strict=True)
        columns = [("class", "<7", ""), *((head, pad, form) for _, head, pad, form in _SHOWN)]
        return [
            str(self.protocol),
            f"site '{self.site}': Euclidean distances within a class, of as many draws of the model as there are data",
            "",
            TextTable(columns, [*rows]),
            "",
            f"mean over classes: draws are {self.ratio.mean():.1%} as far apart as data, energy distance "
            f"{self.energy.mean():.4g} (0 where both have one distribution)",
        ]


_SHOWN: list[tuple[str, str, str, str]] = [
    ("num_data", "data", ">7", ".0f"),
    ("draws", "two draws", ">11", ".4g"),
    ("se_draws", "SE", ">9", ".2g"),
    ("data", "two data", ">10", ".4g"),
    ("se_data", "SE", ">9", ".2g"),
    ("between", "both", ">9", ".4g"),
    ("energy", "energy distance", ">17", ".3g"),
]


@checked
def diversity(model: Program, data: Any, *, site: str = "x", most: int = 1000, seed: int = 0) -> Diversity:
    """How much draws of p(x | y) differ from each other and from the data of each class.

    Args:
        model: program of p(x, z | y).
        data: a Split with labels, or (x, y): the observations (N, *shape), and their classes (N,).
        site: the observed site.
        most: data of a class at most, the first ones.
        seed: of the draws.

    Returns:
        The :class:`Diversity`.

    Raises:
        InputError: for data without classes; for a class of one datum.

    References:
        Székely and Rizzo (2013), Energy statistics: a class of statistics based on distances, J. Stat. Plan. Inference.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x, y):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(y[:, None].float(), 1.0).to_event(1), obs=x)
        >>> y = torch.arange(200) % 2
        >>> x = y[:, None] + torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
        >>> bool((diversity(model, (x, y)).ratio - 1).abs().max() < 0.3)
        True
    """
    split = as_split(data).drawn(seed)
    *_, labels = split.tensors
    if len(split.columns) < 2 or labels.dim() != 1 or labels.is_floating_point():
        raise InputError("the last tensor of the data is the classes, (N,) whole numbers: give split.with_labels()")
    classes = labels.unique().tolist()
    found = [_of_class(model, split[(labels == k).nonzero()[:most, 0].cpu()], site, seed, k) for k in classes]
    names = ("num_data", "draws", "se_draws", "data", "se_data", "between")
    columns = dict(zip(names, torch.tensor(found, dtype=torch.float64).unbind(1), strict=True))
    return Diversity(site=site, classes=classes, **columns, seed=seed, protocol=split.protocol)


def _of_class(model: Program, rows: Any, site: str, seed: int, name: int) -> list[float]:
    if len(rows) < 2:
        raise InputError(f"class {name} has one datum: two have a distance; leave it out")
    values = sample(model, rows, num_samples=len(rows), seed=seed).values
    if site not in values:
        raise InputError(f"site '{site}' is not drawn by the model, which draws {', '.join(values)}; give site=")
    drawn, data = (one.reshape(len(rows), -1).double() for one in (values[site], rows.x.cpu()))
    return [float(len(rows)), *_within(drawn), *_within(data), torch.cdist(drawn, data).mean().item()]


def _within(rows: Tensor) -> tuple[float, float]:
    """The mean distance of two rows, and its standard error by Hájek's projection."""
    of_each = torch.cdist(rows, rows).sum(1) / (len(rows) - 1)
    return of_each.mean().item(), 2 * of_each.std().item() / len(rows) ** 0.5
