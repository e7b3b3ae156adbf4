"""Outlines: where pixels differ from their neighbours below and to the right."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data.pictures.outlines import outline


def test_a_square_has_four_edges():
    x = torch.zeros(1, 6, 6)
    x[0, 2:4, 2:4] = 8
    expected = torch.zeros(6, 6)
    expected[1:4, 1:4] = 1
    expected[1, 1] = expected[2, 2] = 0
    torch.testing.assert_close(outline(x)[0], expected)


def test_a_threshold_of_ones_own_and_several_channels():
    x = torch.tensor([[[[0.0, 1.0]], [[0.0, 3.0]]]])
    assert outline(x, threshold=2).tolist() == [[[1.0, 0.0]]]
    assert outline(x, threshold=3).tolist() == [[[0.0, 0.0]]]


def test_what_is_no_picture_is_refused():
    with pytest.raises(InputError, match=r"\(N, H, W\) or \(N, C, H, W\), got \(3, 2\)"):
        outline(torch.zeros(3, 2))
