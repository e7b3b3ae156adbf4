"""Kinds of columns: what is declared, what is plain, and how they read."""

import json

import numpy as np
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data.split import as_split
from pyrovae.data.tables import kinds
from pyrovae.data.tables.kinds import Columns, Kind
from pyrovae.data.tables.reading import Raw, Table


def table(**columns):
    raws = tuple(
        Raw(name, np.array(cells, object if any(isinstance(c, str) for c in cells) else float))
        for name, cells in columns.items()
    )
    return Table("t.csv", raws, np.arange(len(raws[0].cells)) + 2)


PLAIN = {
    "text": (["red", "blue", "green", None], "categorical"),
    "two words": (["no", "yes", None], "binary"),
    "numbers as text": (["1", "2", "10"], "categorical"),
    "zeros and ones": ([0, 1, 1, np.nan], "binary"),
    "one and two": ([1, 2, 1], "binary"),
    "whole numbers": ([0, 3, 7, np.nan], "count"),
    "whole numbers below 0": ([-1, 3, 7], "real"),
    "fractions": ([0.1, 0.2, 0.9], "real"),
    "infinite": ([1, np.inf, 2], "real"),
}


@pytest.mark.parametrize(("cells", "kind"), PLAIN.values(), ids=PLAIN)
def test_what_is_plain_is_found(cells, kind):
    found = table(a=cells)
    one = kinds.kind_of(found, found.columns[0], None)
    assert (one.kind, one.is_found) == (kind, True)


def test_ordered_categories_of_a_frame_are_ordinal():
    raw = Raw("size", np.array(["big", "small"], object), ("small", "big"))
    found = Table("frame", (raw,), np.arange(2))
    assert kinds.kind_of(found, raw, None).labels == ("small", "big")
    assert kinds.kind_of(found, raw, "ordinal").labels == ("small", "big")
    assert kinds.kind_of(found, raw, ["big", "small"]) == Kind("size", "ordinal", ("big", "small"))
    assert kinds.kind_of(found, raw, "categorical") == Kind("size", "categorical")


def test_text_among_numbers_and_names_of_rows_are_no_kind():
    found = table(a=["1", "x", None, "2"])
    with pytest.raises(InputError, match=r't\.csv: expected numbers, or text alone, in column "a", got "x" in row 3'):
        kinds.kind_of(found, found.columns[0], None)
    found = table(name=[f"person {i}" for i in range(30)])
    with pytest.raises(InputError, match='"name" of text holds 30 different values in 30 rows; leave it out'):
        kinds.kind_of(found, found.columns[0], None)
    assert kinds.kind_of(found, found.columns[0], "categorical").kind == "categorical"


def test_numbers_of_rows_and_times_are_no_counts():
    cells = np.random.RandomState(0).permutation(200).astype(float)
    with pytest.raises(InputError, match=r"another whole number in each row: are they numbers of the rows\?"):
        kinds.kind_of(Table("t", (), np.arange(200)), Raw("id", cells), None)
    assert kinds.kind_of(Table("t", (), np.arange(200)), Raw("id", cells), "count").kind == "count"
    assert kinds.kind_of(Table("t", (), np.arange(200)), Raw("n", cells // 2), None).kind == "count"
    with pytest.raises(InputError, match='column "when" holds times; split the rows by it'):
        kinds.kind_of(Table("t", (), np.arange(200)), Raw("when", cells, is_time=True), None)


def test_names_come_before_patterns_and_patterns_in_their_order():
    found = table(A1=[1], A2=[2], B1=[3], age=[4])
    said = kinds.declared_of(found, {"[AB][12]": "ordinal", "B*": "count", "A2": "real"})
    assert said == {"A1": "ordinal", "A2": "real", "B1": "ordinal"}
    assert kinds.declared_of(found, {"*": "real"}) == dict.fromkeys(found.names, "real")


BAD = {
    "kind": ({"age": "ordnal"}, 'column "age": unknown kind \'ordnal\'; did you mean "ordinal"'),
    "no kind": ({"age": "x"}, "unknown kind 'x'; there are real, positive, .*ignored"),
    "name": ({"agee": "real"}, 't.csv: expected the column "agee".*not there; did you mean "age"'),
    "far name": ({"zzz": "real"}, 'expected the column "zzz" .*; there are A1, A2, age'),
    "pattern": ({"Q*": "real"}, 't.csv: no column fits "Q\\*"; there are A1, A2, age'),
}


@pytest.mark.parametrize(("declared", "message"), BAD.values(), ids=BAD)
def test_bad_declarations(declared, message):
    with pytest.raises(InputError, match=message):
        kinds.declared_of(table(A1=[1], A2=[2], age=[4]), declared)


COLUMNS = Columns(
    (
        Kind("alcohol", "real", shift=10.0, scale=2.0),
        Kind("sugar", "positive", scale=3.0),
        Kind("visits", "count", is_found=True),
        Kind("colour", "categorical", ("blue", "red")),
        Kind("size", "ordinal", ("small", "large")),
    )
)


def test_rows_are_decoded_to_units_and_labels():
    rows = torch.tensor([[0.5, 1.0, 3.0, 1.0, 0.0], [torch.nan] * 5])
    assert COLUMNS.decoded(rows) == {
        "alcohol": [11.0, None],
        "sugar": [3.0, None],
        "visits": [3.0, None],
        "colour": ["red", None],
        "size": ["small", None],
    }


def test_rows_of_a_split_are_decoded_too():
    rows = torch.tensor([[0.5, 1.0, 3.0, 1.0, 0.0], [0.0, 2.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0]])
    some = as_split(rows)[torch.tensor([2, 0])]
    assert COLUMNS.decoded(some) == COLUMNS.decoded(rows[[2, 0]])


def test_columns_tell_how_many_cells_are_empty():
    columns = Columns((Kind("age", "real", num_missing=1234), Kind("long name", "count")))
    lines = [line.split() for line in str(columns).splitlines()]
    assert lines == [
        ["column", "kind", "missing", "values"],
        ["age", "real", "1,234", "as", "found"],
        ["long", "name", "count", "0", "as", "found"],
    ]


def test_columns_read_as_a_table():
    text = str(COLUMNS).splitlines()
    assert [line.split()[:2] for line in text[1:]] == [[one.name, one.kind] for one in COLUMNS]
    assert text[1].endswith("mean 10, sd 2") and text[2].endswith("divided by 3")
    assert text[3].endswith("as found (found)") and text[4].endswith("blue, red") and text[5].endswith("small < large")
    assert COLUMNS.summary() == "1 real, 1 positive, 1 count, 1 categorical, 1 ordinal"


def test_columns_are_found_by_name_and_place():
    assert COLUMNS["sugar"] is COLUMNS[1] and len(COLUMNS) == 5
    with pytest.raises(InputError, match='no column "sugr"; did you mean "sugar"'):
        COLUMNS["sugr"]
    assert json.loads(json.dumps(COLUMNS.to_dict()))["size"]["labels"] == ["small", "large"]
