"""From files to NumPy arrays: every format has one function, and every failure is one clear `InputError`.

Nothing is ever written next to the files that are read, and nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import math
import os
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import InputError, nearest

__all__ = [
    "Rows",
    "cache_folder",
    "data_folder",
    "read_amat",
    "read_csv",
    "read_digits",
    "read_grey_images",
    "read_idx",
    "read_image_folder",
    "read_npy",
    "read_npz",
    "read_path",
    "read_static_mnist",
]

Array = np.ndarray[Any, np.dtype[Any]]


class Rows(NamedTuple):
    """Observations `x` of shape (N, *shape), and `labels` of shape (N,) where there are any."""

    x: Array
    labels: Array | None = None


Parts = dict[str, Rows]  # {"train", "valid", "test"}, {"train", "test"} or {"all"}

# torchvision's folder, and the md5 of each file as its authors published it.
IDX_FILES: dict[str, tuple[str, dict[str, str]]] = {
    "mnist": (
        "MNIST",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion-mnist": (
        "FashionMNIST",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
}
# SHA-256 of Larochelle's text files, by which the bits are known whatever file they come in.
STATIC_SHA256 = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
DOWNLOAD_TIMEOUT = 10.0  # seconds that a server may keep silent
HOW_TO_GET = (
    "put the files there, or name the folder that has them by PYROVAE_DATA, --data-dir or data_dir=, "
    'or use "digits", which needs no network'
)


# ------------------------------------------------------------------------------------------ folders


def data_folder(data_dir: str | Path | None) -> Path | None:
    """The folder to look in first: the argument, else the environment's PYROVAE_DATA, else None."""
    given = data_dir or os.environ.get("PYROVAE_DATA")
    return Path(given).expanduser() if given else None


def cache_folder() -> Path:
    """Where downloads go: $XDG_CACHE_HOME/pyrovae, or ~/.cache/pyrovae."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyrovae"


def _content(path: Path) -> bytes:
    """Reads a whole file that must not be empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got {error.strerror}; check the path") from error
    if not content:
        raise InputError(f"{path}: expected data, got an empty file; fetch or write it again")
    return content


# ---------------------------------------------------------------------------------------------- idx


def read_idx(path: str | Path, *, md5: str | None = None) -> Array:
    """Reads an idx file of bytes (the format of MNIST), gzipped or not.

    Four magic bytes (0, 0, 8 for uint8, the number of dimensions), one big-endian uint32 per dimension, then
    the bytes.

    Args:
        path: the file; a name ending in `.gz` is unzipped in memory.
        md5: of the file as it lies on disk; checked before anything is parsed.

    Returns:
        uint8 array of the shape that the file states.

    Raises:
        InputError: a missing, altered or truncated file, or another format.
    """
    path = Path(path)
    content = _content(path)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise InputError(
            f"{path}: expected md5 {md5}, found {found}; the file is altered or truncated: delete it, fetch it again"
        )
    return _parse_idx(path, _gunzip(path, content) if path.suffix == ".gz" else content)


def _gunzip(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a whole gzip file, got {error}; fetch it again") from error


def _parse_idx(path: Path, content: bytes) -> Array:
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise InputError(
            f"{path}: expected an idx file of bytes (magic 00 00 08), got {content[:3].hex(' ')}; check the file"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise InputError(f"{path}: expected an idx header of {start} bytes, got {len(content)}; fetch it again")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise InputError(
            f"{path}: expected {math.prod(shape)} bytes for shape {shape}, got {len(content) - start}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_grey_images(name: str, *, data_dir: str | Path | None = None, download: bool = True) -> Parts:
    """Reads "mnist" or "fashion-mnist": from the given folder, else from the cache, else over the network.

    Args:
        name: a key of `IDX_FILES`.
        data_dir: a folder in torchvision's layout, never written to; PYROVAE_DATA when None.
        download: whether torchvision may download into the cache folder.

    Returns:
        "train" with x of shape (60000, 28, 28) and "test" with (10000, 28, 28), uint8 grey values; labels.

    Raises:
        InputError: files that are altered, or that are nowhere to be had.
    """
    folder = _idx_folder(name, data_dir, download=download)
    md5s = IDX_FILES[name][1]
    arrays = [read_idx(folder / file, md5=md5) for file, md5 in md5s.items()]
    return {"train": Rows(arrays[0], arrays[1]), "test": Rows(arrays[2], arrays[3])}


def _idx_folder(name: str, data_dir: str | Path | None, *, download: bool) -> Path:
    """Finds (or downloads) the folder that holds all four files of the set."""
    subfolder, md5s = IDX_FILES[name]
    folders = [root / subfolder / "raw" for root in (data_folder(data_dir), cache_folder()) if root is not None]
    cached = folders[-1]
    if len(folders) > 1 and all((folders[0] / file).is_file() for file in md5s):
        return folders[0]
    if all(_has_md5(cached / file, md5) for file, md5 in md5s.items()):
        return cached
    absent = f"{name}: expected {', '.join(md5s)} in one of: {', '.join(map(str, folders))}; not all are there"
    if not download:
        raise InputError(f"{absent}, and download=False; {HOW_TO_GET}")
    if len(folders) > 1:
        warnings.warn(f"{absent}: downloading to {cached}", stacklevel=2)
    _download(name, absent)
    return cached


def _has_md5(path: Path, md5: str) -> bool:
    return path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


def _download(name: str, absent: str) -> None:
    """Lets torchvision fetch a set into the cache folder, with its progress shown."""
    subfolder, md5s = IDX_FILES[name]
    try:
        import torchvision.datasets

        # Where torchvision finds the files unzipped, it does not look whether the .gz are whole.
        for file in md5s:
            (cache_folder() / subfolder / "raw" / file.removesuffix(".gz")).unlink(missing_ok=True)
        with _timeout(DOWNLOAD_TIMEOUT):
            getattr(torchvision.datasets, subfolder)(cache_folder(), download=True)
    except (ImportError, RuntimeError, OSError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{absent}, and the download failed ({reason}); {HOW_TO_GET}") from error


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """A silent server ends in an error; torchvision itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# ------------------------------------------------------------------------------- other named sets


def read_digits() -> Rows:
    """Reads scikit-learn's bundled digits: x of shape (1797, 8, 8), uint8 counts 0..16, and labels."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    return Rows(bunch.images.astype(np.uint8), bunch.target)


def read_static_mnist(*, data_dir: str | Path | None = None) -> Parts:
    """Reads the fixed binarization of MNIST used in the literature, from packed bits or the original text.

    The rows are checked against the SHA-256 of the original text files. Train and valid are a permutation of
    MNIST's training images; test rows are sorted by class, so shuffle before taking a subset of them.

    Args:
        data_dir: the folder that holds `binarized_mnist/`; PYROVAE_DATA, else the cache folder, when None.

    Returns:
        "train" (50000, 28, 28), "valid" and "test" (10000, 28, 28), uint8 0 or 1; labels where
        `binarized_mnist_derived_labels.npz` lies beside.

    Raises:
        InputError: missing files, or other bits than the original's.

    Reference:
        Larochelle and Murray (2011), The neural autoregressive distribution estimator, AISTATS.
    """
    folder = (data_folder(data_dir) or cache_folder()) / "binarized_mnist"
    bits = _static_bits(folder)
    labels = _static_labels(folder)
    for part, expected in STATIC_SHA256.items():
        _check_static(folder, part, bits[part], expected)
    return {part: Rows(bits[part].reshape(-1, 28, 28), labels.get(f"{part}_label")) for part in STATIC_SHA256}


def _static_bits(folder: Path) -> dict[str, Array]:
    packed = folder / "binarized_mnist_packed.npz"
    texts = {part: folder / f"binarized_mnist_{part}.amat" for part in STATIC_SHA256}
    if packed.is_file():
        arrays = _arrays(packed)
        _demand_names(packed, arrays, list(STATIC_SHA256))
        return {part: _unpack(packed, arrays[part]) for part in STATIC_SHA256}
    if all(path.is_file() for path in texts.values()):
        return {part: read_amat(path) for part, path in texts.items()}
    raise InputError(
        f"mnist-static: expected {packed}, or {', '.join(path.name for path in texts.values())} in "
        f"{folder}; found neither, and this set is never downloaded: {HOW_TO_GET}"
    )


def _unpack(path: Path, packed: Array) -> Array:
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != 98:
        raise InputError(
            f"{path}: expected uint8 rows of 98 bytes (784 bits), got {packed.dtype} {packed.shape}; check the file"
        )
    return np.unpackbits(packed, axis=1)


def _static_labels(folder: Path) -> dict[str, Array]:
    path = folder / "binarized_mnist_derived_labels.npz"
    if not path.is_file():
        return {}
    arrays = _arrays(path)
    _demand_names(path, arrays, [f"{part}_label" for part in STATIC_SHA256])
    return arrays


def _check_static(folder: Path, part: str, bits: Array, expected: str) -> None:
    """Writes the bits as the original text did, in memory, and compares the checksum."""
    text = np.full((len(bits), 2 * 784), ord(" "), np.uint8)
    text[:, ::2] = bits + ord("0")
    text[:, -1] = ord("\n")
    found = hashlib.sha256(text.data).hexdigest()
    if found != expected:
        raise InputError(
            f"{folder}: expected the {part} rows of mnist-static with sha256 {expected} as text, "
            f"found {found}; the file is altered or is another binarization: fetch it again"
        )


def read_amat(path: str | Path, *, width: int = 784) -> Array:
    """Reads rows of text bits, "0 1 0 ...": uint8 array of shape (N, width)."""
    path = Path(path)
    characters = np.frombuffer(_content(path), np.uint8)
    bits = characters[~np.isin(characters, list(b" \t\r\n"))] - ord("0")
    if (bits > 1).any() or bits.size == 0 or bits.size % width:
        raise InputError(
            f"{path}: expected rows of {width} bits, 0 or 1, set apart by blanks, "
            f"got {bits.size} characters; fetch the file again"
        )
    return bits.reshape(-1, width)


# ------------------------------------------------------------------------------- the user's own files


def read_path(path: str | Path) -> Parts:
    """Reads a user's file (.npy, .npz, .csv) or folder of images.

    Args:
        path: what to read; it must exist.

    Returns:
        Either "train", "valid" and "test", or "all".

    Raises:
        InputError: a file that is missing, empty, damaged, or of another kind.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return {"all": read_image_folder(path)}
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(
            f'{path}: expected {", ".join(READERS)} or a folder of images, got suffix "{path.suffix}";'
            f"{nearest(path.suffix, READERS) or ' save the rows as .npy'}"
        )
    return read(path)


def read_npy(path: str | Path) -> Parts:
    """Reads one array of shape (N, *shape)."""
    path = Path(path)
    arrays = _arrays(path)
    _demand_names(path, arrays, ["x"])
    return {"all": Rows(_numbers(path, "the array", arrays["x"]))}


def read_npz(path: str | Path) -> Parts:
    """Reads arrays "train", "valid" and "test"; or "x", with labels "y" if any; or the only array."""
    path = Path(path)
    arrays = _arrays(path)
    if {"train", "valid", "test"} & set(arrays):
        return _read_parts(path, arrays)
    if len(arrays) == 1 and "y" not in arrays:
        return {"all": Rows(_numbers(path, *arrays.popitem()))}
    _demand_names(path, arrays, ["x"], optional=["y"])
    x = _numbers(path, "x", arrays["x"])
    return {"all": Rows(x, _label_array(path, arrays["y"], len(x)) if "y" in arrays else None)}


def _read_parts(path: Path, arrays: dict[str, Array]) -> Parts:
    _demand_names(path, arrays, ["train", "valid", "test"])
    parts = {part: Rows(_numbers(path, part, arrays[part])) for part in ("train", "valid", "test")}
    shapes = {part: rows.x.shape[1:] for part, rows in parts.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{path}: expected one shape of datum, got {shapes}; give all three the same")
    return parts


def _arrays(path: Path) -> dict[str, Array]:
    """All arrays of a .npy (named "x") or .npz file, without unpickling."""
    _content(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise InputError(f"{path}: expected numbers, got Python objects; save it with a numeric dtype") from error
        raise InputError(f"{path}: expected a whole {path.suffix} file, got {error}; write it again") from error


def _demand_names(path: Path, arrays: dict[str, Array], names: list[str], *, optional: list[str] | None = None) -> None:
    if set(names) - set(arrays) or set(arrays) - set(names) - set(optional or arrays):
        raise InputError(
            f'{path}: expected arrays {names}, got {sorted(arrays)}; name them "train", "valid" and "test", '
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


def read_csv(path: str | Path) -> Parts:
    """Reads a table of numbers set apart by commas, semicolons or tabs: x of shape (N, columns), float64.

    A first row without any number is the header. An empty cell, NA or NaN is a missing value (NaN).
    """
    path = Path(path)
    lines = _csv_lines(path, _content(path))
    header = lines[0][1] if _is_header(lines[0][1]) else None
    body = lines[1:] if header else lines
    if not body:
        raise InputError(f"{path}: expected rows of numbers, got only a header; check the file")
    return {"all": Rows(np.array([_csv_row(path, number, cells, lines[0][1], header) for number, cells in body]))}


def _csv_lines(path: Path, content: bytes) -> list[tuple[int, list[str]]]:
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


def _is_header(cells: list[str]) -> bool:
    """A header has text in it and no number; a row of nothing but empty cells is a datum."""
    return any(map(str.strip, cells)) and not any(map(_is_number, cells))


def _csv_row(path: Path, row: int, cells: list[str], first: list[str], header: list[str] | None) -> list[float]:
    if len(cells) != len(first):
        raise InputError(f"{path}: expected {len(first)} cells in row {row}, got {len(cells)}; complete the row")
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return [_csv_cell(path, row, column, cell, header) for column, cell in enumerate(cells)]


def _csv_cell(path: Path, row: int, column: int, cell: str, header: list[str] | None) -> float:
    if cell.strip().lower() in {"", "na", "nan"}:
        return math.nan
    if _is_number(cell):
        return float(cell)
    name = f' ("{header[column]}")' if header else ""
    raise InputError(
        f'{path}: expected a number in row {row}, column {column + 1}{name}, got "{cell}"; '
        "encode text as numbers, or leave the cell empty where the value is missing"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_image_folder(path: str | Path) -> Rows:
    """Reads a folder of images of one size; the names of its subfolders, sorted, are the classes.

    Returns:
        x of shape (N, H, W) for grey images or (N, 3, H, W) for colour (transparency is dropped), in the
        order of the sorted file names.
    """
    path = Path(path)
    folders = [folder for folder in _visible(path) if folder.is_dir() and _images(folder)]
    files = _images(path) + [file for folder in folders for file in _images(folder)]
    if not files:
        raise InputError(f"{path}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), got none; check the folder")
    if folders and _images(path):
        raise InputError(
            f"{path}: expected images either in subfolders (classes) or beside none, got both; "
            f"move {_images(path)[0].name} into a subfolder"
        )
    labels = [number for number, folder in enumerate(folders) for _ in _images(folder)]
    return Rows(_stack(files), np.array(labels) if folders else None)


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


READERS = {".npy": read_npy, ".npz": read_npz, ".csv": read_csv}
