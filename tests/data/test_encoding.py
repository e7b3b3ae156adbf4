"""Rows in a smaller form: every batch equal to the split's own in every bit, or the tensor left as it is."""

import math

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.base.errors import InputError
from pyrovae.data import as_split, load
from pyrovae.data import encoding as module
from pyrovae.data.encoding import Bits, Compact, Scaled, Stored, pack

BYTES = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (40, 3, 3)).astype(np.uint8))
ONES = (BYTES > 128).float()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def equal(one, other):
    """Whether two tensors are the same in shape, dtype and every bit."""
    same = (one.shape, one.dtype) == (other.shape, other.dtype)
    return same and torch.equal(
        *(x.flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8) for x in (one, other))
    )


ROWS = {
    "numbers": torch.tensor([7, 0, 39, 7]),
    "none": torch.zeros(0, dtype=torch.int64),
    "slice": slice(3, 30),
    "slice with a step": slice(1, None, 7),
    "all": slice(None),
}


def batches_are_equal(split):
    compact = Compact.of(split)
    assert len(compact) == len(split)
    for rows in ROWS.values():
        for kept, own in zip(compact.batch(rows, generator()), split.batch(rows, generator()), strict=True):
            assert equal(kept, own), rows
    return compact


# ---------------------------------------------------------------------------------------- what is smaller

SMALLER = {  # rows, the share of their bytes that remains
    "counts": (BYTES.float(), 4),
    "counts in float64": (BYTES.double(), 8),
    "counts in int64": (BYTES.long(), 8),
    "counts in int16": (BYTES.short(), 2),
    "grey": (BYTES.float() / 255, 4),
    "grey in float64": (BYTES.double() / 255, 8),
    "zeros and ones": (ONES, 4),
    "one value each": (BYTES[:, 0, 0].float(), 4),
    "transposed": (BYTES.float().mT, 4),
}


@pytest.mark.parametrize(("x", "factor"), SMALLER.values(), ids=SMALLER)
def test_smaller_and_the_same(x, factor):
    compact = batches_are_equal(as_split(x))
    assert compact.nbytes * factor == x.nbytes


@pytest.mark.parametrize("divisor", [1, 2, 3.7, 16, 254.9, 255, 1e-3, 1e6])
@pytest.mark.parametrize("mmap", [True, False])
def test_rows_of_a_divisor(divisor, mmap, rows_file):
    split = load(rows_file(BYTES.numpy()), divisor=divisor, mmap=mmap).train
    compact = Compact.of(split)
    for rows in (torch.tensor([3, 1]), slice(2, 9)):
        assert equal(compact.batch(rows)[0], split.batch(rows)[0])
    assert compact.columns[0].kept.dtype == torch.uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_quotient_of_whole_numbers(dtype):
    k = torch.arange(256).to(torch.uint8)
    for divisor in range(1, 256):
        assert equal(Scaled.by(divisor, dtype).decode(k), k.to(dtype) / divisor), divisor


AS_THEY_ARE = {
    "reals": BYTES.float() / 255 + 1e-3,
    "a row that is not whole": torch.cat([BYTES[:39].float(), BYTES[39:] + 0.5]),
    "below 0": BYTES.float() - 1,
    "above 255": BYTES.float() + 1,
    "minus zero": torch.where(BYTES == 0, -0.0, BYTES.float()),
    "missing": torch.where(BYTES == 0, math.nan, BYTES.float()),
    "infinite": torch.where(BYTES == 0, math.inf, BYTES.float()),
    "a quotient of others": BYTES.float() / 254,
    "complex": BYTES.to(torch.complex64),
    "bool": BYTES > 128,
    "bfloat16": (BYTES.float() / 255 + 1).to(torch.bfloat16),
}


@pytest.mark.parametrize("x", AS_THEY_ARE.values(), ids=AS_THEY_ARE)
@pytest.mark.parametrize("bits_from", [0, 2**30], ids=["bits tried", "bits not tried"])
def test_left_as_they_are(x, bits_from, monkeypatch):
    assert (BYTES == 0).any()
    monkeypatch.setattr(module, "BITS_FROM", bits_from if x.dtype != torch.bool else 2**30)
    compact = batches_are_equal(as_split(x))
    assert compact.columns[0].kept is x


def test_rows_with_a_gradient_keep_it():
    x = BYTES.float().requires_grad_()
    assert Compact.of(as_split(x)).batch(torch.tensor([1]))[0].requires_grad


def test_a_value_in_the_last_block_is_seen(monkeypatch):
    monkeypatch.setattr("pyrovae.data.protocol.VALUES_AT_ONCE", 27)
    x = BYTES.float()
    batches_are_equal(as_split(x))
    x[-1, -1, -1] = 0.5
    assert Compact.of(as_split(x)).columns[0].kept is x


# ------------------------------------------------------------------------------------------------- bits

BINARY = {
    "images": ONES,
    "a whole byte": ONES.flatten(1)[:, :8].contiguous(),
    "three values": ONES[:, 0].contiguous(),
    "one value": ONES[:, 0, 0].contiguous(),
    "bool": ONES.bool(),
    "int64": ONES.long(),
    "float64": ONES.double(),
}


@pytest.mark.parametrize("x", BINARY.values(), ids=BINARY)
def test_bits(x, monkeypatch):
    monkeypatch.setattr(module, "BITS_FROM", 0)
    compact = batches_are_equal(as_split(x))
    assert compact.batch(slice(None))[0].is_contiguous()
    assert compact.nbytes == len(x) * math.ceil(math.prod(x.shape[1:]) / 8)


def test_bits_are_numpys():
    np.testing.assert_array_equal(pack(ONES), np.packbits(ONES.flatten(1).numpy().astype(bool), axis=1))


# ------------------------------------------------------------------------------------------ whole splits


@pytest.mark.parametrize("options", [{"divisor": 16}, {}, {"binarization": "dynamic"}, {"binarization": "static"}])
@pytest.mark.parametrize("labels", [False, True], ids=["rows", "rows and labels"])
def test_a_split(options, labels):
    split = load("digits", **options).train
    compact = batches_are_equal(split.with_labels() if labels else split)
    assert compact.columns[0].kept.nbytes * 4 == split.x.nbytes


def test_a_dynamic_split_is_drawn_anew_with_the_same_noise():
    split = load("digits", binarization="dynamic").train
    compact, rows = Compact.of(split), torch.arange(50)
    ours, theirs = generator(), generator()
    for _ in range(3):
        assert equal(compact.batch(rows, ours)[0], split.batch(rows, theirs)[0])
    assert not torch.equal(compact.batch(rows, ours)[0], compact.batch(rows, ours)[0])


def test_without_a_generator_torchs_own_is_used():
    split = load("digits", binarization="dynamic").train
    with torch.random.fork_rng():
        torch.manual_seed(0)
        (ours,) = Compact.of(split).batch(slice(0, 9))
        torch.manual_seed(0)
        assert torch.equal(ours, split.batch(slice(0, 9))[0])


def test_evaluation_rows_stay():
    split = load("digits", binarization="dynamic").test
    assert torch.equal(Compact.of(split).batch(slice(None), generator())[0], split.x)


FORMS = {"bytes": BYTES.float(), "quotients": BYTES.float() / 255, "bits": ONES, "reals": BYTES.float() + 0.5}


@pytest.mark.parametrize("x", FORMS.values(), ids=FORMS)
def test_a_batch_can_be_traced(x, monkeypatch):
    monkeypatch.setattr(module, "BITS_FROM", 0)
    compact = Compact.of(as_split(x))
    traced = make_fx(lambda rows: compact.batch(rows))(torch.tensor([0, 1]))
    rows = torch.tensor([5, 39])
    assert equal(traced(rows)[0], x[rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("x", FORMS.values(), ids=FORMS)
def test_on_cuda(x, monkeypatch):
    monkeypatch.setattr(module, "BITS_FROM", 0)
    for compact in (Compact.of(as_split(x)).to("cuda"), Compact.of(as_split(x.cuda()))):
        assert compact.nbytes <= x.nbytes
        assert equal(compact.batch(torch.tensor([5, 39], device="cuda"))[0].cpu(), x[[5, 39]])


# ------------------------------------------------------------------------- rows that stand for a tensor


def stored():
    return Stored(pack(ONES), Bits.of(ONES.shape[1:], torch.float32))


def test_stored_rows_look_like_their_tensor():
    rows = stored()
    assert (rows.shape, rows.dtype, rows.device, len(rows)) == (ONES.shape, ONES.dtype, ONES.device, len(ONES))
    assert equal(rows[2:5], ONES[2:5])


REFUSED = {
    "a function": (lambda rows: torch.relu(rows), "expected a tensor for relu"),
    "a method": (lambda rows: rows.mean(), r"expected a tensor for \.mean"),
    "a layer": (lambda rows: torch.nn.Linear(3, 2)(rows), "expected a tensor for linear"),
}


@pytest.mark.parametrize(("use", "message"), REFUSED.values(), ids=REFUSED)
def test_stored_rows_are_no_tensor(use, message):
    with pytest.raises(InputError, match=message + r", got rows that are kept in a file or as bits.*split\[:1000\]"):
        use(stored())


def test_a_misspelt_name_is_an_attribute_error():
    assert not hasattr(stored(), "shap")
