"""Bars that add up: where each starts and ends, what is written beside it, where the axis is cut."""

import pytest
from matplotlib.colors import to_hex

from pyrovae.reports.figures.waterfall import Group, Part, waterfall

DIGITS = {"mean": 1, "mc_se": 3}


def group(name="one", offset=0.0):
    parts = [
        Part("a sum", "first", 0.0, 5.0 + offset, "#111111"),
        Part("+ a part", "part", 5.0 + offset, 7.0 + offset, "#222222"),
        Part("= the whole", "whole", 7.0 + offset, 7.0 + offset, "#333333"),
        Part("besides", "more", 5.0 + offset, 4.0 + offset, "#444444", thin=True),
    ]
    account = {part.quantity: {"mean": part.end - part.start, "mc_se": None} for part in parts}
    return Group(name, "of twelve data", parts, account)


def test_every_part_is_a_bar_under_its_own_name():
    _, bars, _ = waterfall([group("one"), group("two")], DIGITS, "nats").axes
    spans = {bar.get_gid(): (bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars.patches}
    expected = {"first": (0, 5), "part": (5, 7), "whole": (7, 7), "more": (5, 4)}
    assert spans == {f"{name}/{part}": span for name in ("one", "two") for part, span in expected.items()}
    heights = {bar.get_gid(): bar.get_height() for bar in bars.patches}
    assert heights["one/more"] < heights["one/part"]
    assert to_hex(bars.patches[1].get_facecolor()) == "#222222"


def test_rows_go_downwards_and_stand_side_by_side():
    labels, bars, numbers = waterfall([group("one"), group("two")], DIGITS, "nats").axes
    y = [bar.get_y() + bar.get_height() / 2 for bar in bars.patches]
    assert y == pytest.approx([1, 2, 3, 4, 6.5, 7.5, 8.5, 9.5])
    rows = {text.get_position()[1]: text.get_text() for text in labels.texts}
    assert [rows[0], rows[1], rows[5.5]] == ["one", "a sum", "two"]
    assert labels.get_ylim() == bars.get_ylim() == numbers.get_ylim()
    written = {text.get_position(): text.get_text() for text in numbers.texts}
    assert written[0.5, 1] == "5.0" and written[1.0, 1] == "–" and written[0.5, 4] == "−1.0"
    assert written[0.5, -0.9] == "mean" and written[1.0, -0.9] == "MC SE" and written[1, 0] == "of twelve data"


def test_sums_are_followed_down_the_rows():
    bars = waterfall([group()], DIGITS, "nats").axes[1]
    assert sorted(line.get_xdata()[0] for line in bars.lines) == [5, 7]


@pytest.mark.parametrize(
    ("offset", "cut", "side"), [(0, True, None), (900, False, None), (900, True, "left"), (-900, True, "right")]
)
def test_zero_is_in_sight_unless_the_sums_are_far_from_it(offset, cut, side):
    bars = waterfall([group(offset=offset)], DIGITS, "nats", cut=cut).axes[1]
    low, high = bars.get_xlim()
    assert (low < 0 < high) == (side is None)
    assert bars.get_xlabel() == "nats" + (f" (cut: the long bars start at 0, beyond the {side} edge)" if side else "")
    slashes = [line for line in bars.lines if line.get_linestyle() == "None"]
    assert len(slashes) == (2 if side else 0)


def test_nothing_at_all_has_room():
    nothing = Group("exact", "", [Part("a gap", "gap", 0.0, 0.0, "#000000")], {"gap": {"mean": 0.0, "mc_se": 0.0}})
    assert waterfall([nothing], DIGITS, "nats").axes[1].get_xlim() == (-1, 1)


def test_a_long_name_is_cut_short():
    labels = waterfall([group("x" * 80)], DIGITS, "nats").axes[0]
    assert labels.texts[0].get_text() == "x" * 49 + "…"
