r"""entries(): some entries are observed as they are, the others not at all: inpainting and outfilling.

.. math:: p(y \mid z) = p(x_o \mid z), \qquad p(x \mid y, z) = p(x_m \mid x_o, z)

What is not observed is NaN in y: so each datum may have its own mask.
"""

from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.entries import completed, of_entries
from pyrovae.pairs.missing.observed import observed_entries
from pyrovae.pairs.operators.operator import Operator, sizes


@checked
def entries(mask: Tensor, *, name: str = "entries") -> Operator:
    """Observes the entries of each datum where a mask is True, for any likelihood that can leave entries out.

    Args:
        mask: booleans (*shape), the same for all data; of y what is NaN counts.
        name: what records call it.

    Raises:
        InputError: for a mask of something else, or one that observes nothing, or everything.

    Example:
        >>> entries(torch.tensor([True, False])).apply(torch.tensor([[1.0, 2.0]]))
        tensor([[1., nan]])
    """
    if mask.dtype != torch.bool:
        kind = str(mask.dtype).removeprefix("torch.")
        raise InputError(f"mask must hold booleans, True for an entry that is observed, got {kind}")
    shape = sizes(mask.shape)
    if bool(mask.all()) or not bool(mask.any()):
        raise InputError(f"{name}: the mask observes {'all' if bool(mask.all()) else 'none'} of the entries; hide some")

    def draw(x: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.where(mask.to(x.device), x, torch.nan)

    return Operator(
        name,
        shape,
        shape,
        draw,
        observe=lambda fn: fn,
        restore=lambda fn, y: completed(fn, y, ~y.isnan()),
        log_likelihood=_log_likelihood,
        fill=lambda y: y,
        num_hidden=lambda y: y.isnan().flatten(1).sum(1).double(),
        around=observed_entries,
        log_alone=_log_alone,
    )


def _log_alone(fn: Any, y: Tensor) -> Tensor:
    seen = ~y.isnan()
    return of_entries(fn, seen).log_prob(torch.where(seen, y, 0.0))


def _log_likelihood(y: Tensor, x: Tensor) -> Tensor:
    same = (y.isnan() | (y == x)).flatten(1).all(1)
    return torch.zeros(len(same), dtype=x.dtype, device=x.device).masked_fill(~same, -torch.inf)
