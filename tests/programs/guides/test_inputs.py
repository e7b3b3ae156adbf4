"""Numbers are read as standard scores, what is missing as zero, and labels as classes."""

import math

import torch

from pyrovae.programs.guides.inputs import Labels, Numbers, TableRows


def test_scores():
    read = Numbers(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]), has_missing=False)
    assert torch.equal(read(torch.tensor([[3.0, 2.0]])), torch.tensor([[1.0, 0.0]]))


def test_missing_entries_are_zero_beside_their_mask():
    read = Numbers(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]), has_missing=True)
    assert torch.equal(read(torch.tensor([[3.0, math.nan]])), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))


def test_what_hardly_varies_is_not_blown_up():
    read = Numbers(torch.zeros(2), torch.tensor([1e-6, 1.0]), has_missing=False)
    assert float(read(torch.ones(1, 2)).abs().max()) < 20
    assert torch.equal(Numbers(torch.ones(2), torch.zeros(2), has_missing=False)(torch.ones(1, 2)), torch.zeros(1, 2))


def test_labels_are_classes_and_a_new_one_is_none():
    read = Labels(torch.tensor([2, 5]), torch.zeros(()))
    assert torch.equal(read(torch.tensor([5, 2, 7])), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))


def test_rows_of_a_table_are_moved_to_the_line_and_scored():
    kinds = [("real", 0), ("positive", 0), ("count", 0), ("proportion", 0), ("ordinal", 3), ("binary", 2)]
    rows = torch.tensor([[0.0, 1.0, 0.0, 0.2, 0.0, 0.0], [2.0, 9.0, 3.0, 0.8, 2.0, 1.0]])
    read = TableRows(kinds, rows, torch.zeros(6, dtype=torch.bool))
    expected = torch.tensor([[-1.0], [1.0]]).expand(2, 6)
    torch.testing.assert_close(read(rows), expected)
    half = torch.tensor([[1.0, 3.0, 1.0, 0.5, 1.0, 0.5]])  # half way: on the line that each is moved to
    torch.testing.assert_close(read(half), torch.zeros(1, 6))


def test_classes_are_read_one_by_one_and_what_is_missing_is_none_and_said():
    kinds = [("categorical", 3), ("real", 0)]
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0], [1.0, math.nan]])
    read = TableRows(kinds, rows, torch.tensor([True, True]))
    found = read(torch.tensor([[2.0, math.nan], [math.nan, 3.0]]))
    assert found.tolist() == [[0, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]]
    assert read.size == 6 and read.double()(rows.double()).dtype == torch.float64


def test_a_column_that_does_not_vary_and_zeros_are_read():
    read = TableRows([("real", 0), ("positive", 0)], torch.tensor([[5.0, 1.0], [5.0, 2.0]]), torch.tensor([False] * 2))
    assert read(torch.zeros(1, 2)).isfinite().all() and read(torch.tensor([[5.0, 1.0]]))[0, 0] == 0
