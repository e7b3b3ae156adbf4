"""Data with their protocol: rows as tensors, and a record of how they came to be that goes into every report.

Rows x of D values that are source / c have log p(source) = log p(x) - D log c; the protocol carries the last
term, so that densities in different units can be compared.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import readers
from .errors import InputError, nearest
from .readers import Parts, Rows

__all__ = ["DATASETS", "Dataset", "Protocol", "Split", "as_split", "load"]

BINARIZATIONS = ("none", "dynamic", "static", "threshold")
SPLITS = (0.8, 0.1, 0.1)


# ---------------------------------------------------------------------------------------- the records


@dataclass(frozen=True)
class Protocol:
    """How the rows of a split came to be.

    Attributes:
        dataset: the set: "digits", "mnist", "user's tensor", or the name of the user's file.
        split: "train", "valid", "test" or "all".
        num_data: N.
        binarization: "none"; "dynamic" (train drawn anew at each use, valid and test drawn once);
            "static" (drawn once); "threshold" (at 0.5).
        divisor: the rows (under binarization: the probabilities) are source / divisor; 1.0 is as found.
        log_jacobian: nats per datum to add to a log density of the rows to get that of the source rows,
            -D log(divisor); D counts observed values (their mean over the data, where some are missing).
            0.0 under binarization: a mass needs none.
        seed: of the split's permutation and the fixed draws; None where nothing depended on it.
        sha256: of the rows as served (dtype, shape and bytes of each tensor; if dynamic, the probabilities).
        source_sha256: of the same rows before rescaling or binarization, in the same dtype.
    """

    dataset: str
    split: str
    num_data: int
    binarization: str
    divisor: float
    log_jacobian: float
    seed: int | None
    sha256: str
    source_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """The inverse of `to_dict`."""
        names = [one.name for one in fields(cls)]
        if set(values) != set(names):
            raise InputError(f"expected a protocol with {names}, got {sorted(values)}; give what to_dict() returned")
        return cls(**values)

    def __str__(self) -> str:
        values = {
            "none": "values as found" if self.divisor == 1.0 else f"values divided by {self.divisor:g}",
            "dynamic": "binarized anew at each use" if self.split == "train" else "binarized once",
            "static": "binarized once",
            "threshold": "binarized at 0.5",
        }[self.binarization]
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.dataset} {self.split}: {self.num_data} data, {values}{seed}, sha256 {self.sha256[:8]}"


@dataclass(frozen=True, eq=False)
class Split:
    """A tuple of tensors with the datum as first dimension, and how they came to be.

    Attributes:
        tensors: the observations (N, *shape) first; what the programs get as positional arguments.
        protocol: how the rows came to be.
        labels: (N,) int64, never passed to programs unless by `with_labels`.
        source: the observations before rescaling or binarization; None where they are as found.

    Example:
        >>> test = load("digits").test
        >>> len(test), test.shape
        (300, torch.Size([8, 8]))
        >>> [tuple(tensor.shape) for tensor in test.with_labels()[:5].tensors]
        [(5, 8, 8), (5,)]
    """

    tensors: tuple[Tensor, ...]
    protocol: Protocol
    labels: Tensor | None = None
    source: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_rows(self.tensors if self.labels is None else (*self.tensors, self.labels))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def x(self) -> Tensor:
        """The observations, (N, *shape); under dynamic binarization the probabilities of the train split."""
        return self.tensors[0]

    @property
    def shape(self) -> torch.Size:
        """The shape of one datum."""
        return self.x.shape[1:]

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Split:
        """Some of the rows, as a split with its own size and hashes; to train, use the cheaper `batch`."""
        rows = index if isinstance(index, slice) else _row_numbers(index, len(self))
        return self._with(
            tuple(tensor[_on(rows, tensor)] for tensor in self.tensors),
            None if self.labels is None else self.labels[_on(rows, self.labels)],
            None if self.source is None else self.source[_on(rows, self.source)],
        )

    def to(self, device: torch.device | str) -> Split:
        """The same split with its tensors and labels on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, tensors=tuple(tensor.to(device) for tensor in self.tensors), labels=labels)

    def with_labels(self) -> Split:
        """The split with tensors (x, labels), so that programs get both; `sha256` then covers both."""
        if self.labels is None:
            raise InputError(
                f"{self.protocol.dataset}: expected labels, but this set has none; give a tuple of tensors (x, labels)"
            )
        return self._with((self.x, self.labels), self.labels, self.source)

    def batch(self, index: Tensor | slice, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Some of the rows as bare tensors; a dynamically binarized train split draws them anew at each call.

        Args:
            index: (B,) int64 row numbers, or a slice.
            generator: of the draw, on the tensors' device; torch's default generator when None.

        Returns:
            One tensor (B, ...) for each of `tensors`.
        """
        rows = tuple(tensor[index] for tensor in self.tensors)
        if self.protocol.binarization != "dynamic" or self.protocol.split != "train":
            return rows
        return (torch.bernoulli(rows[0], generator=generator), *rows[1:])

    def _with(self, tensors: tuple[Tensor, ...], labels: Tensor | None, source: Tensor | None) -> Split:
        _check_rows(tensors)
        old = self.protocol
        protocol = _describe(
            tensors,
            source=source,
            dataset=old.dataset,
            split=old.split,
            binarization=old.binarization,
            divisor=old.divisor,
            seed=old.seed,
        )
        return Split(tensors, protocol, labels, source)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one set.

    Attributes:
        name: as given to `load`, or the file's name.
        train, valid, test: the splits.
        kind: what a value is: "counts", "binary", "unit" (in [0, 1]) or "real".
        maximum: the largest count; 1 for "binary" and "unit", None for "real".
        num_classes: the number of classes of the labels, None where there are none.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    kind: str
    maximum: int | None
    num_classes: int | None

    @property
    def shape(self) -> torch.Size:
        """The shape of one datum."""
        return self.train.shape

    @property
    def range(self) -> str:
        """What a value is, in words: "counts 0..16"."""
        words = {
            "counts": f"counts 0..{self.maximum}",
            "binary": "binary",
            "unit": "values in [0, 1]",
            "real": "reals",
        }
        return words[self.kind]


# ----------------------------------------------------------------------------------------- to splits


def as_split(data: Any) -> Split:
    """Makes a split of whatever may be given as data.

    Args:
        data: a `Split` (returned as it is), a tensor or array (N, ...), or a tuple or list of these with
            one N. Dtypes are kept.

    Returns:
        The split; for tensors, of the set "user's tensor", split "all".

    Raises:
        InputError: something else, no rows, or different numbers of rows.

    Example:
        >>> as_split(torch.zeros(3, 2)).protocol.dataset
        "user's tensor"
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        raise InputError(f"expected one split, got the whole set {data.name}; give its .train, .valid or .test")
    tensors = tuple(map(_as_tensor, data)) if isinstance(data, (tuple, list)) else (_as_tensor(data),)
    _check_rows(tensors)
    return Split(tensors, _describe(tensors, dataset="user's tensor", split="all"))


def _as_tensor(data: Any) -> Tensor:
    if isinstance(data, Tensor):
        return data
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "buif":
        what = f"an array of {data.dtype}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
        raise InputError(f"expected a Split, a tensor (N, ...) or a tuple of tensors, got {what}; make it a tensor")
    return torch.as_tensor(data if data.flags.writeable else data.copy())


def _check_rows(tensors: Sequence[Tensor]) -> None:
    """Demands tensors of one and the same N > 0."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
        raise InputError(
            f"expected tensors of one first dimension N > 0 (the datum), got shapes {shapes}; "
            "give each one row per datum"
        )


def _row_numbers(index: Any, num_data: int) -> Tensor:
    rows = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or rows.size == 0:
        raise InputError(
            f"expected a slice, or a list or LongTensor of row numbers, got {index!r}; for one row give [i]"
        )
    if rows.min() < -num_data or rows.max() >= num_data:
        raise InputError(f"expected row numbers below {num_data}, got {rows.min()}..{rows.max()}; check them")
    return torch.from_numpy(rows.astype(np.int64))


def _on(rows: slice | Tensor, tensor: Tensor) -> slice | Tensor:
    return rows if isinstance(rows, slice) else rows.to(tensor.device)


def _describe(
    tensors: tuple[Tensor, ...],
    *,
    dataset: str,
    split: str,
    source: Tensor | None = None,
    binarization: str = "none",
    divisor: float = 1.0,
    seed: int | None = None,
) -> Protocol:
    """Writes the protocol of rows and computes what depends on them: size, hashes and Jacobian."""
    x, sha256 = tensors[0], _digest(tensors)
    found = sha256 if source is None else _digest((source.to(x.dtype), *tensors[1:]))
    jacobian = 0.0 if binarization != "none" or divisor == 1.0 else -_num_observed(x) * math.log(divisor)
    return Protocol(dataset, split, len(x), binarization, divisor, jacobian, seed, sha256, found)


def _num_observed(x: Tensor) -> float:
    """D, or the mean number of values per datum that are not NaN."""
    return int((~x.isnan()).sum()) / len(x)


def _digest(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of each tensor's dtype, shape and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        rows = tensor.detach().cpu().contiguous()
        digest.update(f"{rows.dtype} {tuple(rows.shape)}\n".encode())
        digest.update(rows.view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------- to data sets


@dataclass(frozen=True)
class _Recipe:
    """What is done to the source rows; seed None where nothing is drawn."""

    binarization: str
    divisor: float
    seed: int | None


def _recipe(binarization: str, divisor: float | None, seed: int, *, found: float, scale: float) -> _Recipe:
    """The recipe of a named set: `found` is its usual divisor, `scale` the one that gives probabilities."""
    if binarization != "none" and divisor is not None:
        raise InputError(
            f'expected divisor with binarization "none" only, got divisor={divisor:g} and '
            f'binarization="{binarization}"; leave out one of them'
        )
    drawn = binarization in ("dynamic", "static")
    used = scale if binarization != "none" else float(divisor or found)
    return _Recipe(binarization, used, seed if drawn else None)


def _dataset(name: str, parts: Parts, recipe: _Recipe) -> Dataset:
    """Three splits of source rows, rescaled or binarized."""
    splits = {part: _split(name, part, rows, recipe) for part, rows in parts.items()}
    binary = recipe.binarization != "none"
    kind, maximum = ("binary", 1) if binary else _kind([split.x for split in splits.values()])
    labels = [int(split.labels.max()) for split in splits.values() if split.labels is not None]
    return Dataset(name, **splits, kind=kind, maximum=maximum, num_classes=max(labels) + 1 if labels else None)


def _split(name: str, part: str, rows: Rows, recipe: _Recipe) -> Split:
    source = _source(name, rows.x)
    values = source.float() if recipe.divisor == 1.0 else source.float() / recipe.divisor
    x = _binarize(name, values, part, recipe)
    kept = None if recipe.divisor == 1.0 and recipe.binarization == "none" else source
    labels = None if rows.labels is None else torch.from_numpy(rows.labels.astype(np.int64))
    protocol = _describe(
        (x,),
        source=kept,
        dataset=name,
        split=part,
        binarization=recipe.binarization,
        divisor=recipe.divisor,
        seed=recipe.seed,
    )
    return Split((x,), protocol, labels, kept)


def _source(name: str, x: np.ndarray) -> Tensor:
    """The source rows in the least room: bytes stay bytes, all else is float32."""
    with np.errstate(over="ignore"):
        rows = np.array(x, dtype=np.uint8 if x.dtype == np.uint8 else np.float32, order="C")
    if np.isinf(rows).any():
        raise InputError(f"{name}: expected finite values (NaN where missing), got infinite ones; correct or drop them")
    return torch.from_numpy(rows)


def _binarize(name: str, values: Tensor, part: str, recipe: _Recipe) -> Tensor:
    """The rows to serve, of the same shape: values or probabilities as they are, or a draw or cut of them."""
    if recipe.binarization == "none":
        return values
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(_no_probabilities(name, values))
    if recipe.binarization == "threshold":
        return (values > 0.5).float()
    if recipe.seed is None or (recipe.binarization == "dynamic" and part == "train"):
        return values
    return torch.bernoulli(values, generator=_stream(recipe.seed, part))


def _no_probabilities(name: str, values: Tensor) -> str:
    if values.isnan().any():
        return (
            f"{name}: expected values in [0, 1] to binarize, got missing ones (NaN); fill them in, or do not binarize"
        )
    return (
        f"{name}: expected values in [0, 1] to binarize, got {values.min():g}..{values.max():g}; "
        'give divisor= (the value that means probability 1), or binarization="none"'
    )


def _stream(seed: int, part: str) -> torch.Generator:
    """A generator of its own for each part, the same for "dynamic" and "static"."""
    key = hashlib.sha256(f"{seed} {part}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


def _kind(tensors: Sequence[Tensor]) -> tuple[str, int | None]:
    """What the values are, and the largest count (1 for probabilities)."""
    seen = [x[~x.isnan()] if x.isnan().any() else x for x in tensors]
    if not any(x.numel() for x in seen) or any((x < 0).any() for x in seen):
        return "real", None
    maximum = max(float(x.max()) for x in seen if x.numel())
    if all((x == x.floor()).all() for x in seen):
        return ("binary", 1) if maximum <= 1 else ("counts", int(maximum))
    return ("unit", 1) if maximum <= 1 else ("real", None)


# ------------------------------------------------------------------------------------- the named sets


def digits(
    *,
    binarization: str | None = None,
    divisor: float | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """scikit-learn's 8x8 digits, counts 0..16: 1,197 / 300 / 300 by a permutation that is always the same.

    Like every function of `DATASETS` it takes the options of `load`, but needs no folder or download.
    """
    recipe = _recipe(binarization or "none", divisor, seed, found=1.0, scale=16.0)
    return _dataset("digits", _parts(readers.read_digits(), (1197, 300, 300), seed=0), recipe)


def mnist(**options: Any) -> Dataset:
    """MNIST, 28x28: 50,000 / 10,000 / 10,000; binarized anew at each use unless told otherwise."""
    return _grey("mnist", **options)


def fashion_mnist(**options: Any) -> Dataset:
    """Fashion-MNIST, 28x28: 50,000 / 10,000 / 10,000; binarized anew at each use unless told otherwise."""
    return _grey("fashion-mnist", **options)


def _grey(
    name: str,
    *,
    binarization: str | None = None,
    divisor: float | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    recipe = _recipe(binarization or "dynamic", divisor, seed, found=255.0, scale=255.0)
    found = readers.read_grey_images(name, data_dir=data_dir, download=download)
    train = _take(found["train"], slice(None, -10_000))
    return _dataset(
        name,
        {"train": train, "valid": _take(found["train"], slice(-10_000, None)), "test": found["test"]},
        recipe,
    )


def mnist_static(
    *,
    binarization: str | None = None,
    divisor: float | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """MNIST as Larochelle binarized it once: 50,000 / 10,000 / 10,000; test rows are sorted by class.

    Nothing is drawn, so `seed` changes nothing, and it is never downloaded.
    """
    if binarization not in (None, "none", "static") or divisor not in (None, 1.0):
        raise InputError(
            f"mnist-static: expected neither binarization nor divisor, got {binarization!r} and {divisor}; "
            'these rows are bits already: for another binarization load "mnist"'
        )
    return _dataset("mnist-static", readers.read_static_mnist(data_dir=data_dir), _Recipe("static", 1.0, None))


DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "mnist-static": mnist_static,
}


# ---------------------------------------------------------------------------------------------- load


def load(
    source: str | Path,
    *,
    binarization: str | None = None,
    divisor: float | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    download: bool = True,
    splits: tuple[float, float, float] = SPLITS,
) -> Dataset:
    """Loads a set by name, or the user's own .npy, .npz, .csv or folder of images by path.

    Args:
        source: a key of `DATASETS`, or a path.
        binarization: "none", "dynamic", "static" or "threshold"; the set's usual one when None.
        divisor: values are divided by it; the set's usual one when None.
        seed: of the fixed binarization draws, and of the permutation that splits the user's rows.
        data_dir: where files of named sets are looked for, in torchvision's layout; PYROVAE_DATA when None.
        download: whether MNIST and Fashion-MNIST may be downloaded to the cache folder.
        splits: fractions of train, valid and test for the user's rows.

    Returns:
        float32 observations in three splits, each with its protocol.

    Raises:
        InputError: whatever the caller can put right.

    Example:
        >>> digits = load("digits")
        >>> len(digits.train), len(digits.valid), len(digits.test), digits.range
        (1197, 300, 300, 'counts 0..16')
    """
    _check_options(binarization, divisor, seed, splits)
    options: dict[str, Any] = {"binarization": binarization, "divisor": divisor, "seed": seed}
    if not isinstance(source, str) or source not in DATASETS:
        return _own(_existing(source), splits=splits, **options)
    if tuple(splits) != SPLITS:
        raise InputError(f"{source}: expected no splits, for the set has its own, got {splits}; leave them out")
    return DATASETS[source](data_dir=data_dir, download=download, **options)


def _check_options(binarization: str | None, divisor: float | None, seed: int, splits: Sequence[float]) -> None:
    if binarization is not None and binarization not in BINARIZATIONS:
        hint = nearest(str(binarization), BINARIZATIONS) or " choose one of them"
        raise InputError(f"expected binarization one of {', '.join(BINARIZATIONS)}, got {binarization!r};{hint}")
    if divisor is not None and not 0 < divisor < math.inf:
        raise InputError(f"expected a finite divisor > 0, got {divisor}; give the value that becomes 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"expected an integer seed from 0 to 2**32 - 1, got {seed!r}; give another")
    if len(splits) != 3 or not (min(splits) > 0 and abs(sum(splits) - 1) < 1e-6):
        raise InputError(f"expected three positive fractions with the sum 1 as splits, got {splits}; e.g. {SPLITS}")


def _existing(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path
    hint = nearest(str(source), DATASETS) or " check the name or the path"
    raise InputError(
        f'expected one of {", ".join(DATASETS)}, or an existing file or folder, got "{source}", '
        f"which is not there;{hint}"
    )


def _own(
    path: Path,
    *,
    binarization: str | None,
    divisor: float | None,
    seed: int,
    splits: tuple[float, float, float],
) -> Dataset:
    """The user's file: its own three parts, or a seeded permutation in three."""
    name, parts = path.resolve().name, readers.read_path(path)
    kind = binarization or "none"
    seeded = "all" in parts or kind in ("dynamic", "static")
    if "all" in parts:
        parts = _parts(parts["all"], _sizes(len(parts["all"].x), splits), seed=seed)
    elif tuple(splits) != SPLITS:
        raise InputError(f"{name}: expected no splits, for the file has its own, got {splits}; leave them out")
    return _dataset(name, parts, _Recipe(kind, float(divisor or 1.0), seed if seeded else None))


def _sizes(num_data: int, splits: tuple[float, float, float]) -> tuple[int, int, int]:
    valid, test = (max(1, round(num_data * fraction)) for fraction in splits[1:])
    if num_data - valid - test < 1:
        raise InputError(
            f"expected rows enough for three splits of {splits}, got {num_data}; give more rows or other splits"
        )
    return num_data - valid - test, valid, test


def _parts(rows: Rows, sizes: tuple[int, int, int], *, seed: int) -> Parts:
    """A permutation cut in three. RandomState, because NumPy never changes its streams."""
    order = np.random.RandomState(seed).permutation(len(rows.x))
    chunks = np.split(order, np.cumsum(sizes)[:2])
    return {part: _take(rows, chunk) for part, chunk in zip(("train", "valid", "test"), chunks, strict=True)}


def _take(rows: Rows, index: Any) -> Rows:
    return Rows(rows.x[index], None if rows.labels is None else rows.labels[index])
