import gzip
import hashlib
import socket
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from pyrovae.base.choices import resolve
from pyrovae.base.errors import InputError
from pyrovae.data import published_files as readers
from pyrovae.data.named import DATASETS, SPLITS, Options


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """No data folder, an empty cache, and a network that fails."""
    import torchvision.datasets

    def fail(self):
        raise RuntimeError("no network\nhere")

    monkeypatch.delenv("PYROVAE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fail)
    return tmp_path


def read(name, *, data_dir=None, download=True):
    return resolve(DATASETS[name].path)(name, Options(None, None, 0, data_dir, download, SPLITS, None))


def link(source, target):
    """A copy of a folder of files by links: cheap, and as unwritable as the source."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).symlink_to(file)
    return target


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


# ---------------------------------------------------------------------------------------------- idx


@pytest.mark.parametrize("array", [IMAGES, IMAGES[0, 0]], ids=["images", "labels"])
def test_idx_round_trip(tmp_path, array):
    content = gzip.compress(
        b"\x00\x00\x08" + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape) + array.tobytes()
    )
    (tmp_path / "images.gz").write_bytes(content)
    found = readers.read_idx(tmp_path / "images.gz", hashlib.md5(content).hexdigest())
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty file"), (b"no idx", "expected md5 abc, found {md5}; the")]
)
def test_damaged_idx(tmp_path, content, message):
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(InputError, match=f"images.gz.*{message.format(md5=hashlib.md5(content).hexdigest())}"):
        readers.read_idx(tmp_path / "images.gz", "abc")


def test_missing_idx(tmp_path):
    with pytest.raises(InputError, match=r"none.gz: expected a readable file, got No such file"):
        readers.read_idx(tmp_path / "none.gz", "abc")


# ------------------------------------------------------------------------------------- grey images


@pytest.mark.parametrize("name", readers.IDX_FILES)
def test_grey_images_are_read_where_they_lie(name, real_data, no_data):
    before = sorted(real_data.rglob("*"))
    parts = read(name, data_dir=real_data, download=False)
    assert {part: rows.x.shape for part, rows in parts.items()} == {
        "train": (50000, 28, 28),
        "valid": (10000, 28, 28),
        "test": (10000, 28, 28),
    }
    assert {part: (rows.labels.shape, rows.labels.max()) for part, rows in parts.items()} == {
        "train": ((50000,), 9),
        "valid": ((10000,), 9),
        "test": ((10000,), 9),
    }
    assert sorted(real_data.rglob("*")) == before
    assert not (no_data / "cache").exists()


def test_mnist_label_counts(real_data):
    labels = read("mnist", data_dir=real_data)["test"].labels
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_an_altered_file_is_named(real_data, tmp_path):
    raw = link(real_data / "MNIST" / "raw", tmp_path / "MNIST" / "raw")
    path = raw / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte\.gz: expected md5 ec29112dd5afa0611ce80d1b7f02629c"):
        read("mnist", data_dir=tmp_path)


def test_the_cache_is_read_without_asking_the_network(real_data, no_data):
    link(real_data / "MNIST" / "raw", no_data / "cache" / "pyrovae" / "MNIST" / "raw")
    assert len(read("mnist", download=False)["test"].x) == 10000


def test_a_download_lands_in_the_cache(real_data, no_data, monkeypatch):
    import torchvision.datasets

    asked = []

    def fetch(self):
        asked.append((Path(self.root), socket.getdefaulttimeout()))
        link(real_data / "MNIST" / "raw", Path(self.raw_folder))

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fetch)
    monkeypatch.setattr(torchvision.datasets.MNIST, "_check_exists", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.MNIST, "_load_data", lambda self: (None, None))
    assert len(read("mnist")["train"].x) == 50000
    assert asked == [(no_data / "cache" / "pyrovae", readers.DOWNLOAD_TIMEOUT)]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", readers.IDX_FILES)
def test_without_files_and_network(name, no_data):
    message = f"{name}: expected train-images.*download failed .no network here.*PYROVAE_DATA, --data-dir.*digits"
    with pytest.raises(InputError, match=message):
        read(name)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("error", [URLError("unreachable"), PermissionError("read-only"), TimeoutError()])
def test_every_failure_of_a_download_is_one_error(error, no_data, monkeypatch):
    import torchvision.datasets

    def fail(self):
        raise error

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fail)
    with pytest.raises(InputError, match="the download failed"):
        read("mnist")


def test_download_false_asks_nobody(no_data):
    with pytest.raises(InputError, match="not all are there, and download=False; put the files there"):
        read("mnist", download=False)
    assert not (no_data / "cache").exists()


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_folders_looked_at_are_said_before_downloading(by, no_data, monkeypatch):
    given = no_data / "given"
    if by == "environment":
        monkeypatch.setenv("PYROVAE_DATA", str(given))
    with (
        pytest.warns(UserWarning, match=f"one of: {given}/MNIST/raw, .*cache/pyrovae/MNIST/raw; .*: downloading to"),
        pytest.raises(InputError, match=f"{given}/MNIST/raw"),
    ):
        read("mnist", data_dir=given if by == "argument" else None)


def test_stale_unzipped_files_do_not_stop_a_download(no_data):
    raw = no_data / "cache" / "pyrovae" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"stale")
    with pytest.raises(InputError, match="the download failed"):
        read("mnist")
    assert list(raw.iterdir()) == []


# ------------------------------------------------------------------------------------ static MNIST


def test_static_mnist(real_data):
    parts = read("mnist-static", data_dir=real_data)
    assert [len(rows.x) for rows in parts.values()] == [50000, 10000, 10000]
    assert [round(float(rows.x.mean()), 5) for rows in parts.values()] == [0.13056, 0.13113, 0.13251]
    assert (np.diff(parts["test"].labels.astype(int)) >= 0).all()


def test_static_mnist_from_the_original_text_without_labels(real_data, tmp_path):
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    packed = read("mnist-static", data_dir=real_data)
    for part, rows in packed.items():
        text = np.full((len(rows.x), 2 * 784), ord(" "), np.uint8)
        text[:, ::2] = rows.x.reshape(-1, 784) + ord("0")
        text[:, -1] = ord("\n")
        written = text.tobytes() if part != "test" else text.tobytes().replace(b"\n", b"\r\n")
        (folder / f"binarized_mnist_{part}.amat").write_bytes(written)
    parts = read("mnist-static", data_dir=tmp_path)
    for part, rows in parts.items():
        np.testing.assert_array_equal(rows.x, packed[part].x)
        assert rows.labels is None


def test_static_mnist_is_never_downloaded(no_data):
    message = "mnist-static: expected .*_packed.npz, or binarized_mnist_train.amat.*never downloaded: put"
    with pytest.raises(InputError, match=message):
        read("mnist-static")


def test_other_bits_than_larochelles(tmp_path):
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    zeros = np.zeros((2, 98), np.uint8)
    np.savez(folder / "binarized_mnist_packed.npz", train=zeros, valid=zeros, test=zeros)
    with pytest.raises(InputError, match=r"expected the train rows of mnist-static with sha256 ad693b29.*found"):
        read("mnist-static", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"train": np.zeros((2, 98), np.uint8)},
            r"expected arrays \['train', 'valid', 'test'\], got \['train'\]",
        ),
        (dict.fromkeys(["train", "valid", "test"], np.zeros((2, 784))), "expected uint8 rows of 98 bytes"),
    ],
    ids=["missing", "not packed"],
)
def test_other_arrays_than_packed_bits(tmp_path, arrays, message):
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    np.savez(folder / "binarized_mnist_packed.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read("mnist-static", data_dir=tmp_path)


@pytest.mark.parametrize("content", [b"0 1 2\n", b"0 1\n", b"0.0 1.0 1.0\n", b"\n \n"])
def test_damaged_amat(tmp_path, content):
    (tmp_path / "binarized_mnist").mkdir()
    for part in readers.STATIC_SHA256:
        (tmp_path / "binarized_mnist" / f"binarized_mnist_{part}.amat").write_bytes(content)
    with pytest.raises(InputError, match=r"binarized_mnist: expected the train rows of mnist-static .* fetch it again"):
        read("mnist-static", data_dir=tmp_path)


def test_digits():
    parts = read("digits")
    assert [rows.x.shape for rows in parts.values()] == [(1197, 8, 8), (300, 8, 8), (300, 8, 8)]
    assert [rows.labels.shape for rows in parts.values()] == [(1197,), (300,), (300,)]
    for rows in parts.values():
        assert (rows.x.dtype, rows.x.min(), rows.x.max()) == (np.uint8, 0, 16)


def test_colour_digits_are_the_digits_in_a_hue_by_class():
    grey, colour = read("digits"), read("colour-digits")
    for part, rows in colour.items():
        x = rows.x.astype(float)
        assert x.shape == (len(grey[part].x), 3, 8, 8) and rows.x.dtype == np.uint8
        assert (rows.labels == grey[part].labels).all() and np.abs(x.max(1) - grey[part].x).max() == 0
    red = [colour["train"].x[colour["train"].labels == label][:, 0].mean() for label in (0, 5)]
    assert red[0] > 2 * red[1]  # class 0 is red, class 5 is cyan
    again = read("colour-digits")
    assert (again["test"].x == colour["test"].x).all()
