"""Neighbours by loops, gaps between known clusters, lines and arcs by their ends, directions by differences of means."""

import math

import pytest
import torch

from pyrovae.diagnostics.codes import geometry
from pyrovae.diagnostics.codes.geometry import alike, arc, direction, gaps, ink, line, nearest, stroke_width


def points(num, dim, seed=0):
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)).double()


def test_the_nearest_by_a_loop(monkeypatch):
    monkeypatch.setattr(geometry, "ROWS_AT_ONCE", 7)
    a, b = points(20, 3), points(15, 3, seed=1)
    distance, row = nearest(a, b)
    each = [[math.dist(p, q) for q in b.tolist()] for p in a.tolist()]
    assert distance.tolist() == pytest.approx([min(one) for one in each])
    assert row.tolist() == [one.index(min(one)) for one in each]


def test_nothing_is_its_own_neighbour(monkeypatch):
    monkeypatch.setattr(geometry, "ROWS_AT_ONCE", 7)
    a = points(20, 3)
    distance, row = nearest(a, a, themselves=True)
    assert (distance > 0).all() and (row != torch.arange(20)).all()


def test_neighbours_of_clusters_are_alike():
    labels = torch.arange(40) % 2
    codes = points(40, 2) * 0.1 + 5 * labels[:, None]
    assert alike(codes, labels).mean() == 1
    assert alike(codes, torch.arange(40)).mean() == 0


def test_gaps_lie_between_clusters():
    labels = torch.arange(100) % 2
    codes = points(100, 2) * 0.1 + torch.tensor([10.0, 0.0]).double() * labels[:, None]
    found = gaps(codes, 30, torch.Generator().manual_seed(0))
    assert found.shape == (30, 2) and ((found[:, 0] - 5).abs() < 1).all()


def test_ends_of_lines_and_arcs_are_what_they_go_between():
    a, b, ends = points(6, 4), points(6, 4, seed=1), torch.tensor([0.0, 0.5, 1.0])
    for path in (line(a, b, ends), arc(a, b, ends)):
        torch.testing.assert_close(path[:, 0], a)
        torch.testing.assert_close(path[:, 2], b)
    torch.testing.assert_close(line(a, b, ends)[:, 1], (a + b) / 2)


def test_an_arc_keeps_the_length_that_both_ends_have():
    a, b = (torch.nn.functional.normalize(points(6, 4, seed=seed)) * 3 for seed in (0, 1))
    lengths = arc(a, b, torch.linspace(0, 1, 9)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 3.0))
    assert line(a, b, torch.tensor([0.5])).norm(dim=-1).max() < 3


@pytest.mark.parametrize("factor", [2.0, -2.0])
def test_along_one_ray_an_arc_is_the_line(factor):
    a = points(6, 4)
    path = arc(a, factor * a, torch.linspace(0, 1, 5))
    torch.testing.assert_close(path, line(a, factor * a, torch.linspace(0, 1, 5)))


def test_the_direction_of_a_label_is_the_difference_of_means():
    codes, label = points(50, 3), (torch.arange(50) % 3 == 0).double()
    expected = codes[label == 1].mean(0) - codes[label == 0].mean(0)
    torch.testing.assert_close(direction(codes, label), expected)


def test_the_direction_of_a_number_is_its_regression():
    attribute = points(50, 1)[:, 0]
    codes = attribute[:, None] * torch.tensor([2.0, -1.0]).double() + 3
    torch.testing.assert_close(direction(codes, attribute), torch.tensor([2.0, -1.0]).double())


def test_a_bar_is_as_wide_as_it_is():
    """To a tenth: a straight bar's outline is pi / 4 of what slanted edges are counted by."""
    bars = torch.zeros(3, 40, 40)
    for place, width in enumerate((1, 2, 4)):
        bars[place, 2:38, 10 : 10 + width] = 7.0
    found = stroke_width(bars) * math.pi / 4
    assert found.tolist() == pytest.approx([1, 2, 4], rel=0.12)
    assert ink(bars).tolist() == pytest.approx([7 * 36 * width / 1600 for width in (1, 2, 4)])
