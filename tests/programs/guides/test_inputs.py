"""Numbers are read as standard scores, what is missing as zero, and labels as classes."""

import math

import torch

from pyrovae.programs.guides.inputs import Labels, Numbers


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
