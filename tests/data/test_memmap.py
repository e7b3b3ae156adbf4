"""Rows that stay in their file: the same rows and protocols as in memory, read ahead, and files that are cut short."""

import mmap

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.data import as_split, load
from pyrovae.data import user_files as files
from pyrovae.data.batches import prefetch
from pyrovae.data.memmap import Mapped, open_npy
from pyrovae.data.split import Split

R = np.random.RandomState(0)
BYTES = R.randint(0, 256, (60, 5, 3)).astype(np.uint8)
REALS = R.randn(60, 7).astype(np.float32)


def splits(dataset):
    return {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks for each of these small files."""
    monkeypatch.setattr("pyrovae.data.protocol.VALUES_AT_ONCE", 100)


# ------------------------------------------------------------------------------ the same rows as in memory

ARRAYS = {
    "bytes": BYTES,
    "float32": REALS,
    "float64": REALS.astype(np.float64) / 3,
    "float16": REALS.astype(np.float16),
    "bool": REALS > 0,
    "int16": (REALS * 100).astype(np.int16),
    "uint16": R.randint(0, 65536, (60, 4)).astype(np.uint16),
    "big-endian": REALS.astype(">f4"),
    "numbers": REALS[:, 0],
    "missing": np.where(REALS > 1, np.nan, REALS),
    "probabilities": R.rand(60, 7),
}
OPTIONS = {
    "as found": {},
    "divided": {"divisor": 3.7},
    "seeded": {"seed": 5, "splits": (0.5, 0.3, 0.2)},
}
BINARIZED = {
    f"{binarization} {name}": (array, {"binarization": binarization, **options})
    for binarization in ("dynamic", "static", "threshold")
    for name, array, options in (
        ("probabilities", ARRAYS["probabilities"], {"seed": 3}),
        ("bytes", BYTES, {"divisor": 255}),
    )
}
SETS = {
    **{f"{array} {option}": (ARRAYS[array], OPTIONS[option]) for array in ARRAYS for option in OPTIONS},
    **BINARIZED,
}


@pytest.mark.parametrize(("array", "options"), SETS.values(), ids=SETS)
def test_mapped_rows_are_those_in_memory(array, options, rows_file):
    path = rows_file(array)
    ours, theirs = (load(path, mmap=mapped, **options) for mapped in (True, False))
    assert (ours.kind, ours.maximum, ours.shape) == (theirs.kind, theirs.maximum, theirs.shape)
    for mapped, held in zip(splits(ours).values(), splits(theirs).values(), strict=True):
        in_file = mapped.protocol.binarization == "none" or mapped.protocol.drawn_anew
        assert (mapped.mapped, held.mapped) == (in_file, False)
        assert mapped.protocol == held.protocol
        check_batches(mapped, held)
        check_derived(mapped, held)


def check_batches(mapped, held):
    for rows in (torch.tensor([4, 0, 4]), slice(1, 5), slice(None, None, 2), torch.zeros(0, dtype=torch.int64)):
        (own,), (x,) = held.batch(rows, generator()), mapped.batch(rows, generator())
        assert (x.shape, x.dtype) == (own.shape, own.dtype)
        torch.testing.assert_close(x, own, rtol=0, atol=0, equal_nan=True)


def check_derived(mapped, held):
    """Some of the rows, and all of them drawn."""
    some = mapped[[2, 0, -1]]
    assert isinstance(some.x, torch.Tensor)
    assert some.protocol == held[[2, 0, -1]].protocol
    assert mapped.drawn(7).protocol == held.drawn(7).protocol
    torch.testing.assert_close(mapped.drawn(7).batch(slice(None))[0], held.drawn(7).x, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(mapped.missing(), held.missing())


@pytest.mark.parametrize("options", [{}, {"divisor": 255}, {"divisor": 255, "binarization": "dynamic"}], ids=str)
def test_rows_stay_in_their_file(options, rows_file):
    for part, split in splits(load(rows_file(BYTES), mmap=True, **options)).items():
        in_file = options.get("binarization") != "dynamic" or part == "train"
        kept = split.columns[0].kept
        assert split.mapped == in_file
        held = kept.rows if in_file else kept
        assert held.nbytes == (8 if in_file else 15) * len(split)  # row numbers, or a byte a value
        assert not in_file or split.source is None or split.source is kept
        if in_file:
            for whole in (lambda split=split: split.x, lambda split=split: split.tensors):
                with pytest.raises(InputError, match=rf"rows.npy: expected a tensor, got {len(split)} rows that stay"):
                    whole()
        assert isinstance(split[:3].x, torch.Tensor)


FOLDERS = {
    "rows and labels": {"x": BYTES, "y": np.arange(60) % 4},
    "parts": {"train": BYTES, "valid": BYTES[:9], "test": BYTES[9:20]},
    "one array": {"faces": BYTES},
}


@pytest.mark.parametrize("arrays", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_of_arrays_reads_as_an_npz(arrays, tmp_path):
    np.savez(tmp_path / "set.npz", **arrays)
    (tmp_path / "set").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "set" / f"{name}.npy", array)
    zipped = load(tmp_path / "set.npz")
    for mapped in (True, False):
        folder = load(tmp_path / "set", mmap=mapped)
        assert folder.num_classes == zipped.num_classes
        for ours, theirs in zip(splits(folder).values(), splits(zipped).values(), strict=True):
            assert ours.mapped == mapped
            assert ours.protocol.sha256 == theirs.protocol.sha256
            assert theirs.labels is None or torch.equal(ours.labels, theirs.labels)


def test_labels_beside_mapped_rows(tmp_path):
    np.save(tmp_path / "x.npy", REALS)
    np.save(tmp_path / "y.npy", np.arange(60) % 4)
    mapped, held = (load(tmp_path, mmap=kind).train.with_labels() for kind in (True, False))
    assert mapped.protocol == held.protocol
    rows = torch.tensor([3, 1])
    assert all(map(torch.equal, mapped.batch(rows), held.batch(rows)))


VIEWS = {
    "whole": lambda array: array,
    "from a row on": lambda array: array[10:],
    "some rows": lambda array: array[7:9],
    "reshaped": lambda array: array.reshape(20, -1),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_memmap_stays_in_its_file(view, rows_file):
    mapped = as_split(view(np.load(rows_file(REALS.astype(np.float64)), mmap_mode="r")))
    held = as_split(view(REALS.astype(np.float64)))
    assert mapped.mapped
    assert mapped.protocol == held.protocol
    assert torch.equal(mapped.batch(torch.tensor([1, 0]))[0], held.batch(torch.tensor([1, 0]))[0])


def test_a_memmap_that_is_not_made_of_rows_is_read(rows_file):
    array = np.load(rows_file(REALS), mmap_mode="r")
    assert torch.equal(as_split(array[:, 2:]).x, torch.from_numpy(REALS[:, 2:]))


def test_on_another_device(rows_file):
    split = load(rows_file(BYTES), divisor=255, mmap=True).train.to("meta")
    assert split.device.type == "meta"
    assert split.batch(torch.tensor([1, 0]))[0].device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_prefetched_to_cuda(rows_file):
    split = load(rows_file(BYTES), divisor=255, binarization="dynamic", mmap=True).train
    noise, same = (torch.Generator("cuda").manual_seed(0) for _ in range(2))
    order = torch.arange(len(split)).split(7)
    with prefetch(split.to("cuda"), order, noise) as coming:
        for rows, (x,) in zip(order, coming, strict=True):
            assert torch.equal(x, split.to("cuda").batch(rows, same)[0])


def test_a_fit_of_mapped_rows_is_the_fit_of_rows_in_memory(rows_file):
    path = rows_file((R.rand(60, 6) > 0.5).astype(np.float32))
    histories, reports = [], []
    for mapped in (True, False):
        data = load(path, mmap=mapped)
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(2),
            decoder=pv.Conditional(pv.families.bernoulli(), 6, pv.networks.mlp(2, seed=0)),
            encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp(6, seed=1)),
        )
        fitted = pv.fit(vae.model, vae.guide, data.train, valid=data.valid, epochs=2, batch_size=10, seed=0)
        histories.append([(row["elbo"], row["valid_elbo"]) for row in fitted.history])
        reports.append(pv.evaluate(fitted.model, fitted.guide, data.test, num_particles=50, seed=0))
    assert histories[0] == histories[1]
    assert torch.equal(reports[0].log_evidence, reports[1].log_evidence)
    assert reports[0].protocol == reports[1].protocol


# ----------------------------------------------------------------------------------------- when to map


@pytest.mark.parametrize(("array", "size"), [(BYTES, 60 * 15 * 4), (REALS.astype(np.float64), 60 * 7 * 4)])
def test_mapped_where_floats_take_over_a_quarter_of_the_memory(array, size, rows_file, monkeypatch):
    path = rows_file(array)
    for memory, mapped in ((4 * size, False), (4 * size - 4, True), (100 * size, False)):
        monkeypatch.setattr(files, "machine_memory", lambda memory=memory: memory)
        assert load(path).train.mapped == mapped
        assert not load(path, mmap=False).train.mapped
        assert load(path, mmap=True).train.mapped


def test_a_folder_is_as_large_as_its_files_together(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "machine_memory", lambda: 4 * 60 * 7 * 4)
    for part in ("train", "valid", "test"):
        np.save(tmp_path / f"{part}.npy", REALS)
    assert load(tmp_path).test.mapped


def test_binarized_rows_that_memory_does_not_hold(rows_file, monkeypatch):
    path = rows_file(BYTES)
    dynamic = load(path, divisor=255, binarization="dynamic", mmap=True, splits=(0.8, 0.1, 0.1))
    monkeypatch.setattr("pyrovae.data.encoding.machine_memory", lambda: 100)
    message = r"rows.npy: expected binarized rows of a quarter of the memory at most .* the file"
    for binarize in (lambda: load(path, divisor=255, binarization="static", mmap=True), lambda: dynamic.train.drawn(0)):
        with pytest.raises(InputError, match=message):
            binarize()


# ---------------------------------------------------------------------------------- what cannot be mapped


def test_a_file_that_is_cut_short(rows_file):
    path = rows_file(REALS)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    message = rf"rows.npy: expected {whole} bytes for shape \(60, 7\), found {whole - 100}; write it again"
    with pytest.raises(InputError, match=message):
        load(path, mmap=True)


CUTS = {
    "whole array": (0, slice(None), 1000),
    "rows of it": (0, slice(10, None), 1000),
    "its last byte": (0, slice(None), 60 * 28 - 1),
    "far into the file": (5 * mmap.PAGESIZE, slice(None), 5 * mmap.PAGESIZE + 60 * 28 - 1),
}


@pytest.mark.parametrize(("offset", "rows", "left"), CUTS.values(), ids=CUTS)
def test_a_file_that_is_cut_short_while_in_use(offset, rows, left, tmp_path):
    path = tmp_path / "rows.bin"
    path.write_bytes(bytes(offset) + REALS.tobytes())
    split = as_split(np.memmap(path, np.float32, "r", offset, REALS.shape)[rows])
    np.testing.assert_array_equal(split.batch(slice(0, 3))[0], REALS[rows][:3])
    with path.open("r+b") as file:
        file.truncate(left)
    message = (
        f"rows.bin: expected {offset + 60 * 28} bytes, found {left}: it was cut short while in use; write it again"
    )
    with pytest.raises(InputError, match=message):
        split.batch(slice(0, 3))
    with prefetch(split, [torch.tensor([0])]) as coming, pytest.raises(InputError, match=message):
        next(coming)


UNMAPPABLE = {
    "Fortran order": (np.asfortranarray(REALS), r"got an array in Fortran order.*ascontiguousarray.*mmap=False"),
    "objects": (np.array([{}, None]), "expected numbers, got dtype object; save it with a numeric dtype"),
    "text": (np.array(["a", "b"]), "expected numbers, got dtype <U1"),
    "complex": (REALS * 1j, "expected numbers, got dtype complex"),
    "long double": (REALS.astype(np.longdouble), "expected numbers, got dtype float128"),
    "no rows": (REALS[:0], r"expected rows \(N, ...\) with N > 0, got shape \(0, 7\)"),
    "scalar": (np.array(1.0), r"got shape \(\)"),
}


@pytest.mark.parametrize(("array", "message"), UNMAPPABLE.values(), ids=UNMAPPABLE)
def test_unmappable_arrays(array, message, rows_file):
    with pytest.raises(InputError, match=rf"rows\.npy: .*{message}"):
        load(rows_file(array), mmap=True)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04" + bytes(100), b"\x93NUMPY\x01\x00\xff\xff{"])
def test_no_npy_at_all(content, tmp_path):
    (tmp_path / "rows.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.npy: expected a whole .npy file, got .*; write it again"):
        load(tmp_path / "rows.npy", mmap=True)


@pytest.mark.parametrize("name", ["rows.npz", "rows.csv", "images"])
def test_other_files_are_not_mapped(name, tmp_path):
    (tmp_path / name).mkdir() if name == "images" else (tmp_path / name).write_bytes(b"1,2")
    with pytest.raises(InputError, match=rf"{name}: expected a .npy file or a folder of them to map, got neither"):
        load(tmp_path / name, mmap=True)


def test_named_sets_are_not_mapped():
    with pytest.raises(InputError, match="digits: expected no mmap, for the set fits in memory"):
        load("digits", mmap=True)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (REALS, {"binarization": "dynamic"}),
        (np.where(REALS > 1, np.inf, REALS), {}),
        (REALS.astype(np.float64) * 1e300, {}),
        (ARRAYS["missing"] * 0, {"binarization": "static"}),
    ],
    ids=["no probabilities", "infinite", "too large for float32", "missing"],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_values_are_refused_in_the_same_words(array, options, rows_file):
    messages = []
    for mapped in (True, False):
        with pytest.raises(InputError, match=r"rows.npy: expected") as caught:
            load(rows_file(array), mmap=mapped, **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


# ------------------------------------------------------------------------------------ how a file is read


class Recorder:
    """A buffer that notes what it is asked to read."""

    def __init__(self, buffer):
        self.buffer, self.asked = buffer, []

    def size(self):
        return self.buffer.size()

    def madvise(self, advice, start, length):
        assert (advice, start % mmap.PAGESIZE) == (mmap.MADV_WILLNEED, 0)
        self.asked.append((start, start + length))
        self.buffer.madvise(advice, start, length)


@pytest.fixture(params=[0, 7])
def wide(rows_file, request):
    """Rows of 5000 bytes, more than a page; of 100 in the file the last ones, backwards."""
    array = open_npy(rows_file(np.arange(500_000, dtype=np.uint32).astype(np.uint8).reshape(100, 5000)))
    mapped = Mapped(array[request.param :], torch.arange(100 - request.param).flip(0))
    mapped.buffer = Recorder(mapped.buffer)
    return mapped


def test_all_pages_of_a_gather_are_asked_for_at_once(wide):
    rows = torch.tensor([90, 3, 40, 4, 3])
    np.testing.assert_array_equal(wide[rows], wide.array[::-1][rows.numpy()])
    asked = wide.buffer.asked
    assert len(asked) == 3  # rows 3 and 4 are neighbours
    for row in 99 - rows.numpy():
        start = 128 + 5000 * row
        assert any(begin <= start and start + 5000 <= end for begin, end in asked)
    assert sum(end - begin for begin, end in asked) < 4 * 5000 + 6 * mmap.PAGESIZE


def test_rows_in_a_run_are_asked_for_once(wide):
    np.testing.assert_array_equal(wide[10:60], wide.array[::-1][10:60])
    assert len(wide.buffer.asked) == 1


def test_no_rows_are_asked_for_where_none_are_wanted(wide):
    assert wide[5:5].shape == (0, 5000)
    assert wide.buffer.asked == []


def test_a_split_of_ones_own_may_hold_mapped_rows(rows_file):
    array = np.load(rows_file(REALS), mmap_mode="r")
    split = as_split((array, torch.arange(60)))
    assert isinstance(split, Split)
    with prefetch(split, [torch.tensor([59, 0])]) as coming:
        x, numbers = next(coming)
    np.testing.assert_array_equal(x, REALS[[59, 0]])
    assert numbers.tolist() == [59, 0]
