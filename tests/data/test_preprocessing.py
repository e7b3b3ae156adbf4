"""Source rows rescaled or binarized: which draws are fixed and which are anew, what values are, and what is refused."""

import numpy as np
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data import load
from pyrovae.data.preprocessing import Recipe, dataset
from pyrovae.data.user_files import Rows

X = np.random.RandomState(0).rand(20, 3).astype(np.float32)


def splits(dataset):
    return {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}


def generator(seed):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------- how rows are kept

KEPT = {  # source, recipe, how train and test rows are kept, whether train rows are those found
    "bytes": (X > 0.5, Recipe("none", 1.0, None), torch.uint8, torch.uint8, True),
    "grey": ((X * 255).astype(np.uint8), Recipe("none", 255.0, None), torch.uint8, torch.uint8, True),
    "reals": (X.astype(np.float64), Recipe("none", 2.0, None), torch.float32, torch.float32, True),
    "dynamic": (X, Recipe("dynamic", 1.0, 0), torch.float32, torch.uint8, True),
    "static": (X, Recipe("static", 1.0, 0), torch.uint8, torch.uint8, False),
    "threshold": (X, Recipe("threshold", 1.0, None), torch.uint8, torch.uint8, False),
    "dequantized": ((X * 255).astype(np.uint8), Recipe("none", 256.0, 0, True), torch.uint8, torch.float32, True),
}


@pytest.mark.parametrize(("array", "recipe", "train", "test", "shared"), KEPT.values(), ids=KEPT)
def test_rows_are_kept_once_in_the_least_room(array, recipe, train, test, shared):
    made = dataset("rows", {part: Rows(array) for part in ("train", "valid", "test")}, recipe)
    assert [split.columns[0].kept.dtype for split in (made.train, made.test)] == [train, test]
    assert [split.x.dtype for split in (made.train, made.test)] == [torch.float32] * 2
    assert (made.train.source is None) == (not recipe.changes)
    assert not recipe.changes or (made.train.columns[0].kept is made.train.source) == shared
    expected = torch.from_numpy(array).float() / recipe.divisor
    if recipe.binarization in ("none", "dynamic"):
        assert torch.equal(made.train.x, expected)
    else:
        assert set(made.train.x.unique().tolist()) == {0.0, 1.0}


# ------------------------------------------------------------------------------------------ binarization


def test_the_seed_moves_the_fixed_draws():
    first, second = (load("digits", binarization="static", seed=seed) for seed in (0, 1))
    for part in ("train", "valid", "test"):
        assert splits(first)[part].protocol.sha256 != splits(second)[part].protocol.sha256


def test_dynamic_and_static_evaluate_on_the_same_rows():
    dynamic, static = (load("digits", binarization=kind, seed=4) for kind in ("dynamic", "static"))
    assert dynamic.valid.protocol.sha256 == static.valid.protocol.sha256
    assert dynamic.test.protocol.sha256 == static.test.protocol.sha256
    assert dynamic.train.protocol.sha256 != static.train.protocol.sha256


def test_valid_and_test_have_streams_of_their_own(rows_file, tmp_path):
    half = np.full((50, 10), 0.5)
    np.savez(tmp_path / "half.npz", train=half, valid=half, test=half)
    dataset = load(tmp_path / "half.npz", binarization="static")
    assert len({split.protocol.sha256 for split in splits(dataset).values()}) == 3


def test_dynamic_train_batches_are_drawn_anew():
    train = load("digits", binarization="dynamic").train
    torch.testing.assert_close(train.x, load("digits", divisor=16).train.x)
    index = torch.arange(100)
    noise = generator(0)
    (first,), (second,), (again,) = (train.batch(index, one) for one in (noise, noise, generator(0)))
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    assert ((first == 0) | (first == 1)).all()


def test_dynamic_draws_have_the_probabilities_as_their_mean():
    train = load("digits", binarization="dynamic").train
    noise, num_draws = generator(0), 400
    mean = sum(train.batch(slice(0, 50), noise)[0] for _ in range(num_draws)) / num_draws
    p = train.x[:50]
    # c = 5.5 standard errors: for 3,200 pixels a false alarm in about 1e-4 of all seeds.
    assert ((mean - p).abs() <= 5.5 * (p * (1 - p) / num_draws).sqrt() + 1e-6).all()


@pytest.mark.parametrize("part", ["valid", "test"])
def test_evaluation_rows_are_not_drawn_anew(part):
    split = splits(load("digits", binarization="dynamic"))[part]
    assert torch.equal(split.batch(slice(None), generator(0))[0], split.x)


def test_a_part_of_a_dynamic_split_stays_dynamic():
    part = load("digits", binarization="dynamic").train[:200].with_labels()
    x, labels = part.batch(slice(0, 100), generator(0))
    assert ((x == 0) | (x == 1)).all()
    assert torch.equal(labels, part.labels[:100])


def test_threshold():
    counts, binary = load("digits"), load("digits", binarization="threshold")
    assert torch.equal(binary.test.x, (counts.test.x > 8).float())


# ----------------------------------------------------------------------------------- what a value is

KINDS = {
    "binary": (X > 0.5, "binary", 1),
    "counts": ((X * 9).round(), "counts", 9),
    "unit": (X, "unit", 1),
    "real": (X * 3, "real", None),
    "negative integers": ((X * 9).round() - 9, "real", None),
    "all missing": (X * np.nan, "real", None),
}


@pytest.mark.parametrize(("array", "kind", "maximum"), KINDS.values(), ids=KINDS)
def test_kinds(rows_file, array, kind, maximum):
    dataset = load(rows_file(array))
    assert (dataset.kind, dataset.maximum) == (kind, maximum)


@pytest.mark.parametrize("odd", [0.5, -1.0], ids=["not whole", "below 0"])
@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_the_kind_is_that_of_all_parts(part, odd, tmp_path):
    arrays = {name: np.full((4, 2), 3.0) for name in ("train", "valid", "test")}
    arrays[part][1, 1] = odd
    np.savez(tmp_path / "parts.npz", **arrays)
    assert load(tmp_path / "parts.npz").kind == "real"


def test_own_probabilities_are_divided_first(rows_file):
    dataset = load(rows_file(X * 4), binarization="dynamic", divisor=4)
    assert (dataset.kind, dataset.train.protocol.divisor, dataset.train.protocol.log_jacobian) == (
        "binary",
        4.0,
        0.0,
    )
    assert dataset.train.x.max() <= 1
    assert set(dataset.train.batch(slice(None))[0].unique().tolist()) <= {0.0, 1.0}


# -------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("array", [X + np.inf, X.astype(np.float64) * 1e300 + 1e300])
def test_infinite_values(array, rows_file):
    with pytest.raises(InputError, match=r"rows.npy: expected finite values \(NaN where missing\), got infinite ones"):
        load(rows_file(array))


@pytest.mark.parametrize("binarization", ["dynamic", "static", "threshold"])
def test_no_probabilities(binarization, rows_file):
    with pytest.raises(InputError, match=r"expected values in \[0, 1\] to binarize, got .*; give divisor="):
        load(rows_file(X * 255), binarization=binarization)
    with pytest.raises(InputError, match=r"expected values in \[0, 1\] to binarize, got missing ones"):
        load(rows_file(np.where(X > 0.5, np.nan, X)), binarization=binarization)


@pytest.fixture(scope="module")
def noisy_and_whole():
    return load("digits", dequantize=True, divisor=17), load("digits")


class TestDequantization:
    """Whole numbers plus uniform noise: of training rows at each use, of the others once."""

    def test_the_whole_numbers_are_those_that_were_there(self, noisy_and_whole):
        noisy, whole = noisy_and_whole
        assert noisy.range == "values in [0, 1]" and noisy.train.protocol.drawn_anew
        torch.testing.assert_close(noisy.train.x * 17, whole.train.x)
        (batch,) = noisy.train.batch(slice(0, 50))
        for found, counts in ((batch, whole.train.x[:50]), (noisy.test.x, whole.test.x)):
            noise = found * 17 - counts
            assert (noise > -1e-5).all() and (noise < 1 + 1e-5).all()
            # The mean of n uniforms within 4 of its standard errors.
            assert abs(float(noise.mean()) - 0.5) < 4 / (12 * noise.numel()) ** 0.5

    def test_each_use_of_a_training_row_has_its_own_noise_and_the_others_keep_theirs(self, noisy_and_whole):
        noisy, _ = noisy_and_whole
        generator = torch.Generator().manual_seed(0)
        first, second = (noisy.train.batch(slice(0, 50), generator)[0] for _ in range(2))
        assert not torch.equal(first, second)
        assert torch.equal(noisy.test.batch(slice(0, 50))[0], noisy.test.x[:50])
        again = load("digits", dequantize=True, divisor=17)
        assert torch.equal(again.test.x, noisy.test.x) and again.test.protocol == noisy.test.protocol
        other = load("digits", dequantize=True, divisor=17, seed=1)
        assert not torch.equal(other.test.x, noisy.test.x)

    def test_the_source_is_that_of_the_whole_numbers(self, noisy_and_whole):
        noisy, whole = noisy_and_whole
        for part in ("train", "test"):
            ours, theirs = (getattr(data, part).protocol for data in noisy_and_whole)
            assert ours.source_sha256 == theirs.source_sha256 and ours.sha256 != theirs.sha256
            assert ours.log_jacobian == pytest.approx(-64 * np.log(17))
        assert noisy.test[:20].protocol.source_sha256 == whole.test[:20].protocol.source_sha256

    def test_one_draw_of_the_training_rows_is_fixed(self, noisy_and_whole):
        drawn = noisy_and_whole[0].train.drawn(3)
        assert drawn.protocol.dequantized == "once" and not drawn.protocol.drawn_anew
        assert torch.equal(drawn.x, noisy_and_whole[0].train.drawn(3).x) and not torch.equal(
            drawn.x, noisy_and_whole[0].train.x
        )
        assert torch.equal(drawn.batch(slice(0, 5))[0], drawn.x[:5])

    def test_bytes_come_into_the_unit_interval(self, rows_file):
        grey = np.random.RandomState(0).randint(0, 256, (30, 4)).astype(np.uint8)
        data = load(rows_file(grey), dequantize=True, divisor=256)
        assert data.range == "values in [0, 1]" and data.train.columns[0].kept.dtype == torch.uint8
        assert load(rows_file(grey), dequantize=True).range == "reals"

    def test_missing_values_stay_missing(self, rows_file):
        rows = np.arange(60.0).reshape(30, 2)
        rows[::3, 0] = np.nan
        data = load(rows_file(rows), dequantize=True)
        assert sum(int(split.x.isnan().sum()) for split in (data.train, data.valid, data.test)) == 10

    def test_what_is_not_whole_is_refused(self, rows_file):
        with pytest.raises(InputError, match=r"expected whole numbers to dequantize, got 0\.5; noise between them"):
            load(rows_file(np.full((30, 2), 0.5)), dequantize=True)
        with pytest.raises(InputError, match='expected no binarization of what is dequantized, got "dynamic"'):
            load("digits", dequantize=True, binarization="dynamic")
