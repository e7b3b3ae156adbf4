"""Tables of numbers: aligned text with a dash for what is undefined, and HTML without any markup of the cells."""

import math

import torch

from pyrovae.base.records import mean_and_se
from pyrovae.base.tables import TextTable, quantities


def test_columns_are_aligned():
    table = TextTable(
        [("name", "<6", ""), ("x", ">8", ".2f")], [("a", 1.25), "all of it", ("b", math.nan, "  why"), ("c", None)]
    )
    assert str(table).splitlines() == [
        "name         x",
        "a         1.25",
        "all of it",
        "b            -  why",
        "c            -",
    ]


def test_quantities_have_their_errors():
    cells = mean_and_se(torch.tensor([1.0, 3.0]), torch.tensor([3.0, 4.0]))
    assert cells == {"mean": 2.0, "data_se": 1.0, "mc_se": 2.5}
    assert mean_and_se(torch.tensor([1.0])) == {"mean": 1.0, "data_se": None}
    lines = str(quantities(6, [("one", cells, "   !"), ("two", mean_and_se(torch.tensor([-1e-9])), "")])).splitlines()
    assert lines[0].split() == ["mean", "data", "SE", "MC", "SE"]
    assert lines[1].split() == ["one", "2.000", "1.000", "2.5000", "!"]
    assert lines[2].split() == ["two", "0.000", "-"]
