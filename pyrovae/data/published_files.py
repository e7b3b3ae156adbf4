"""The named sets as NumPy arrays, from files that are known by their hashes; every failure is one `InputError`.

Nothing is ever written next to the files that are read, and nothing is ever unpickled.
"""

import gzip
import hashlib
import os
import socket
from http.client import HTTPException
from pathlib import Path

import numpy as np

from pyrovae.base.errors import InputError, warn
from pyrovae.data.named import Options
from pyrovae.data.user_files import Array, Parts, Rows, arrays_of, content_of

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


def folders(options: Options) -> list[Path]:
    """Where files are looked for: in the folder given or PYROVAE_DATA, if any, and last in the cache of downloads."""
    given = options.data_dir or os.environ.get("PYROVAE_DATA")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyrovae"
    return [Path(given).expanduser(), cache] if given else [cache]


def read_idx(path: Path, md5: str) -> Array:
    """Reads a gzipped idx file of bytes (the format of MNIST) that is known by its md5.

    Four magic bytes (0, 0, 8 for uint8, the number of dimensions), one big-endian uint32 per dimension, then
    the bytes: an array of uint8 of that shape.

    Raises:
        InputError: a missing, altered or truncated file.
    """
    content = content_of(path)
    found = _md5(content)
    if found != md5:
        raise InputError(
            f"{path}: expected md5 {md5}, found {found}; the file is altered or truncated: delete it, fetch it again"
        )
    content = gzip.decompress(content)
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4).tolist()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def read_grey_images(name: str, options: Options) -> Parts:
    """Reads "mnist" or "fashion-mnist": from the folder given, else from the cache, else over the network.

    Returns:
        "train" with x of shape (50000, 28, 28), "valid" (the last of the training rows) and "test" with
        (10000, 28, 28), uint8 grey values; labels.

    Raises:
        InputError: files that are altered, or that are nowhere to be had.
    """
    folder = _idx_folder(name, options)
    arrays = [read_idx(folder / file, md5) for file, md5 in IDX_FILES[name][1].items()]
    train, test = Rows(*arrays[:2]), Rows(*arrays[2:])
    return {"train": train.take(slice(-10_000)), "valid": train.take(slice(-10_000, None)), "test": test}


def _idx_folder(name: str, options: Options) -> Path:
    """Finds (or downloads) the folder that holds all four files of the set."""
    subfolder, md5s = IDX_FILES[name]
    *given, cached = raw = [root / subfolder / "raw" for root in folders(options)]
    if given and all((given[0] / file).is_file() for file in md5s):
        return given[0]
    if all((cached / file).is_file() and _md5((cached / file).read_bytes()) == md5 for file, md5 in md5s.items()):
        return cached
    absent = f"{name}: expected {', '.join(md5s)} in one of: {', '.join(map(str, raw))}; not all are there"
    if not options.download:
        raise InputError(f"{absent}, and download=False; {HOW_TO_GET}")
    if given:
        warn(UserWarning(f"{absent}: downloading to {cached}"))
    _download(name, cached, absent)
    return cached


def _download(name: str, cached: Path, absent: str) -> None:
    """Lets torchvision fetch a set into the cache folder, with its progress shown."""
    subfolder, md5s = IDX_FILES[name]
    timeout = socket.getdefaulttimeout()
    try:
        import torchvision.datasets

        # Where torchvision finds the files unzipped, it does not look whether the .gz are whole.
        for file in md5s:
            (cached / file.removesuffix(".gz")).unlink(missing_ok=True)
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torchvision itself would wait for ever
        getattr(torchvision.datasets, subfolder)(cached.parents[1], download=True)
    except (ImportError, RuntimeError, OSError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{absent}, and the download failed ({reason}); {HOW_TO_GET}") from error
    finally:
        socket.setdefaulttimeout(timeout)


def read_digits(name: str, options: Options) -> Parts:
    """Reads scikit-learn's bundled digits, by a permutation that is always the same.

    Returns:
        "train" with x of shape (1197, 8, 8), "valid" and "test" with (300, 8, 8), uint8 counts 0..16; labels.
    """
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    return Rows(bunch.images.astype(np.uint8), bunch.target).permuted((1197, 300, 300), seed=0)


HUE_STEP, HUE_SPREAD, SATURATION = 36.0, 12.0, 0.8  # degrees between classes, and sd within one


def read_colour_digits(name: str, options: Options) -> Parts:
    """Makes colour images of scikit-learn's digits: the hue follows the class, about.

    A digit of class c has the hue 36 c + 12 e degrees, e ~ N(0, 1) by a fixed seed, saturation 0.8 and value 1; each
    channel of a pixel is its count times the colour's, rounded. So the colour is not in the strokes alone, and a grey
    digit has one likely colour where its class is plain, and several where it is not.

    Returns:
        The rows of "digits", in the same parts: x of shape (N, 3, 8, 8), uint8 counts 0..16; labels.
    """
    return {part: _coloured(rows, part) for part, rows in read_digits(name, options).items()}


def _coloured(rows: Rows, part: str) -> Rows:
    noise = np.random.Generator(np.random.PCG64([0, *part.encode()]))
    labels = np.asarray(rows.labels)
    hue = (HUE_STEP * labels + HUE_SPREAD * noise.standard_normal(len(labels))) % 360
    # Red, green and blue of a hue at value 1: 1 - s max(0, min(1, k, 4 - k)), k = (n + hue / 60) mod 6, n = 5, 3, 1.
    k = (np.array([5.0, 3.0, 1.0]) + hue[:, None] / 60) % 6
    colours = 1 - SATURATION * np.clip(np.minimum(k, 4 - k), 0, 1)
    x = np.rint(colours[:, :, None, None] * np.asarray(rows.x)[:, None]).astype(np.uint8)
    return Rows(x, rows.labels)


def read_static_mnist(name: str, options: Options) -> Parts:
    """Reads the fixed binarization of MNIST used in the literature, from packed bits or the original text.

    The rows are checked against the SHA-256 of the original text files. Train and valid are a permutation of
    MNIST's training images; test rows are sorted by class, so shuffle before taking a subset of them. They are looked
    for in the folder `binarized_mnist` of the folder given, of PYROVAE_DATA, else of the cache.

    Returns:
        "train" (50000, 28, 28), "valid" and "test" (10000, 28, 28), uint8 0 or 1; labels where
        `binarized_mnist_derived_labels.npz` lies beside.

    Raises:
        InputError: another binarization or a divisor; missing files, or other bits than the original's.

    Reference:
        Larochelle and Murray (2011), The neural autoregressive distribution estimator, AISTATS.
    """
    binarization, divisor = options.binarization, options.divisor
    if binarization not in (None, "none", "static") or divisor not in (None, 1.0):
        raise InputError(
            f"mnist-static: expected neither binarization nor divisor, got {binarization!r} and {divisor}; "
            'these rows are bits already: for another binarization load "mnist"'
        )
    folder = folders(options)[0] / "binarized_mnist"
    texts, beside = _static_texts(folder), folder / "binarized_mnist_derived_labels.npz"
    labels = arrays_of(beside, [f"{part}_label" for part in texts]) if beside.is_file() else {}
    return {part: Rows(_bits(folder, part, text), labels.get(f"{part}_label")) for part, text in texts.items()}


def _static_texts(folder: Path) -> dict[str, bytes]:
    """The rows as the original text, "0 1 0 ..."."""
    packed = folder / "binarized_mnist_packed.npz"
    texts = {part: folder / f"binarized_mnist_{part}.amat" for part in STATIC_SHA256}
    if packed.is_file():
        arrays = arrays_of(packed, list(STATIC_SHA256))
        return {part: _unpacked(packed, arrays[part]) for part in STATIC_SHA256}
    if all(path.is_file() for path in texts.values()):
        return {part: content_of(path).replace(b"\r\n", b"\n") for part, path in texts.items()}
    raise InputError(
        f"mnist-static: expected {packed}, or {', '.join(path.name for path in texts.values())} in "
        f"{folder}; found neither, and this set is never downloaded: {HOW_TO_GET}"
    )


def _unpacked(path: Path, packed: Array) -> bytes:
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != 98:
        raise InputError(
            f"{path}: expected uint8 rows of 98 bytes (784 bits), got {packed.dtype} {packed.shape}; check the file"
        )
    text = np.full((len(packed), 2 * 784), ord(" "), np.uint8)
    text[:, ::2] = np.unpackbits(packed, axis=1) + ord("0")
    text[:, -1] = ord("\n")
    return text.tobytes()


def _bits(folder: Path, part: str, text: bytes) -> Array:
    found = hashlib.sha256(text).hexdigest()
    if found != STATIC_SHA256[part]:
        raise InputError(
            f"{folder}: expected the {part} rows of mnist-static with sha256 {STATIC_SHA256[part]} as text, "
            f"found {found}; the file is altered or is another binarization: fetch it again"
        )
    return (np.frombuffer(text, np.uint8)[::2] - ord("0")).reshape(-1, 28, 28)
