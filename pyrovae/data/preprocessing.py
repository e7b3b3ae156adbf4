r"""Source rows become the rows of a data set: rescaled or binarized, looked at and hashed, in one pass by blocks.

.. math:: x = s / c, \qquad x \sim \mathrm{Bernoulli}(s / c), \qquad x = [s / c > 1/2]

Rows in a file stay there, and a split holds how they are served; what is binarized once it holds as bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import machine_memory
from pyrovae.base.progress import bar
from pyrovae.base.random import stream
from pyrovae.data.encoding import Bits, Scaled, Stored, pack
from pyrovae.data.memmap import Mapped
from pyrovae.data.protocol import Account, in_blocks, num_missing
from pyrovae.data.split import Dataset, Split
from pyrovae.data.user_files import Parts, Rows

__all__ = ["Recipe", "dataset"]


@dataclass(frozen=True)
class Recipe:
    """What is done to the source rows; seed None where nothing is drawn."""

    binarization: str
    divisor: float
    seed: int | None

    @property
    def changes(self) -> bool:
        """Whether the rows served are others than those found."""
        return self.binarization != "none" or self.divisor != 1.0

    def once(self, part: str) -> bool:
        """Whether the rows of a part are binarized here and now."""
        return self.binarization in ("static", "threshold") or (self.binarization == "dynamic" and part != "train")


def dataset(name: str, parts: Parts, recipe: Recipe) -> Dataset:
    """Three splits of source rows, rescaled or binarized.

    Raises:
        InputError: for infinite values; for values to binarize that are no probabilities; for bits that memory
            does not hold.
    """
    values, total = _Values(), sum(len(rows.x) for rows in parts.values())
    with bar(shown=True, total=total, desc=f"reading {name}", unit="row", delay=2) as shown:
        splits = {part: _split(name, part, rows, recipe, values, shown) for part, rows in parts.items()}
    kind, maximum = ("binary", 1) if recipe.binarization != "none" else values.kind()
    labels = [int(split.labels.max()) for split in splits.values() if split.labels is not None]
    return Dataset(name, **splits, kind=kind, maximum=maximum, num_classes=max(labels) + 1 if labels else None)


def _split(name: str, part: str, rows: Rows, recipe: Recipe, values: _Values, shown: Any) -> Split:
    source: Any = _source(rows)
    account = Account(source.shape, torch.float32, dataset=name, split=part, **asdict(recipe))

    def served() -> Iterator[Tensor]:
        noise = None if recipe.seed is None else stream(recipe.seed, part)
        for block in in_blocks(source):
            found = source[block]
            x = _serve(name, found, recipe, noise if recipe.once(part) else None)
            account.add(x, found if recipe.changes else None)
            values.add(x)
            shown.update(len(x))
            yield x

    x = _keep(name, source, served(), recipe, part)
    labels = None if rows.labels is None else torch.from_numpy(rows.labels.astype(np.int64))
    return Split((x,), account.protocol(), labels, source if recipe.changes else None)


def _source(rows: Rows) -> Tensor | Stored:
    """The source rows in the least room: bytes stay bytes, all else is float32."""
    if isinstance(rows.x, Mapped):
        return Stored(rows.x, Scaled(torch.uint8 if rows.x.dtype == torch.uint8 else torch.float32))
    with np.errstate(over="ignore"):
        dtype = np.uint8 if rows.x.dtype == np.uint8 else np.float32
        return torch.from_numpy(np.array(rows.x, dtype=dtype, order="C"))


def _keep(name: str, source: Tensor | Stored, served: Iterator[Tensor], recipe: Recipe, part: str) -> Tensor:
    """The rows to serve, once all have gone by."""
    if isinstance(source, Tensor):
        return torch.cat(list(served))
    if recipe.once(part):
        _check_room(name, source.shape)
        bits = torch.cat([pack(x) for x in served])
        return cast(Tensor, Stored(bits, Bits.of(source.shape[1:], torch.float32)))
    for _ in served:
        pass
    return cast(Tensor, Stored(source.kept, Scaled.by(recipe.divisor, torch.float32)))


def _check_room(name: str, shape: torch.Size) -> None:
    needed, memory = math.prod(shape) // 8, machine_memory()
    if needed > memory // 4:
        raise InputError(
            f"{name}: expected bits for a quarter of the memory at most ({memory / 4e9:.3g} GB), got "
            f'{needed / 1e9:.3g} GB; binarize the rows in the file itself and load them with binarization="none"'
        )


def _serve(name: str, found: Tensor, recipe: Recipe, noise: torch.Generator | None) -> Tensor:
    """Rows to serve: values or probabilities as they are, or a draw or cut of them."""
    if found.isinf().any():
        raise InputError(f"{name}: expected finite values (NaN where missing), got infinite ones; correct or drop them")
    values = Scaled.by(recipe.divisor, torch.float32).decode(found)
    if recipe.binarization == "none":
        return values
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(_no_probabilities(name, values))
    if recipe.binarization == "threshold":
        return (values > 0.5).float()
    return values if noise is None else torch.bernoulli(values, generator=noise)


def _no_probabilities(name: str, values: Tensor) -> str:
    if values.isnan().any():
        return (
            f"{name}: expected values in [0, 1] to binarize, got missing ones (NaN); fill them in, or do not binarize"
        )
    return (
        f"{name}: expected values in [0, 1] to binarize, got {values.min():g}..{values.max():g}; "
        'give divisor= (the value that means probability 1), or binarization="none"'
    )


class _Values:
    """What the values of all parts are, from one block after another."""

    def __init__(self) -> None:
        self.least, self.most, self.whole = math.inf, -math.inf, True

    def add(self, x: Tensor) -> None:
        seen = x[~x.isnan()] if num_missing(x) else x
        if seen.numel():
            least, most = seen.aminmax()
            self.least, self.most = min(self.least, float(least)), max(self.most, float(most))
            self.whole = self.whole and bool((seen == seen.floor()).all())

    def kind(self) -> tuple[str, int | None]:
        """What a value is, and the largest count (1 for probabilities)."""
        if not 0 <= self.least <= self.most:
            return "real", None
        if self.whole:
            return ("binary", 1) if self.most <= 1 else ("counts", int(self.most))
        return ("unit", 1) if self.most <= 1 else ("real", None)
