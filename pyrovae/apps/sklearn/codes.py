"""Codes of rows and rows of codes: means of q(z|x), means of p(x|z), and rows that the model simulates."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.base.memory import blocks_of
from pyrovae.base.random import common_random_numbers, one_by_one, seed_everything
from pyrovae.data.split import Dataset, Split
from pyrovae.pairs.context import double_precision, isolated
from pyrovae.programs.tables import TableVAE, sites_of

NUM_DRAWS = 500  # of q(z|x), where its mean has no closed form
AT_ONCE = 1000  # rows


def latent_means(vae: Any, rows: Split, seed: int) -> Tensor:
    """E[z] under q(z|x) of each row, (N, latents), float64: in closed form, or by draws that all rows share."""
    with _in_double(vae) as device:
        seed_everything("codes", seed)
        x = rows.x.double().to(device)
        return torch.cat([_means(vae, x[block]).flatten(1) for block in blocks_of(len(x), AT_ONCE)]).cpu()


def _means(vae: Any, x: Tensor) -> Tensor:
    read = vae.features(x) if isinstance(vae, TableVAE) else x
    if (mean := _or_none(lambda: vae.encoder(read).mean)) is not None:
        return mean

    def draw(row: int) -> dict[str, Tensor]:
        return {"z": vae.encoder(read[row : row + 1]).sample((NUM_DRAWS,))}

    return one_by_one(draw, len(x), 1)["z"].double().mean(0)


def row_means(vae: Any, codes: Tensor) -> Tensor:
    """E[x] under p(x|z) of each code (N, latents), as rows are served: (N, D), float64.

    Of a column that has no mean, a class, the most probable value.
    """
    with _in_double(vae) as device:
        shape = vae.prior().event_shape
        blocks = codes.double().to(device).reshape(len(codes), *shape).split(AT_ONCE)
        return torch.cat([_expected(vae, block) for block in blocks]).cpu()


def _expected(vae: Any, z: Tensor) -> Tensor:
    y = vae.decoder(vae.beside(z) if isinstance(vae, TableVAE) else z)
    like = torch.zeros(len(z), *y.event_shape, device=z.device)
    found = torch.empty(like.shape, dtype=torch.float64, device=z.device)
    places = torch.arange(like[0].numel()).expand_as(like)
    for (_, part, _), (_, _, at) in zip(sites_of("x", y, like), sites_of("x", y, places), strict=True):
        found[:, at[0]] = _mean_or_mode(part).double()
    return found


def _mean_or_mode(fn: Any) -> Tensor:
    mean = _or_none(lambda: fn.mean)
    return fn.mode if mean is None else mean


def _or_none(mean: Callable[[], Tensor]) -> Tensor | None:
    """A mean, None for a distribution that has none."""
    try:
        found = mean()
    except (NotImplementedError, AttributeError):
        return None
    return None if found.isnan().all() else found


def simulated(vae: Any, like: Dataset, num_rows: int, seed: int) -> Tensor:
    """Rows that the model draws, z ~ p(z), x ~ p(x|z), as rows are served: (num_rows, D)."""
    template = torch.zeros(1, *like.shape)
    values = pv.sample(vae.model, template, num_samples=num_rows, seed=seed).values
    return values["x"] if like.columns is None else like.columns.joined(values)


def width(vae: Any) -> int:
    """How many numbers the code of a row has."""
    return math.prod(vae.prior().event_shape)


@contextmanager
def _in_double(vae: Any) -> Iterator[torch.device]:
    with isolated(vae.model, vae.guide) as (model, guide, device), double_precision(model, guide):
        with common_random_numbers():
            yield device
