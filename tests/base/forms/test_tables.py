"""Tables of numbers: aligned text with a dash for what is undefined, and HTML without any markup of the cells."""

import math

import pytest
import torch

from pyrovae.base.forms.tables import TextTable, quantities, text
from pyrovae.base.records import mean_and_se


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


@pytest.mark.parametrize(
    ("value", "shown"), [(2.5, "2.50"), (None, "-"), (math.nan, "-"), (-math.inf, "-inf"), (0, "0.00"), ("<b>", "<b>")]
)
def test_a_cell_as_text(value, shown):
    assert text(value, ".2f") == shown


def test_html_holds_every_cell_and_no_markup_of_its_own():
    table = TextTable([("a & b", "<6", ""), ("x", ">8", ".1f")], [("<i>one</i>", 2.0), ('say "<br>"', None, "  > 1")])
    assert table.to_html() == (
        "<table><tr><td>a &amp; b</td><td>x</td></tr>"
        "<tr><td>&lt;i&gt;one&lt;/i&gt;</td><td>2.0</td></tr>"
        "<tr><td>say &quot;&lt;br&gt;&quot;</td><td>-</td><td>&gt; 1</td></tr></table>"
    )
