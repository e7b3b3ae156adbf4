"""Protocols: what they say in one line, their hashes and Jacobians, and the same from any blocks of rows."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data import Protocol, as_split, load
from pyrovae.data.protocol import in_blocks, num_missing


def splits(dataset):
    return {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}


def test_a_protocol_survives_json():
    for options in ({"divisor": 16}, {"dequantize": True}):
        protocol = load("digits", **options).test.protocol
        assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    assert "dequantized" not in load("digits").test.protocol.to_dict()


def test_an_incomplete_protocol():
    with pytest.raises(InputError, match=r"expected a protocol with \['dataset', .*got \['split'\]"):
        Protocol.from_dict({"split": "test"})


LINES = {
    "as found": ({}, "test", "digits test: 300 data, values as found, sha256 "),
    "divided": ({"divisor": 16}, "test", "digits test: 300 data, values divided by 16, sha256 "),
    "dynamic train": (
        {"binarization": "dynamic"},
        "train",
        "digits train: 1197 data, binarized anew at each use, seed 0, sha256 ",
    ),
    "dynamic test": (
        {"binarization": "dynamic"},
        "test",
        "digits test: 300 data, binarized once, seed 0, sha256 ",
    ),
    "static": (
        {"binarization": "static"},
        "valid",
        "digits valid: 300 data, binarized once, seed 0, sha256 ",
    ),
    "dequantized train": (
        {"dequantize": True},
        "train",
        "digits train: 1197 data, dequantized anew at each use, seed 0, sha256 ",
    ),
    "dequantized test": (
        {"dequantize": True, "divisor": 17},
        "test",
        "digits test: 300 data, dequantized once, divided by 17, seed 0, sha256 ",
    ),
    "threshold": ({"binarization": "threshold"}, "test", "digits test: 300 data, binarized at 0.5, sha256 "),
}


@pytest.mark.parametrize(("options", "part", "line"), LINES.values(), ids=LINES)
def test_a_protocol_reads_as_one_line(options, part, line):
    protocol = splits(load("digits", **options))[part].protocol
    assert str(protocol) == line + protocol.sha256[:8]


def test_the_hash_is_of_dtype_shape_and_bytes():
    x = torch.arange(6.0).reshape(2, 3)
    expected = hashlib.sha256(b"torch.float32 (2, 3)\n" + x.numpy().tobytes()).hexdigest()
    assert as_split(x).protocol.sha256 == expected
    others = [x.double(), x.reshape(3, 2), x + 1, (x, x)]
    assert len({expected, *(as_split(other).protocol.sha256 for other in others)}) == 5
    assert as_split(x.T.contiguous().T).protocol.sha256 == expected


def test_jacobian_takes_a_density_back_to_the_source(rows_file):
    source = np.random.RandomState(0).randn(30, 2)
    scaled = load(rows_file(source), divisor=5.0).train
    found = load(rows_file(source)).train
    wide, narrow = torch.distributions.Normal(0.0, 5.0), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(
        wide.log_prob(found.x).sum(-1), narrow.log_prob(scaled.x).sum(-1) + scaled.protocol.log_jacobian
    )


def test_the_jacobian_counts_observed_values(rows_file):
    source = np.random.RandomState(0).randn(30, 2)
    source[:, 1] = np.nan
    assert load(rows_file(source), divisor=5.0).train.protocol.log_jacobian == pytest.approx(-math.log(5.0))


# ------------------------------------------------------------------------------------------- in blocks

BLOCKS = {
    "as found": {},
    "divided": {"divisor": 16},
    "dynamic": {"binarization": "dynamic"},
    "static": {"binarization": "static", "seed": 4},
    "threshold": {"binarization": "threshold"},
    "dequantized": {"dequantize": True, "divisor": 17, "seed": 4},
}


@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
def test_blocks_change_nothing(options, monkeypatch):
    whole = load("digits", **options)
    monkeypatch.setattr("pyrovae.data.protocol.VALUES_AT_ONCE", 1000)
    assert len(list(in_blocks(whole.train.x))) > 70
    blocks = load("digits", **options)
    assert blocks.range == whole.range
    for ours, theirs in zip(splits(blocks).values(), splits(whole).values(), strict=True):
        assert ours.protocol == theirs.protocol
        assert torch.equal(ours.x, theirs.x)
        assert as_split(ours.x).protocol.sha256 == theirs.protocol.sha256


@pytest.mark.parametrize("shape", [(10,), (10, 3), (10, 2000), (10, 0)], ids=str)
def test_blocks_cover_all_rows(shape, monkeypatch):
    monkeypatch.setattr("pyrovae.data.protocol.VALUES_AT_ONCE", 7)
    x = torch.arange(math.prod(shape)).reshape(shape)
    assert torch.equal(torch.cat([x[rows] for rows in in_blocks(x)]), x)


def test_missing_values_are_counted():
    x = torch.tensor([1.0, math.nan, -math.inf, math.inf, 3e38, 3e38, math.nan])
    assert num_missing(x) == 2
    assert num_missing(x[2:6]) == 0
