r"""Source rows become the rows of a data set: rescaled, binarized or dequantized, and hashed, in one pass by blocks.

.. math:: x = s / c, \quad x \sim \mathrm{Bernoulli}(s / c), \quad x = [s / c > 1/2], \quad x \sim U[s, s + 1) / c

What is rescaled is kept as it was found, in memory or in its file; what is binarized once is kept as bytes. Of whole
numbers s the density of (s + u) / c is, in expectation over u, at most the log mass of s, by Jensen's inequality.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.progress import bar
from pyrovae.base.random import stream
from pyrovae.data.encoding import Column, dequantized, require_room
from pyrovae.data.memmap import Mapped, in_file
from pyrovae.data.named import PARTS
from pyrovae.data.protocol import describe, in_blocks, num_missing
from pyrovae.data.split import Dataset, Split
from pyrovae.data.user_files import Parts, Rows


@dataclass(frozen=True)
class Recipe:
    """What is done to the source rows; seed None where nothing is drawn."""

    binarization: str
    divisor: float
    seed: int | None
    dequantize: bool = False

    @property
    def changes(self) -> bool:
        """Whether the rows served are others than those found."""
        return self.binarization != "none" or self.divisor != 1.0 or self.dequantize

    def once(self, part: str) -> bool:
        """Whether the rows of a part are binarized or dequantized here and now."""
        dynamic = self.binarization == "dynamic" or self.dequantize
        return self.binarization in ("static", "threshold") or (dynamic and part != "train")

    def protocol(self, part: str) -> dict[str, Any]:
        """What the protocol of a part says of it."""
        noise = ("anew" if part == "train" else "once") if self.dequantize else "none"
        return {**{n: v for n, v in asdict(self).items() if n != "dequantize"}, "dequantized": noise}


def dataset(name: str, parts: Parts, recipe: Recipe) -> Dataset:
    """Three splits of source rows, rescaled, binarized or dequantized.

    Raises:
        InputError: for infinite values; for values to binarize that are no probabilities, or to dequantize that are no
            whole numbers; for draws that memory does not hold.
    """
    values, total = _Values(), sum(len(rows.x) for rows in parts.values())
    with bar(shown=True, total=total, desc=f"reading {name}", unit="row", delay=2) as shown:
        train, valid, test = (_split(name, part, parts[part], recipe, values, shown) for part in PARTS)
    kind, maximum = ("binary", 1) if recipe.binarization != "none" else values.kind()
    labels = [int(split.labels.max()) for split in (train, valid, test) if split.labels is not None]
    return Dataset(name, train, valid, test, kind, maximum, num_classes=max(labels) + 1 if labels else None)


def _split(name: str, part: str, rows: Rows, recipe: Recipe, values: "_Values", shown: Any) -> Split:
    source, once, drawn = _kept(rows), recipe.once(part), []
    held = torch.float32 if recipe.dequantize else torch.uint8
    column = Column(source, torch.float32, recipe.divisor)
    noise = stream(part, recipe.seed) if once and recipe.seed is not None else None
    if once:
        require_room(name, column, size=held.itemsize)

    def blocks() -> Iterator[tuple[Tensor, Tensor | None]]:
        for block in in_blocks(column):
            found = source[block].to(column.dtype)
            x = _serve(name, found, column, recipe, noise)
            values.add(x)
            shown.update(len(x))
            if once:
                drawn.append(x.to(held))
            yield x, found if recipe.changes else None

    protocol = describe([column], blocks=blocks(), dataset=name, split=part, **recipe.protocol(part))
    labels = None if rows.labels is None else torch.from_numpy(rows.labels.astype(np.int64))
    served = Column(torch.cat(drawn), column.dtype) if once else column
    return Split((served,), protocol, labels, source if recipe.changes else None)


def _kept(rows: Rows) -> Tensor | Mapped:
    """The source rows in the least room: those of a file stay there, bytes stay bytes, all else is float32."""
    if (mapped := in_file(rows.x)) is not None:
        return mapped
    with np.errstate(over="ignore"):
        dtype = np.uint8 if rows.x.dtype in (np.uint8, np.bool_) else np.float32
        return torch.from_numpy(np.array(rows.x, dtype=dtype, order="C"))


def _serve(name: str, found: Tensor, column: Column, recipe: Recipe, noise: torch.Generator | None) -> Tensor:
    """Rows to serve: values or probabilities as they are, or a draw or cut of them."""
    if found.isinf().any():
        raise InputError(f"{name}: expected finite values (NaN where missing), got infinite ones; correct or drop them")
    values = column.decode(found)
    if recipe.dequantize:
        _check_whole(name, found)
        return values if noise is None else dequantized(values, recipe.divisor, noise)
    if recipe.binarization == "none":
        return values
    if values.isnan().any():
        raise InputError(
            f"{name}: expected values in [0, 1] to binarize, got missing ones (NaN); fill them in, or do not binarize"
        )
    least, most = values.aminmax()
    if least < 0 or most > 1:
        raise InputError(
            f"{name}: expected values in [0, 1] to binarize, got {least:g}..{most:g}; "
            'give divisor= (the value that means probability 1), or binarization="none"'
        )
    if recipe.binarization == "threshold":
        return (values > 0.5).float()
    return values if noise is None else torch.bernoulli(values, generator=noise)


def _check_whole(name: str, found: Tensor) -> None:
    odd = found[(found != found.floor()) & ~found.isnan()]
    if len(odd):
        raise InputError(
            f"{name}: expected whole numbers to dequantize, got {odd[0]:g}; noise between them means nothing for other "
            "values: leave dequantize out"
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
