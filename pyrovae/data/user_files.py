"""The user's own files, .npy, .npz, .csv or a folder, as NumPy arrays; every failure is one `InputError`.

Nothing is ever unpickled.
"""

import csv
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrovae.base.errors import InputError, nearest
from pyrovae.base.memory import machine_memory
from pyrovae.data.memmap import Array, Mapped, in_file, open_npy
from pyrovae.data.named import PARTS


class Rows(NamedTuple):
    """Observations `x` of shape (N, *shape), and `labels` of shape (N,) where there are any."""

    x: Array | Mapped
    labels: Array | None = None

    def take(self, index: Any) -> "Rows":
        """Some of the rows; those of a mapped array stay in their file."""
        mapped = in_file(self.x)
        x: Any = Mapped(mapped.array, mapped.rows[index]) if mapped is not None else self.x[index]
        return Rows(x, None if self.labels is None else self.labels[index])

    def permuted(self, sizes: tuple[int, int, int], *, seed: int) -> "Parts":
        """A permutation cut in three. RandomState, because NumPy never changes its streams."""
        order = np.random.RandomState(seed).permutation(len(self.x))
        chunks = np.split(order, np.cumsum(sizes)[:2])
        return {part: self.take(chunk) for part, chunk in zip(PARTS, chunks, strict=True)}


Parts = dict[str, Rows]  # {"train", "valid", "test"}, {"train", "test"} or {"all"}
SUFFIXES = (".npy", ".npz", ".csv")
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def content_of(path: Path) -> bytes:
    """Reads a whole file that must not be empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got {error.strerror}; check the path") from error
    if not content:
        raise InputError(f"{path}: expected data, got an empty file; fetch or write it again")
    return content


def read_path(path: Path, *, mapped: bool = False) -> Parts:
    """Reads a user's file (.npy, .npz, .csv), folder of .npy files or folder of images.

    An archive, or a folder of .npy, holds arrays "train", "valid" and "test"; or "x", with labels "y" if any; or one.
    Where `mapped`, observations are left in their .npy files, as `numpy.memmap`.

    Returns:
        Either "train", "valid" and "test", or "all".

    Raises:
        InputError: a file that is missing, empty, damaged, or of another kind.
    """
    suffix, npy_files = path.suffix.lower(), _npy_files(path)
    if mapped and not npy_files:
        raise InputError(f"{path}: expected a .npy file or a folder of them to map, got neither; save the rows as .npy")
    if npy_files:
        arrays = [open_npy(file) if mapped else arrays_of(file, ["x"])["x"] for file in npy_files]
        names = [file.stem for file in npy_files] if path.is_dir() else ["the array"]
        return _named_parts(path, dict(zip(names, arrays, strict=True)))
    if path.is_dir():
        return {"all": read_image_folder(path)}
    if suffix == ".npz":
        return _named_parts(path, arrays_of(path))
    if suffix == ".csv":
        return {"all": Rows(read_csv(path))}
    raise InputError(
        f'{path}: expected {", ".join(SUFFIXES)} or a folder of images, got suffix "{path.suffix}";'
        f"{nearest(path.suffix, SUFFIXES) or ' save the rows as .npy'}"
    )


def outgrows_memory(path: Path) -> bool:
    """Whether the rows of .npy files, as float32, would take over a quarter of the machine's memory."""
    found, limit = _npy_files(path), machine_memory() // 4
    if 4 * sum(file.stat().st_size for file in found) <= limit:  # a byte becomes a float32
        return False
    return 4 * sum(open_npy(file).size for file in found) > limit


def _npy_files(path: Path) -> list[Path]:
    """A .npy file, or those of a folder without images."""
    if path.is_dir():
        return [] if _images(path) else [file for file in _visible(path) if file.suffix.lower() == ".npy"]
    return [path] if path.suffix.lower() == ".npy" else []


def _named_parts(path: Path, arrays: dict[str, Array]) -> Parts:
    if {"train", "valid", "test"} & set(arrays):
        _demand_names(path, arrays, ["train", "valid", "test"])
        parts = {part: Rows(_numbers(path, part, arrays[part])) for part in PARTS}
        shapes = {part: rows.x.shape[1:] for part, rows in parts.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"{path}: expected one shape of datum, got {shapes}; give all three the same")
        return parts
    if len(arrays) == 1 and "y" not in arrays:
        return {"all": Rows(_numbers(path, *arrays.popitem()))}
    _demand_names(path, arrays, ["x"], ["y"])
    x = _numbers(path, "x", arrays["x"])
    return {"all": Rows(x, _label_array(path, arrays["y"], len(x)) if "y" in arrays else None)}


def arrays_of(path: Path, names: Sequence[str] = ()) -> dict[str, Array]:
    """All arrays of a .npy (named "x") or .npz file, without unpickling; these names must be among them."""
    content_of(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"x": loaded}
        else:
            with loaded:
                arrays = dict(loaded)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise InputError(f"{path}: expected numbers, got Python objects; save it with a numeric dtype") from error
        raise InputError(f"{path}: expected a whole {path.suffix} file, got {error}; write it again") from error
    _demand_names(path, arrays, names)
    return arrays


def _demand_names(path: Path, arrays: dict[str, Array], names: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raises InputError unless an archive holds these arrays, and beside them none but ``optional`` (if any is)."""
    if set(names) - set(arrays) or set(arrays) - set(names) - set(optional or arrays):
        raise InputError(
            f'{path}: expected arrays {[*names]}, got {sorted(arrays)}; name them "train", "valid" and "test", '
            'or "x" (and "y" for labels)'
        )


def _numbers(path: Path, name: str, array: Array) -> Array:
    """Demands real numbers with at least one row and one value per row."""
    if array.dtype.kind not in "buif":
        raise InputError(f"{path}: expected numbers in {name}, got dtype {array.dtype}; save it with a numeric dtype")
    if array.ndim == 0 or array.size == 0:
        raise InputError(
            f"{path}: expected rows (N, ...) with N > 0 in {name}, got shape {array.shape}; check the file"
        )
    return array


def _label_array(path: Path, labels: Array, num_data: int) -> Array:
    if labels.shape != (num_data,) or labels.dtype.kind not in "bui" or labels.min() < 0:
        raise InputError(
            f'{path}: expected "y" as {num_data} class numbers from 0, got {labels.dtype} {labels.shape}; '
            "give one non-negative integer per row of x"
        )
    return labels


def read_csv(path: Path) -> Array:
    """Reads a table of numbers set apart by commas, semicolons or tabs: (N, columns), float64.

    A first row without any number is the header. An empty cell, NA or NaN is a missing value (NaN).
    """
    lines = csv_lines(path, content_of(path))
    header = lines[0][1] if is_header(lines[0][1]) else None
    body = lines[1:] if header else lines
    if not body:
        raise InputError(f"{path}: expected rows of numbers, got only a header; check the file")
    return np.array([_csv_row(path, number, cells, lines[0][1], header) for number, cells in body])


def csv_lines(path: Path, content: bytes) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        text = content.decode("utf-8-sig").splitlines()
        first = next((line for line in text if line.strip()), "")
        reader = csv.reader(text, delimiter=max(",;\t", key=first.count))
        lines = [(reader.line_num, cells) for cells in reader if len(cells) > 1 or any(map(str.strip, cells))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected text in UTF-8, got {error}; export the table again") from error
    if not lines:
        raise InputError(f"{path}: expected rows of numbers, got blank lines only; check the file")
    return lines


def is_header(cells: list[str]) -> bool:
    """A header has text in it and no number; a row of nothing but empty cells is a datum."""
    return any(map(str.strip, cells)) and all(number(cell) is None for cell in cells)


def _csv_row(path: Path, row: int, cells: list[str], first: list[str], header: list[str] | None) -> list[float | None]:
    if len(cells) != len(first):
        raise InputError(f"{path}: expected {len(first)} cells in row {row}, got {len(cells)}; complete the row")
    values = [math.nan if cell.strip().lower() in {"", "na"} else number(cell) for cell in cells]
    if None in values:
        column = values.index(None)
        name = f' ("{header[column]}")' if header else ""
        raise InputError(
            f'{path}: expected a number in row {row}, column {column + 1}{name}, got "{cells[column]}"; '
            "encode text as numbers, or leave the cell empty where the value is missing"
        )
    return values


def number(cell: str) -> float | None:
    """None for text."""
    try:
        return float(cell)
    except ValueError:
        return None


def read_image_folder(path: Path) -> Rows:
    """Reads a folder of images of one size; the names of its subfolders, sorted, are the classes.

    Returns:
        x of shape (N, H, W) for grey images or (N, 3, H, W) for colour (transparency is dropped), in the
        order of the sorted file names.
    """
    loose = _images(path)
    classes = [found for folder in _visible(path) if folder.is_dir() and (found := _images(folder))]
    if not loose and not classes:
        raise InputError(f"{path}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), got none; check the folder")
    if loose and classes:
        raise InputError(
            f"{path}: expected images either in subfolders (classes) or beside none, got both; "
            f"move {loose[0].name} into a subfolder"
        )
    labels = [number for number, found in enumerate(classes) for _ in found]
    files = loose or [file for found in classes for file in found]
    return Rows(_stack(files), np.array(labels) if classes else None)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return [file for file in _visible(folder) if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]


def _stack(files: list[Path]) -> Array:
    images = [_image(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"{file}: expected shape {images[0].shape} as {files[0].name} has, got {image.shape}; "
                "make all images the same size, all grey or all in colour"
            )
    return np.stack(images)


def _image(file: Path) -> Array:
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode in {"I", "F", "I;16", "I;16B", "I;16L"}:  # grey with more than 8 bits
                return np.asarray(image)
            if image.mode in {"1", "L", "LA"}:
                return np.asarray(image.convert("L"))
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: expected an image, got {error}; remove the file or save it again") from error
