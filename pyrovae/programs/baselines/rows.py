"""What a baseline is fitted to, and the pair of programs that it becomes: log p(x) without a latent, so exact."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.base.errors import InputError

ROWS_AT_ONCE = 100  # of which a mixture holds a number for each component and value
DENSITIES = ("real", "positive", "proportion")  # kinds of columns whose likelihood is a density
Sites = Mapping[str, tuple[TorchDistribution, Tensor]]  # site -> its distribution, and what it observes


class Rows(NamedTuple):
    """What a baseline is fitted to: the rows of a data set as columns.

    Attributes:
        name: of the data set, for errors.
        train, valid: (N, D) and (M, D), float64, NaN where an entry is missing.
        kinds: of each column: "real", "positive", "proportion", "count", "binary", "ordinal" or "categorical".
        sites: site -> the columns that it observes, as a VAE of the same data has them.
        num_levels: of each column of whole numbers L, for 0..L - 1; 0 of the others.
        is_table: whether columns are those of a table, whose whole numbers have no largest value and no density.
    """

    name: str
    train: Tensor
    valid: Tensor
    kinds: tuple[str, ...]
    sites: Mapping[str, list[int]]
    num_levels: tuple[int, ...]
    is_table: bool = False

    @property
    def of_densities(self) -> bool:
        """Whether every column is one of real numbers."""
        return set(self.kinds) <= set(DENSITIES)

    def complete(self) -> Tensor:
        """The training rows without gaps, (n, D).

        Raises:
            InputError: if fewer than two are left.
        """
        found = self.train[~self.train.isnan().any(1)]
        if len(found) < 2:
            raise InputError(
                f"{self.name}: {len(found)} of {len(self.train)} training rows have no missing entry, too few to fit "
                "this baseline to; take 'independent', which asks each column for its own"
            )
        return found

    def gaps(self) -> str:
        """How many rows are not among the complete ones, in words; empty where all are."""
        left = int(self.train.isnan().any(1).sum())
        return f"; fitted without {left} rows that have gaps" if left else ""


@dataclass(frozen=True)
class Baseline:
    """A pair of programs that has no latent, as everything that takes a pair takes it.

    Attributes:
        about: what it is, with its size: "factor analysis, 4 factors".
        sites: rows (N, D), NaN where missing -> what the model observes; missing entries are integrated out.
    """

    about: str
    sites: Callable[[Tensor], Sites]

    def __repr__(self) -> str:
        return f"Baseline({self.about})"

    def model(self, x: Tensor, *beside: Any) -> None:
        """The program p(x), for rows x (N, *shape); labels or covariates beside them are not looked at."""
        with pyro.plate("data", len(x)):
            for name, (distribution, values) in self.sites(x.flatten(1).double()).items():
                # Of each row once, where the distribution itself would be scored anew for each particle.
                pyro.sample(name, dist.ExpandedDistribution(distribution, distribution.batch_shape), obs=values)

    def guide(self, x: Tensor, *beside: Any) -> None:
        """Draws nothing: there is no latent."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of rows (N, *shape), missing entries integrated out: (N,) nats, float64."""
        parts = [self.sites(rows).values() for rows in x.flatten(1).double().split(ROWS_AT_ONCE)]
        return torch.cat([torch.stack([one.log_prob(values) for one, values in part]).sum(0) for part in parts])


def check_density(rows: Rows, name: str) -> None:
    """Raises InputError for columns of a table that are masses, and for columns of which no density is bounded."""
    masses = [place for place, kind in enumerate(rows.kinds) if kind not in DENSITIES]
    if rows.is_table and masses:
        raise InputError(
            f"baseline '{name}' is a density, and {len(masses)} of the {len(rows.kinds)} columns of {rows.name} are "
            f"masses ({rows.kinds[masses[0]]}): declare them real, or take 'independent'"
        )
    train = rows.complete()
    if constant := int((train == train[0]).all(0).sum()):
        raise InputError(
            f"baseline '{name}': {constant} of {train.shape[1]} values are constant in the training rows of "
            f"{rows.name}, where no density has a bound; leave them out, or of whole numbers dequantize them or take "
            "'independent'"
        )


def best_size(fit: Callable[[int], Baseline], valid: Tensor, most: int) -> Baseline:
    """Of the sizes 1, 2, 3, 4, 6, 8, 12, ... up to ``most`` the best by log p(x) of the validation rows (M, D).

    After two sizes in a row that gain nothing no larger one is tried.
    """
    sizes = {1} | {size for power in range(most.bit_length()) for size in (2**power, 3 * 2**power) if size <= most}
    found, scores = list[Baseline](), list[float]()
    for size in sorted(sizes):
        found.append(fit(size))
        scores.append(float(found[-1].log_prob(valid).mean()))
        if scores.index(max(scores)) < len(scores) - 2:
            break
    return found[scores.index(max(scores))]
