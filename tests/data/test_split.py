"""Splits: rows, labels, devices, and what may be given as data."""

import numpy as np
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data import Split, as_split, load

# ------------------------------------------------------------------------------------------- splits

INDICES = {
    "slice": slice(2, 9, 3),
    "tensor": torch.tensor([2, 5, 8]),
    "list": [2, 5, 8],
    "negative": [2, 5, -292],
}


@pytest.mark.parametrize("options", [{}, {"divisor": 16}, {"binarization": "static"}], ids=str)
@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_some_rows_of_a_split(index, options):
    test = load("digits", **options).test
    some, counts = test[index], load("digits").test[index]
    assert torch.equal(some.x, test.x[[2, 5, 8]])
    assert torch.equal(some.labels, test.labels[[2, 5, 8]])
    assert (len(some), some.protocol.num_data) == (3, 3)
    assert some.protocol.sha256 == as_split(some.x).protocol.sha256
    assert some.protocol.source_sha256 == counts.protocol.sha256
    assert some.protocol.log_jacobian == test.protocol.log_jacobian


@pytest.mark.parametrize("index", [3, [], [True, False], [0.5], [[1]], None, "all"], ids=str)
def test_other_indices(index):
    with pytest.raises(InputError, match=r"expected a slice, row numbers, or a boolean for each of \d+ rows"):
        load("digits").test[index]


@pytest.mark.parametrize("index", [[300], [-301]])
def test_row_numbers_out_of_range(index):
    with pytest.raises(InputError, match="expected row numbers below 300, got"):
        load("digits").test[index]


def test_no_rows():
    with pytest.raises(InputError, match="one first dimension N > 0"):
        load("digits").test[5:5]


def test_with_labels():
    test = load("digits").test
    pair = test.with_labels()
    assert [tuple(tensor.shape) for tensor in pair.tensors] == [(300, 8, 8), (300,)]
    assert torch.equal(pair.tensors[1], test.labels)
    assert pair.shape == test.shape
    assert pair.protocol.sha256 != test.protocol.sha256
    assert pair.protocol.sha256 == as_split(pair.tensors).protocol.sha256
    assert pair.with_labels().protocol == pair.protocol


def test_with_labels_where_there_are_none():
    with pytest.raises(InputError, match=r"user's tensor: expected labels, but this set has none"):
        as_split(torch.zeros(3, 2)).with_labels()


def test_to_a_device():
    test = load("digits", divisor=16).test
    moved = test.to("meta")
    assert {moved.x.device.type, moved.labels.device.type} == {"meta"}
    assert moved.protocol == test.protocol
    back = test.to(torch.device("cpu"))[:10]
    assert back.protocol == test[:10].protocol


def test_rows_with_missing_values():
    x = torch.zeros(9, 2, 2)
    x[4, 1, 0] = x[7, 0, 1] = x[7, 1, 1] = torch.nan
    assert as_split(x).missing().tolist() == [4, 7]
    assert as_split(x[:, 1, 0]).missing().tolist() == [4]
    assert as_split(x[:3]).missing().tolist() == []


def test_a_split_in_a_line():
    digits = load("digits", divisor=16)
    line = f"Split({digits.test.protocol}; float32 (8, 8), kept as uint8)"
    assert repr(digits.test) == line
    assert repr(digits.test.with_labels()).endswith("; float32 (8, 8), kept as uint8; int64 (), kept as int64)")
    assert len(repr(as_split(torch.zeros(1000, 1000)))) < 150


def test_a_split_may_be_made_of_tensors():
    x, protocol = torch.rand(3, 2), as_split(torch.zeros(3, 2)).protocol
    split = Split((x,), protocol)
    assert (split.x is x, split.labels, split.source, split.mapped) == (True, None, None, False)
    assert split.device == x.device


def test_records_are_frozen():
    test = load("digits").test
    for record, name in ((test, "labels"), (test.protocol, "seed"), (load("digits"), "name")):
        with pytest.raises(AttributeError):
            setattr(record, name, None)


def test_a_split_of_ones_own_is_checked():
    protocol = as_split(torch.zeros(3, 2)).protocol
    with pytest.raises(InputError, match=r"got shapes \[\(3, 2\), \(4,\)\]"):
        Split((torch.zeros(3, 2),), protocol, torch.zeros(4))


# ----------------------------------------------------------------------------------------- as_split

GIVEN = {
    "tensor": torch.zeros(3, 2),
    "float64": torch.zeros(3, 2, dtype=torch.float64),
    "bool": torch.zeros(3, dtype=torch.bool),
    "bfloat16": torch.zeros(3, 2, dtype=torch.bfloat16),
    "with gradient": torch.zeros(3, 2, requires_grad=True),
}


@pytest.mark.parametrize("tensor", GIVEN.values(), ids=GIVEN)
def test_as_split_of_a_tensor(tensor):
    split = as_split(tensor)
    assert split.tensors[0] is tensor
    assert len(split) == 3
    expected = {
        "dataset": "user's tensor",
        "split": "all",
        "num_data": 3,
        "binarization": "none",
        "divisor": 1.0,
    }
    expected |= {"log_jacobian": 0.0, "seed": None, "sha256": split.protocol.source_sha256}
    assert expected.items() <= split.protocol.to_dict().items()


def test_as_split_of_a_split():
    split = load("digits").test
    assert as_split(split) is split


@pytest.mark.parametrize("kind", [tuple, list])
def test_as_split_of_several(kind):
    given = kind([torch.zeros(3, 2, dtype=torch.float64), np.arange(3)])
    split = as_split(given)
    assert [tensor.dtype for tensor in split.tensors] == [torch.float64, torch.int64]
    assert [tuple(tensor.shape) for tensor in split.batch(torch.tensor([0, 2]))] == [(2, 2), (2,)]
    assert [tuple(tensor.shape) for tensor in split[1:].tensors] == [(2, 2), (2,)]


def test_as_split_of_an_array_that_cannot_be_written():
    array = np.zeros((3, 2))
    array.flags.writeable = False
    assert as_split(array).x.dtype == torch.float64


UNUSABLE = {
    "no rows": (torch.zeros(0, 2), r"first dimension N > 0 \(the datum\), got shapes \[\(0, 2\)\]"),
    "scalar": (torch.tensor(1.0), r"got shapes \[\(\)\]"),
    "none": ((), r"got shapes \[\]"),
    "two sizes": ((torch.zeros(3, 2), torch.zeros(4)), r"got shapes \[\(3, 2\), \(4,\)\]; give each one row"),
    "numbers": ([1.0, 2.0], "expected a Split, a tensor .* got a float; make it a tensor"),
    "a number beside": ((torch.zeros(3), 3), r"got an int; .* or bind what all data share to both programs"),
    "text": ("digits", "expected a Split, .* got a str"),
    "array of objects": (np.array([None]), "got an array of object"),
}


@pytest.mark.parametrize(("data", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_data(data, message):
    with pytest.raises(InputError, match=message):
        as_split(data)


def test_a_whole_data_set_is_no_split():
    with pytest.raises(InputError, match=r"got the whole set digits; give its .train, .valid or .test"):
        as_split(load("digits"))


@pytest.mark.parametrize(
    "as_given", [lambda mask: mask, lambda mask: mask.numpy(), list], ids=["tensor", "array", "list"]
)
def test_rows_are_taken_by_a_boolean_for_each(as_given):
    split = load("digits").test
    threes = split.labels == 3
    taken = split[as_given(threes)]
    assert len(taken) == int(threes.sum()) and (taken.labels == 3).all() and torch.equal(taken.x, split.x[threes])
    for wrong in (threes[:-1], torch.zeros(300, dtype=torch.bool)):
        with pytest.raises(InputError, match=r"boolean for each of 300 rows, some of them true, got .* of shape \("):
            split[wrong]


def test_some_labels_are_left_as_many_of_each_class():
    train = load("digits").train
    some = train.with_labels(103, seed=1)
    x, y = some.tensors
    known = y >= 0
    assert (
        torch.equal(x, train.x)
        and torch.equal(y[known], train.labels[known])
        and torch.equal(some.labels, train.labels)
    )
    assert sorted(torch.bincount(y[known]).tolist()) == [10] * 7 + [11] * 3
    assert torch.equal(y, train.with_labels(103, seed=1).tensors[1])
    assert not torch.equal(y, train.with_labels(103, seed=2).tensors[1])
    assert (train.with_labels(0).tensors[1] == -1).all()


@pytest.mark.parametrize("num_labels", [-1, 5000])
def test_more_labels_than_there_are_cannot_be_left(num_labels):
    with pytest.raises(InputError, match="as many of each of 10 classes, got"):
        load("digits").train.with_labels(num_labels)
