r"""Every value by itself: how often each level of a mass was seen, and the moments of a density on the real line.

.. math:: p(x) = \prod_d p_d(x_d), \qquad p_d(l) = (n_{dl} + 1/2) / (n_d + L_d/2)

Half an observation of each level (Krichevsky and Trofimov 1981) keeps levels that were not seen possible.
"""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions import transforms as T
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.rows import DENSITIES, Baseline, Rows, Sites

UNSEEN = 0.5  # observations of each level beforehand
HARMLESS = {"positive": 1.0, "proportion": 0.5}  # what stands for a missing entry under a mask; else 0
ONTO: dict[str, list[Any]] = {
    "real": [],
    "positive": [T.ExpTransform()],
    "proportion": [T.SigmoidTransform()],
}  # maps from the real line


def independent(rows: Rows) -> Baseline:
    """Independent values, each with its own distribution; every entry that is there counts.

    Raises:
        InputError: for a column without a value, and for real ones that are constant.
    """
    places = {site: torch.tensor(columns) for site, columns in rows.sites.items()}
    kinds = {site: rows.kinds[columns[0]] for site, columns in rows.sites.items()}
    parts = {site: _part(rows, columns, kinds[site]) for site, columns in rows.sites.items()}

    def sites(x: Tensor) -> Sites:
        return {site: _observed(part, x[:, places[site]], kinds[site]) for site, part in parts.items()}

    return Baseline("independent values", sites)


def _observed(part: TorchDistribution, values: Tensor, kind: str) -> tuple[TorchDistribution, Tensor]:
    seen = ~values.isnan()
    whole = part if seen.all() else part.mask(seen)
    return whole.to_event(1), values.where(seen, HARMLESS.get(kind, 0.0))


def _part(rows: Rows, columns: list[int], kind: str) -> TorchDistribution:
    """The distribution of columns of one kind, batch shape (D_k,)."""
    train = rows.train[:, columns]
    if (~train.isnan()).sum(0).min() == 0:
        raise InputError(f"{rows.name}: a column has no value in the training rows; leave it out")
    if kind not in DENSITIES:
        return dist.Categorical(logits=_log_frequencies(train, [rows.num_levels[place] for place in columns]))
    line = train
    for onto in ONTO[kind]:
        line = onto.inv(line)
    loc = line.nanmean(0)
    scale = (line - loc).square().nanmean(0).sqrt()
    if not bool((scale > 0).all()):
        raise InputError(
            f"baseline 'independent': {int((scale == 0).sum())} of {len(scale)} real values are constant in the "
            f"training rows of {rows.name}, where no density has a bound; leave them out"
        )
    base = dist.Normal(loc, scale)
    return dist.TransformedDistribution(base, ONTO[kind]) if ONTO[kind] else base


def _log_frequencies(train: Tensor, num_levels: list[int]) -> Tensor:
    """Log masses of levels (D_k, L), minus infinity beyond those of a column, from values (N, D_k)."""
    levels = torch.tensor(num_levels, dtype=torch.float64)
    seen = (~train.isnan()).double()
    count = torch.zeros(len(num_levels), max(num_levels), dtype=torch.float64)
    count.scatter_add_(1, train.nan_to_num(0.0).long().T, seen.T.contiguous())
    inside = torch.arange(count.shape[1]) < levels[:, None]
    return torch.where(inside, (count + UNSEEN) / (seen.sum(0) + UNSEEN * levels)[:, None], 0.0).log()
