import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data import DATASETS, Dataset, datasets, load
from pyrovae.data.named import FitDefaults, NamedSet
from pyrovae.data.user_files import Rows


def splits(dataset):
    return {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}


X = np.random.RandomState(0).rand(20, 3).astype(np.float32)


# ------------------------------------------------------------------------------------------- import


def test_import_is_light():
    code = "import sys, pyrovae.data; print([m for m in ('torchvision', 'sklearn', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- contracts of every data set

SETS = {  # name: sizes, shape of a datum
    "digits": ((1197, 300, 300), (8, 8)),
    "colour-digits": ((1197, 300, 300), (3, 8, 8)),
    "mnist": ((50000, 10000, 10000), (28, 28)),
    "fashion-mnist": ((50000, 10000, 10000), (28, 28)),
    "mnist-static": ((50000, 10000, 10000), (28, 28)),
}
CONTRACTS = {  # id: name, options, kind, maximum, binarization, divisor, seed
    "digits": ("digits", {}, "counts", 16, "none", 1.0, None),
    "digits in [0, 1]": ("digits", {"divisor": 16}, "unit", 1, "none", 16.0, None),
    "digits as reals": ("digits", {"divisor": 4}, "real", None, "none", 4.0, None),
    "digits dynamic": ("digits", {"binarization": "dynamic"}, "binary", 1, "dynamic", 16.0, 0),
    "digits static": ("digits", {"binarization": "static", "seed": 3}, "binary", 1, "static", 16.0, 3),
    "colour-digits": ("colour-digits", {}, "counts", 16, "none", 1.0, None),
    "digits threshold": ("digits", {"binarization": "threshold"}, "binary", 1, "threshold", 16.0, None),
    "mnist": ("mnist", {}, "binary", 1, "dynamic", 255.0, 0),
    "fashion-mnist grey": ("fashion-mnist", {"binarization": "none"}, "unit", 1, "none", 255.0, None),
    "mnist-static": ("mnist-static", {}, "binary", 1, "static", 1.0, None),
}


@pytest.mark.parametrize("case", CONTRACTS.values(), ids=CONTRACTS)
def test_contract(case, request):
    name, options, kind, maximum, binarization, divisor, seed = case
    if "digits" not in name:
        request.getfixturevalue("real_data")
    dataset = load(name, **options, download=False)
    sizes, shape = SETS[name]
    assert (dataset.name, dataset.shape, dataset.num_classes) == (name, torch.Size(shape), 10)
    assert (dataset.kind, dataset.maximum) == (kind, maximum)
    for (part, split), size in zip(splits(dataset).items(), sizes, strict=True):
        protocol = split.protocol
        assert (protocol.dataset, protocol.split, protocol.num_data) == (name, part, size)
        assert (protocol.binarization, protocol.divisor, protocol.seed) == (binarization, divisor, seed)
        jacobian = -math.prod(shape) * math.log(divisor) if binarization == "none" else 0.0
        assert protocol.log_jacobian == pytest.approx(jacobian)
        check_rows(split, size, shape, binary=kind == "binary" and (binarization, part) != ("dynamic", "train"))


def check_rows(split, size, shape, *, binary):
    assert len(split) == size
    assert [tensor.dtype for tensor in split.tensors] == [torch.float32]
    assert split.x.shape == (size, *shape)
    assert (split.labels.dtype, split.labels.shape) == (torch.int64, (size,))
    assert not binary or ((split.x == 0) | (split.x == 1)).all()


def test_the_contracts_cover_every_set():
    assert {case[0] for case in CONTRACTS.values()} == set(SETS) == set(DATASETS)


def test_a_new_set_is_one_entry(monkeypatch):
    def read(name, options):
        return {
            part: Rows(np.full((size, 4), 3, np.uint8)) for part, size in zip(("train", "valid", "test"), (5, 2, 3))
        }

    monkeypatch.setattr(datasets, "read_threes", read, raising=False)
    toy = NamedSet("threes", "pyrovae.data.datasets:read_threes", probability=4.0)
    monkeypatch.setitem(DATASETS, "threes", toy)
    found = load("threes")
    assert (found.name, found.range, found.shape, len(found.valid)) == ("threes", "counts 0..3", (4,), 2)
    assert torch.equal(load("threes", binarization="dynamic").train.x, torch.full((5, 4), 0.75))
    with pytest.raises(InputError, match='did you mean "threes"'):
        load("three")


def test_every_set_says_what_it_is_and_what_a_fit_of_it_is_like():
    names = {"latent", "hidden", "epochs", "batch_size", "lr", "kl_warmup"}
    for entry in DATASETS.values():
        assert entry.about and "\n" not in entry.about
        settings = entry.fit.to_dict()
        assert settings.keys() == names
        assert json.loads(json.dumps(settings)) == settings
    own = {"latent": 10, "hidden": [200], "epochs": 100, "batch_size": 128, "lr": 1e-3, "kl_warmup": 0.0}
    assert FitDefaults().to_dict() == own


def test_a_set_in_a_line():
    assert repr(load("digits")) == "Dataset(digits: counts 0..16 of shape (8, 8); 1197 train, 300 valid, 300 test)"


def test_mnist_validates_on_the_last_training_rows(real_data):
    from pyrovae.data.published_files import IDX_FILES, read_idx

    folder, md5s = IDX_FILES["mnist"]
    images, labels = (read_idx(real_data / folder / "raw" / file, md5) for file, md5 in [*md5s.items()][:2])
    dataset = load("mnist", binarization="none", divisor=1, data_dir=real_data)
    assert dataset.range == "counts 0..255"
    np.testing.assert_array_equal(dataset.valid.labels, labels[-10000:])
    np.testing.assert_array_equal(dataset.valid.x[::100], images[-10000::100])
    np.testing.assert_array_equal(dataset.train.x[::500], images[:50000:500])


# ------------------------------------------------------------------------------------------- digits


def test_digits_and_labels_stay_together():
    from sklearn.datasets import load_digits

    source = load_digits()
    images = source.images.astype(np.uint8)
    labels = {image.tobytes(): label for image, label in zip(images, source.target, strict=True)}
    seen = 0
    for split in splits(load("digits", seed=5)).values():
        for image, label in zip(split.x.numpy().astype(np.uint8), split.labels.tolist(), strict=True):
            assert labels.pop(image.tobytes()) == label
            seen += 1
    assert (seen, labels) == (1797, {})


def test_digits_are_the_same_for_ever():
    found = {part: split.protocol.sha256[:8] for part, split in splits(load("digits")).items()}
    assert found == {"train": "83b78b35", "valid": "f4798579", "test": "c7060862"}


def test_all_digits_runs_share_their_rows():
    for part, split in splits(load("digits")).items():
        for options in ({"seed": 7}, {"divisor": 16}, {"binarization": "static", "seed": 7}):
            other = splits(load("digits", **options))[part]
            assert other.protocol.source_sha256 == split.protocol.sha256
            assert torch.equal(other.labels, split.labels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "counts 0..16"),
        ({"binarization": "static"}, "binary"),
        ({"divisor": 16}, "values in [0, 1]"),
        ({"divisor": 2}, "reals"),
    ],
)
def test_range(options, words):
    assert load("digits", **options).range == words


@pytest.mark.parametrize("binarization", ["none", "dynamic", "static", "threshold"])
def test_two_loads_serve_the_same_rows(binarization):
    first, second = (splits(load("digits", binarization=binarization, seed=1)) for _ in range(2))
    for part in first:
        assert torch.equal(first[part].x, second[part].x)
        assert first[part].protocol == second[part].protocol


def test_a_draw_without_a_generator_follows_torchs_own():
    train = load("digits", binarization="dynamic").train
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = train.batch(slice(0, 9))
        torch.manual_seed(0)
        assert torch.equal(first[0], train.batch(slice(0, 9))[0])


def test_loading_leaves_the_global_generators_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load("digits", binarization="static")
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


# ------------------------------------------------------------------------------------ the user's own


def test_own_rows_are_permuted_and_split(rows_file):
    path = rows_file(X.astype(np.float64))
    dataset = load(path, seed=2, splits=(0.5, 0.25, 0.25))
    assert isinstance(dataset, Dataset)
    assert [len(split) for split in splits(dataset).values()] == [10, 5, 5]
    rows = torch.cat([split.x for split in splits(dataset).values()])
    assert not torch.equal(rows, torch.from_numpy(X))
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, X.tolist()))
    assert (dataset.name, dataset.train.protocol.dataset, dataset.train.protocol.seed) == ("rows.npy",) * 2 + (2,)
    assert dataset.num_classes is None
    assert str(path.parent) not in repr(dataset.train.protocol)


def test_own_splits_follow_the_seed(rows_file):
    first, again, other = (load(str(rows_file(X)), seed=seed).test.protocol.sha256 for seed in (0, 0, 1))
    assert first == again != other


def test_own_parts_stay_in_order(tmp_path):
    np.savez(tmp_path / "parts.npz", train=X, valid=X[:4], test=X[4:6])
    dataset = load(tmp_path / "parts.npz")
    np.testing.assert_array_equal(dataset.train.x, X)
    np.testing.assert_array_equal(dataset.test.x, X[4:6])
    assert dataset.train.protocol.seed is None
    with pytest.raises(InputError, match=r"parts.npz: expected no splits, for the file has its own"):
        load(tmp_path / "parts.npz", splits=(0.5, 0.25, 0.25))


def test_own_labels_stay_with_their_rows(tmp_path):
    np.savez(tmp_path / "both.npz", x=np.arange(20.0)[:, None] / 2, y=np.arange(20) % 3)
    dataset = load(tmp_path / "both.npz")
    assert dataset.num_classes == 3
    for split in splits(dataset).values():
        assert torch.equal((2 * split.x[:, 0]).long() % 3, split.labels)


def test_own_images(tmp_path):
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / "faces" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (5, 4), (number, 9, 200)).save(tmp_path / "faces" / label / f"{number}.png")
    dataset = load(tmp_path / "faces", divisor=255, binarization="static")
    assert (dataset.name, dataset.shape, dataset.num_classes) == ("faces", torch.Size([3, 4, 5]), 2)
    assert (dataset.kind, dataset.train.protocol.divisor) == ("binary", 255.0)


def test_own_table_with_missing_values(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n" + "1,\n2,3\n0,4\n" * 5)
    dataset = load(tmp_path / "table.csv")
    assert dataset.range == "columns 1 count, 1 binary"
    assert sum(int(split.x.isnan().sum()) for split in splits(dataset).values()) == 5


# ------------------------------------------------------------------------------------------- errors

BAD_OPTIONS = {
    "binarization": (
        {"binarization": "dynamc"},
        'binarization one of none, dynamic.*"?dynamc\'; did you mean "dynamic"',
    ),
    "divisor 0": ({"divisor": 0}, "expected a finite divisor > 0, got 0"),
    "divisor below 0": ({"divisor": -1.0}, "expected a finite divisor > 0, got -1.0"),
    "divisor inf": ({"divisor": math.inf}, "expected a finite divisor > 0, got inf"),
    "divisor nan": ({"divisor": math.nan}, "expected a finite divisor > 0, got nan"),
    "seed below 0": ({"seed": -1}, "expected an integer seed from 0 to .* got -1"),
    "seed as text": ({"seed": "1"}, "expected an integer seed from 0 to .* got '1'"),
    "two fractions": ({"splits": (0.5, 0.5)}, "expected three positive fractions"),
    "fractions over 1": ({"splits": (0.8, 0.2, 0.2)}, "expected three positive fractions"),
    "fraction 0": ({"splits": (0.8, 0.2, 0.0)}, "expected three positive fractions"),
    "fraction nan": ({"splits": (0.8, 0.2, math.nan)}, "expected three positive fractions"),
    "splits of a named set": (
        {"splits": (0.5, 0.25, 0.25)},
        "digits: expected no splits, for the set has its own",
    ),
    "divisor and binarization": (
        {"divisor": 2, "binarization": "static"},
        'expected divisor with binarization "none" only, got divisor=2 and binarization="static"',
    ),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        load("digits", **options)


@pytest.mark.parametrize("options", [{"binarization": "dynamic"}, {"binarization": "threshold"}, {"divisor": 2.0}])
def test_static_mnist_is_binarized_already(options):
    with pytest.raises(
        InputError, match=r'mnist-static: expected neither .* these rows are bits already.*load "mnist"'
    ):
        load("mnist-static", **options)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("mnits", 'did you mean "mnist"'),
        ("MNIST", 'did you mean "mnist"'),
        ("no/such/rows.npy", "check the name or the path"),
        (Path("digits"), 'did you mean "digits"'),
    ],
)
def test_unknown_name(source, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f"expected one of digits, colour-digits, mnist, fashion-mnist, mnist-static, or an existing file or folder.*; {hint}"
    with pytest.raises(InputError, match=message):
        load(source)


@pytest.mark.parametrize("num_data", [1, 2])
def test_too_few_rows(num_data, rows_file):
    with pytest.raises(InputError, match=f"expected rows enough for three splits of .*, got {num_data}"):
        load(rows_file(X[:num_data]))


def test_three_rows_are_enough(rows_file):
    assert [len(split) for split in splits(load(rows_file(X[:3]))).values()] == [1, 1, 1]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "mnist-static"])
def test_sets_that_are_nowhere(name, tmp_path, monkeypatch):
    monkeypatch.delenv("PYROVAE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"{name}: expected .*{tmp_path}/pyrovae.*PYROVAE_DATA, --data-dir"):
        load(name, download=False)
    assert list(tmp_path.iterdir()) == []
