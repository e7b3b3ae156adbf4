"""Data sets by name, from files or from frames: three splits of rows, each with its protocol."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrovae.base.choices import resolve
from pyrovae.base.errors import InputError
from pyrovae.data import user_files
from pyrovae.data.named import DATASETS, SPLITS, NamedSet, Options, existing
from pyrovae.data.preprocessing import Recipe, dataset
from pyrovae.data.split import Dataset
from pyrovae.data.tables.assembly import TableOptions, table_dataset
from pyrovae.data.tables.names import Declared
from pyrovae.data.tables.parts import sizes
from pyrovae.data.tables.reading import is_frame, is_table


def load(
    source: str | Path | Any,
    *,
    columns: Mapping[str, Declared] | str | None = None,
    covariates: Sequence[str] | str = (),
    standardize: bool | None = None,
    group: str | None = None,
    time: str | None = None,
    binarization: str | None = None,
    divisor: float | None = None,
    dequantize: bool = False,
    seed: int = 0,
    data_dir: str | Path | None = None,
    download: bool = True,
    splits: tuple[float, float, float] = SPLITS,
    mmap: bool | None = None,
) -> Dataset:
    """Loads a set by name, the user's own file or folder by path, or a frame of pandas or polars.

    Files are .npy, .npz and the tables .csv and .parquet; folders hold .npy or images. A table is a frame or a file of
    named columns, each of a kind: "real", "positive", "count", "binary", "ordinal", "categorical" or "proportion".
    Text, whole numbers from 0 and values of two sorts are told by themselves, all else is real; ``print(dataset)``
    says what was found. Real columns become standard scores and positive ones are divided by their geometric mean, by
    the training rows alone; ``protocol.log_jacobian`` takes densities back. Labels become places among them, missing
    cells NaN. With ``binarization``, ``divisor`` or ``dequantize``, a .csv is a matrix of numbers as a .npy is.

    Rows of .npy files can stay there, mapped: the same rows with the same protocols, read when they are used. In
    memory is then what tells which rows make up each split (8 bytes a row), labels, and a byte a value where rows
    are binarized once. `fit` and `evaluate` take such splits as any other; elsewhere take some rows: `split[:1000]`.

    Args:
        source: a key of `DATASETS`, a path, or a frame. A folder of .npy holds "train", "valid" and "test"; or "x",
            with labels "y" if any.
        columns: of a table: column, or a pattern of names such as "[A-E]*", -> its kind, "ignored" for one to leave
            out, or the levels of an ordinal column, the lowest first. As text: "quality:ordinal,size:small<large".
        covariates: columns of a table on which both programs are conditioned: they are served as a second tensor.
        standardize: False leaves the columns of a table in their units.
        group: column of a table whose values stay together: no group is in two parts. It is not observed.
        time: column of a table by which the earliest rows train and the latest test. It is not observed.
        binarization: "none", "dynamic", "static" or "threshold"; the set's usual one when None.
        divisor: values are divided by it; the set's usual one when None.
        dequantize: whether whole numbers get uniform noise on [0, 1) before they are divided: training rows at each
            use, the others once. The density of what comes is, in expectation and in the source's unit, at most the log
            mass of the whole numbers (Theis et al. 2016), and ``compare`` takes it as such a bound. With divisor 256,
            bytes become values in [0, 1).
        seed: of the fixed draws, and of the permutation that splits the user's rows.
        data_dir: where files of named sets are looked for, in torchvision's layout; PYROVAE_DATA when None.
        download: whether MNIST and Fashion-MNIST may be downloaded to the cache folder.
        splits: fractions of train, valid and test for the user's rows.
        mmap: whether rows of .npy files stay there; None is where they would take over a quarter of the memory.

    Returns:
        float32 observations in three splits, each with its protocol.

    Raises:
        InputError: whatever the caller can put right.

    Example:
        >>> digits = load("digits")
        >>> len(digits.train), len(digits.valid), len(digits.test), digits.range
        (1197, 300, 300, 'counts 0..16')
    """
    options = Options(binarization, divisor, seed, data_dir, download, splits, mmap, dequantize)
    given = tuple(covariates) if isinstance(covariates, list) else covariates
    of_table = TableOptions(columns, given, standardize, group, time)
    if is_frame(source) or _is_table_file(source, options):
        _check_frame(source, options)
        return table_dataset(source if is_frame(source) else existing(source), of_table, splits, seed)
    if of_table.given():
        what = f"a frame, .csv or .parquet, neither binarized nor divided; got {source}"
        raise InputError(f"expected {of_table.given()[0]}= with a table alone: {what}; leave it out")
    if not isinstance(source, str) or source not in DATASETS:
        return _own(existing(source), options)
    if mmap:
        raise InputError(f"{source}: expected no mmap, for the set fits in memory, got mmap={mmap}; leave it out")
    if tuple(splits) != SPLITS:
        raise InputError(f"{source}: expected no splits, for the set has its own, got {splits}; leave them out")
    entry = DATASETS[source]
    recipe = _recipe(entry, options)
    return dataset(source, resolve(entry.path)(source, options), recipe)


def _is_table_file(source: str | Path, options: Options) -> bool:
    """Whether a path is read as a table, not as a matrix of numbers to binarize or to divide.

    Raises:
        InputError: for what is neither path nor name.
    """
    if not isinstance(source, (str, Path)):
        raise InputError(
            f"expected a name, a path or a frame with named columns, got {type(source).__name__}; fit and evaluate "
            "take tensors and arrays as they are"
        )
    as_numbers = options.mmap or options.binarization is not None or options.divisor is not None
    as_numbers = as_numbers or options.dequantize
    return source not in DATASETS and is_table(source) and not as_numbers


def _check_frame(source: Any, options: Options) -> None:
    """Raises InputError for what is asked of matrices alone."""
    for name in ("mmap", "divisor", "binarization", "dequantize"):
        if is_frame(source) and (value := getattr(options, name)):
            raise InputError(
                f"expected no {name} of a frame, got {value!r}; leave it out, or load its values as a .npy"
            )


def _recipe(entry: NamedSet, options: Options) -> Recipe:
    """What is done to the rows of a set."""
    kind, divisor = options.binarization or ("none" if options.dequantize else entry.binarization), options.divisor
    if options.dequantize and not entry.fixed:
        return Recipe(kind, float(divisor or entry.divisor + (entry.divisor > 1)), options.seed, dequantize=True)
    if entry.fixed and options.dequantize:
        raise InputError("expected no dequantize of a set that is published as zeros and ones; leave it out")
    if entry.fixed:
        return Recipe(entry.binarization, 1.0, None)
    if kind == "none":
        return Recipe(kind, float(divisor or entry.divisor), None)
    if divisor is not None:
        raise InputError(
            f'expected divisor with binarization "none" only, got divisor={divisor:g} and '
            f'binarization="{kind}"; leave out one of them'
        )
    return Recipe(kind, entry.probability, options.seed if kind in ("dynamic", "static") else None)


def _own(path: Path, options: Options) -> Dataset:
    """The user's file: its own three parts, or a seeded permutation in three."""
    mapped = user_files.outgrows_memory(path) if options.mmap is None else options.mmap
    name, parts = path.resolve().name, user_files.read_path(path, mapped=mapped)
    kind = options.binarization or "none"
    seed = options.seed if "all" in parts or kind in ("dynamic", "static") or options.dequantize else None
    if "all" in parts:
        rows = parts["all"]
        parts = rows.permuted(sizes(len(rows.x), options.splits, name), seed=options.seed)
    elif tuple(options.splits) != SPLITS:
        raise InputError(f"{name}: expected no splits, for the file has its own, got {options.splits}; leave them out")
    return dataset(name, parts, Recipe(kind, float(options.divisor or 1.0), seed, options.dequantize))
