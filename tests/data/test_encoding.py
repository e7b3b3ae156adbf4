"""Columns: rows that come as bytes are kept as bytes, and every batch equals its float rows in every bit."""

import math

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.base.errors import InputError
from pyrovae.data import as_split, load
from pyrovae.data.encoding import Column, require_room
from pyrovae.data.memmap import Mapped, open_npy

BYTES = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (40, 3, 3)).astype(np.uint8))


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


def serves(column, x):
    """Every way to some of the rows gives these, in every bit."""
    assert (column.shape, column.dtype, column.device, len(column)) == (x.shape, x.dtype, x.device, len(x))
    for rows in ROWS.values():
        assert equal(column[rows], x[rows]), rows
    assert equal(column.tensor(), x)


# ---------------------------------------------------------------------------------------- what is smaller

SMALLER = {  # rows as served, how they are kept, the part of their bytes that remains
    "counts": (BYTES.float(), Column(BYTES, torch.float32), 4),
    "counts in float64": (BYTES.double(), Column(BYTES, torch.float64), 8),
    "counts in int64": (BYTES.long(), Column(BYTES, torch.int64), 8),
    "counts in int16": (BYTES.short(), Column(BYTES, torch.int16), 2),
    "grey": (BYTES.float() / 255, Column(BYTES, torch.float32, 255.0), 4),
    "grey in float64": (BYTES.double() / 255, Column(BYTES, torch.float64, 255.0), 8),
    "zeros and ones": ((BYTES > 128).float(), Column((BYTES > 128).to(torch.uint8), torch.float32), 4),
    "one value each": (BYTES[:, 0, 0].float(), Column(BYTES[:, 0, 0], torch.float32), 4),
    "transposed": (BYTES.float().mT, Column(BYTES.mT, torch.float32), 4),
}


@pytest.mark.parametrize(("x", "column", "factor"), SMALLER.values(), ids=SMALLER)
def test_smaller_and_the_same(x, column, factor):
    serves(column, x)
    assert column.kept.nbytes * factor == x.nbytes


@pytest.mark.parametrize("divisor", [1, 2, 3.7, 16, 254.9, 255, 1e-3, 1e6])
@pytest.mark.parametrize("mmap", [True, False])
def test_rows_of_a_divisor(divisor, mmap, rows_file):
    path = rows_file(BYTES.numpy())
    split, found = load(path, divisor=divisor, mmap=mmap).train, load(path, mmap=False).train.x
    for rows in (torch.tensor([3, 1]), slice(2, 9)):
        assert equal(split.batch(rows)[0], found[rows] / divisor)
    assert split.columns[0].kept.dtype == torch.uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_quotient_of_whole_numbers(dtype):
    k = torch.arange(256).to(torch.uint8)
    for divisor in range(1, 256):
        assert equal(Column(k, dtype, float(divisor)).tensor(), k.to(dtype) / divisor), divisor


AS_THEY_ARE = {
    "whole numbers": BYTES.float(),
    "reals": BYTES.float() / 255 + 1e-3,
    "minus zero": torch.where(BYTES == 0, -0.0, BYTES.float()),
    "missing": torch.where(BYTES == 0, math.nan, BYTES.float()),
    "infinite": torch.where(BYTES == 0, math.inf, BYTES.float()),
    "complex": BYTES.to(torch.complex64),
    "bool": BYTES > 128,
    "bfloat16": (BYTES.float() / 255 + 1).to(torch.bfloat16),
    "uint16": BYTES.to(torch.uint16),
    "transposed": BYTES.float().mT,
}


@pytest.mark.parametrize("x", AS_THEY_ARE.values(), ids=AS_THEY_ARE)
def test_tensors_are_left_as_they_are(x):
    assert (BYTES == 0).any()
    split = as_split(x)
    serves(split.columns[0], x)
    assert split.columns[0].kept is split.x is x


def test_rows_with_a_gradient_keep_it():
    x = BYTES.float().requires_grad_()
    assert as_split(x).batch(torch.tensor([1]))[0].requires_grad


# ------------------------------------------------------------------------------------------ whole splits


@pytest.mark.parametrize("options", [{"divisor": 16}, {}, {"binarization": "dynamic"}, {"binarization": "static"}])
@pytest.mark.parametrize("labels", [False, True], ids=["rows", "rows and labels"])
def test_a_split_holds_a_byte_a_value(options, labels):
    split = load("digits", **options).train
    split = split.with_labels() if labels else split
    assert split.columns[0].kept.nbytes * 4 == split.x.nbytes
    assert split.protocol.binarization == "static" or split.columns[0].kept is split.source or not options
    for column, tensor in zip(split.columns, split.tensors, strict=True):
        serves(column, tensor)


def test_a_dynamic_split_is_drawn_anew_with_the_same_noise():
    split = load("digits", binarization="dynamic").train
    rows, ours, theirs = torch.arange(50), generator(), generator()
    for _ in range(3):
        expected = (torch.rand((50, 8, 8), generator=theirs) < split.x[rows]).float()
        assert equal(split.batch(rows, ours)[0], expected)
    assert not torch.equal(split.batch(rows, ours)[0], split.batch(rows, ours)[0])


FORMS = {
    "bytes": Column(BYTES, torch.float32),
    "quotients": Column(BYTES, torch.float32, 255.0),
    "reals": Column(BYTES.float() + 0.5, torch.float32),
}


@pytest.mark.parametrize("column", FORMS.values(), ids=FORMS)
def test_a_batch_can_be_traced(column):
    traced = make_fx(lambda rows: column[rows])(torch.tensor([0, 1]))
    rows = torch.tensor([5, 39])
    assert equal(traced(rows), column[rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("column", FORMS.values(), ids=FORMS)
def test_on_cuda(column):
    moved, rows = column.to("cuda"), torch.tensor([5, 39])
    assert moved.kept.is_cuda and moved.kept.nbytes == column.kept.nbytes
    for numbers in (rows, rows.cuda()):
        assert equal(moved[numbers].cpu(), column[rows])


# ---------------------------------------------------------------------------------------- rows of a file


def test_rows_of_a_file_are_served_but_never_as_a_whole(rows_file):
    array = open_npy(rows_file(BYTES.numpy()))
    column = Column(Mapped(array, torch.arange(40)), torch.float32, 255.0)
    assert column.mapped and not SMALLER["grey"][1].mapped
    assert (column.shape, column.dtype, len(column)) == (BYTES.shape, torch.float32, 40)
    assert equal(column[2:5], BYTES[2:5].float() / 255)
    with pytest.raises(InputError, match=r"rows\.npy: expected a tensor, got 40 rows that stay.*split\[:1000\]"):
        column.tensor()


def test_binarized_rows_that_memory_does_not_hold(rows_file, monkeypatch):
    monkeypatch.setattr("pyrovae.data.encoding.machine_memory", lambda: 4 * 40 * 9)
    in_file = Column(Mapped(open_npy(rows_file(BYTES.numpy())), torch.arange(40)), torch.float32, 255.0)
    require_room("rows.npy", in_file)  # just so
    monkeypatch.setattr("pyrovae.data.encoding.machine_memory", lambda: 4 * 40 * 9 - 4)
    with pytest.raises(
        InputError, match=r"rows.npy: expected binarized rows of a quarter of the memory at most .* the file"
    ):
        require_room("rows.npy", in_file)
    require_room("rows", FORMS["quotients"])  # already in memory


def test_a_column_says_what_it_is_in_a_line(rows_file):
    assert repr(SMALLER["grey"][1]) == "float32 (3, 3), kept as uint8"
    in_file = Column(Mapped(open_npy(rows_file(BYTES.numpy())), torch.arange(40)), torch.float32)
    assert repr(in_file) == "float32 (3, 3), kept as uint8 in a file"
