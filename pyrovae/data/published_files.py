"""The named sets as NumPy arrays, from files that are known by their hashes; every failure is one `InputError`.

Nothing is ever written next to the files that are read, and nothing is ever unpickled.
"""

import gzip
import hashlib
import math
import os
import socket
import struct
import warnings
import zlib
from http.client import HTTPException
from pathlib import Path

import numpy as np

from pyrovae.base.errors import InputError
from pyrovae.data.user_files import Array, Parts, Rows, arrays_of, content_of, demand_names

# torchvision's folder, and the md5 of each file as its authors published it.
IDX_FILES = {
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
DOWNLOAD_TIMEOUT = 10.0  # seconds that a server may keep silent
HOW_TO_GET = (
    "put the files there, or name the folder that has them by PYROVAE_DATA, --data-dir or data_dir=, "
    'or use "digits", which needs no network'
)


def data_folder(data_dir: str | Path | None) -> Path | None:
    """The folder to look in first: the argument, else the environment's PYROVAE_DATA, else None."""
    given = data_dir or os.environ.get("PYROVAE_DATA")
    return Path(given).expanduser() if given else None


def cache_folder() -> Path:
    """Where downloads go: $XDG_CACHE_HOME/pyrovae, or ~/.cache/pyrovae."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyrovae"


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
    content = content_of(path)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise InputError(
            f"{path}: expected md5 {md5}, found {found}; the file is altered or truncated: delete it, fetch it again"
        )
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: expected a whole gzip file, got {error}; fetch it again") from error
    return _parse_idx(path, content)


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
    timeout = socket.getdefaulttimeout()
    try:
        import torchvision.datasets

        # Where torchvision finds the files unzipped, it does not look whether the .gz are whole.
        for file in md5s:
            (cache_folder() / subfolder / "raw" / file.removesuffix(".gz")).unlink(missing_ok=True)
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torchvision itself would wait for ever
        getattr(torchvision.datasets, subfolder)(cache_folder(), download=True)
    except (ImportError, RuntimeError, OSError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{absent}, and the download failed ({reason}); {HOW_TO_GET}") from error
    finally:
        socket.setdefaulttimeout(timeout)


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
        arrays = arrays_of(packed)
        demand_names(packed, arrays, list(STATIC_SHA256))
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
    arrays = arrays_of(path)
    demand_names(path, arrays, [f"{part}_label" for part in STATIC_SHA256])
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
    characters = np.frombuffer(content_of(path), np.uint8)
    bits = characters[~np.isin(characters, list(b" \t\r\n"))] - ord("0")
    if (bits > 1).any() or bits.size == 0 or bits.size % width:
        raise InputError(
            f"{path}: expected rows of {width} bits, 0 or 1, set apart by blanks, "
            f"got {bits.size} characters; fetch the file again"
        )
    return bits.reshape(-1, width)
