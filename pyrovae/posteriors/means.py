"""The code of each datum: the posterior mean of all latents that the guide draws, one vector."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.data.split import Split
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import posterior

ROWS_AT_ONCE = 500


def posterior_means(model: Program, guide: Program, data: Split, seed: int) -> dict[str, Tensor]:
    """E_q[z] at every latent site, (N, ...), over 32 draws where one does not tell it.

    Raises:
        InputError: naming the site, for latents that are whole numbers.
    """
    blocks = []
    for start in range(0, len(data), ROWS_AT_ONCE):
        rows = data[start : start + ROWS_AT_ONCE]
        draws = posterior(model, guide, rows, seed=seed)
        if len(draws.values) > 1 or not draws.means:
            draws = posterior(model, guide, rows, num_draws=32, seed=seed)
        for name, value in draws.values.items():
            if not value.is_floating_point():
                raise InputError(f"site '{name}' holds whole numbers, which have no posterior mean to draw")
        blocks.append({name: draws.means.get(name, value).mean(0) for name, value in draws.values.items()})
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def as_vectors(latents: Mapping[str, Tensor]) -> Tensor:
    """Latent sites (N, ...) side by side, (N, D)."""
    return torch.cat([value.reshape(len(value), -1) for value in latents.values()], 1)


def as_latents(vectors: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`as_vectors`: (M, D) -> sites (M, ...) of the shapes and types of others."""
    sizes = [value[0].numel() for value in like.values()]
    parts = zip(like.items(), vectors.split(sizes, 1), strict=True)
    return {name: part.reshape(-1, *value.shape[1:]).to(value.dtype) for (name, value), part in parts}
