"""Operators as records: data of another shape are refused, and what one says of itself."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.operators.images import coarse
from pyrovae.pairs.operators.operator import sizes


def test_it_says_what_it_is():
    assert repr(coarse((1, 4, 4), 2)) == "coarse 2: (1, 4, 4) -> (1, 2, 2)"


def test_whole_numbers_become_real_ones():
    assert coarse((2, 2), 2).apply(torch.tensor([[[1, 2], [3, 4]]])).tolist() == [[[2.5]]]


def test_other_data_are_refused():
    with pytest.raises(
        InputError, match=r"coarse 2: expected x of shape \(N, 4, 4\), got \(2, 4, 5\); make an operator"
    ):
        coarse((4, 4), 2).apply(torch.ones(2, 4, 5))
    with pytest.raises(InputError, match="expected the shape of one datum"):
        sizes(())
