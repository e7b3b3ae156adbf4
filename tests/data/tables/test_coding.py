"""Values as numbers: labels and their places, and what a kind does not allow."""

import numpy as np
import pytest

from pyrovae.base.errors import InputError
from pyrovae.data.tables.coding import coded, with_labels
from pyrovae.data.tables.kinds import Kind
from pyrovae.data.tables.reading import Raw, Table


def column(cells, levels=()):
    text = any(isinstance(cell, str) for cell in cells)
    raw = Raw("a", np.array(cells, object if text else float), levels)
    return Table("t.csv", (raw,), np.arange(len(cells)) + 2), raw


def through(cells, kind):
    table, raw = column(cells)
    labelled = with_labels(table, raw, kind)
    return labelled.labels, coded(table, raw, labelled).tolist()


nan = np.nan
CODED = {
    "classes": (["b", None, "a", "b"], Kind("a", "categorical"), ("a", "b"), [1, nan, 0, 1]),
    "numbers as classes": ([10, 9, 10], Kind("a", "categorical"), ("9", "10"), [1, 0, 1]),
    "numbers as text": (["10", "9", "x"], Kind("a", "categorical"), ("9", "10", "x"), [1, 0, 2]),
    "two": (["no", "yes", "no"], Kind("a", "binary"), ("no", "yes"), [0, 1, 0]),
    "levels": ([3, 5, 4, nan], Kind("a", "ordinal"), ("3", "4", "5"), [0, 2, 1, nan]),
    "half levels": ([0.5, 1.5, 1.0], Kind("a", "ordinal"), ("0.5", "1", "1.5"), [0, 2, 1]),
    "named levels": (["s", "l", "m"], Kind("a", "ordinal", ("s", "m", "l")), ("s", "m", "l"), [0, 2, 1]),
    "real": ([-1.5, nan, 2], Kind("a", "real"), (), [-1.5, nan, 2]),
    "positive": ([0.5, nan, 2], Kind("a", "positive"), (), [0.5, nan, 2]),
    "count": ([0, nan, 7], Kind("a", "count"), (), [0, nan, 7]),
    "proportion": ([0.5, nan, 0.9], Kind("a", "proportion"), (), [0.5, nan, 0.9]),
}


@pytest.mark.parametrize(("cells", "kind", "labels", "values"), CODED.values(), ids=CODED)
def test_values_become_numbers(cells, kind, labels, values):
    found = through(cells, kind)
    assert found[0] == labels
    np.testing.assert_equal(found[1], values)


BAD = {
    "constant": ([2, 2, nan], Kind("a", "real"), 'column "a" is constant: it holds 2 alone; leave it out'),
    "constant text": (["x", "x"], Kind("a", "categorical"), "constant: it holds x alone"),
    "nothing": ([nan, nan], Kind("a", "real"), '"a" is constant: it has no values'),
    "gap": ([1, 2, 5], Kind("a", "ordinal"), 'ordinal column "a" has a gap: level 3, 4 never occurs'),
    "named gap": (["s", "l"], Kind("a", "ordinal", ("s", "m", "l")), "has a gap: level m never occurs"),
    "order": (["s", "l"], Kind("a", "ordinal"), r"order of its levels is not known \(l, s\); name them, the lowest"),
    "three": ([1, 2, 3], Kind("a", "binary"), r"declared binary, but holds 3 values \(1, 2, 3\)"),
    "text": (
        ["1", "x", None, "y"],
        Kind("a", "real"),
        '"a" was declared real, but is text: "x" in 2 rows, the first is',
    ),
    "infinite": ([1, np.inf, 2], Kind("a", "real"), 'column "a" is real, a number, but holds inf in row 3'),
    "zero": ([1, 0, 2], Kind("a", "positive"), "is positive, a number above 0, but holds 0 in row 3"),
    "half": ([1, 0.5, 2.5], Kind("a", "count"), "is count, .* but holds 0.5 in 2 rows, the first is row 3"),
    "one": ([0.5, 1, 0.1], Kind("a", "proportion"), "is proportion, .* both excluded, but holds 1 in row 3"),
    "label": (
        ["s", "x", "l"],
        Kind("a", "ordinal", ("s", "l")),
        'unknown label "x" of the ordinal column "a" in row 3',
    ),
}


@pytest.mark.parametrize(("cells", "kind", "message"), BAD.values(), ids=BAD)
def test_what_a_kind_does_not_allow(cells, kind, message):
    with pytest.raises(InputError, match=f"t.csv: .*{message}"):
        through(cells, kind)


def test_a_new_label_offers_the_nearest():
    table, raw = column(["small", "larg"])
    with pytest.raises(InputError, match=r'unknown label "larg" .* in row 3; did you mean "large"'):
        coded(table, raw, Kind("a", "categorical", ("large", "small")))
