r"""How much the mean of q(z|x) moves with x: by that, a latent dimension is in use or not (Burda et al. 2016).

.. math:: \mathrm{Var}_n \left( E_{q(z_j \mid x_n)}[z_j] \right)

From draws, the variance of their means would hold their own noise, which is estimated within data and taken away.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pyrovae.inference.latents import Latents
from pyrovae.inference.surgery.aggregate import Aggregation, Means

MEAN_DRAWS = 100  # where a mean is not known in closed form; the noise taken away is so small against a variance of 1


def mean_variances(run: Aggregation, rows: Tensor, means: Means, *, reruns: bool) -> Tensor:
    """Variance over data of the mean of each coordinate: (D,), NaN for one that has no mean, such as a class.

    Args:
        run: the pair on its data.
        rows: M data to draw for, where means are not known in closed form.
        means: of the sites as one run of the guide shows them, over all N data.
        reruns: whether sites of the guide hang on each other's draws, so that these are not their means given x.
    """
    needed = reruns or any(mean is None for mean in means.values())
    from_draws = _from_draws(run, rows) if needed else {}
    return torch.cat([_variance(mean, from_draws.get(name), reruns) for name, mean in means.items()])


def _variance(mean: Tensor | None, from_draws: Any, reruns: bool) -> Tensor:
    if mean is None:
        return from_draws
    return from_draws.masked_fill(mean.isnan().any(0), math.nan) if reruns else mean.double().var(0)


def _from_draws(run: Aggregation, rows: Tensor) -> dict[str, Tensor]:
    """The variances of all sites without the noise of draws: site -> (D of the site,)."""
    blocks = run.each_block(rows, _moments, at_once=MEAN_DRAWS, key=(1,))
    variances = {}
    for name in blocks[0]:
        mean, noise = (torch.cat(parts) for parts in zip(*(block[name] for block in blocks), strict=True))
        variances[name] = mean.var(0) - noise.mean(0)
    return variances


def _moments(latents: Latents) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean of the draws of each of n data and its own variance: site -> (n, D of the site) each."""
    draws = latents.draw(MEAN_DRAWS)
    flat = {name: value.reshape(MEAN_DRAWS, latents.num_data, -1).double() for name, value in draws.items()}
    return {name: (value.mean(0), value.var(0) / MEAN_DRAWS) for name, value in flat.items()}
