"""What is refused, by its name."""

import math

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs.parameters import check_positive, check_proportions


def test_the_tensor_that_is_not_positive_is_named():
    check_positive(rate=torch.ones(2), scale=torch.tensor(1e-300, dtype=torch.float64))
    with pytest.raises(InputError, match="scale must be positive everywhere; got -1"):
        check_positive(rate=torch.ones(2), scale=torch.tensor([1.0, -1.0]))
    with pytest.raises(InputError, match="scale must be positive everywhere; got 0"):
        check_positive(scale=torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="rate must be positive everywhere; got nan"):
        check_positive(rate=torch.tensor([1.0, math.nan]))


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [[1.0]], [math.nan, 1.0]], ids=str)
def test_what_is_no_proportion_is_refused(weights):
    check_proportions(torch.tensor([0.25, 0.75]))
    with pytest.raises(InputError, match="summing to one"):
        check_proportions(torch.tensor(weights))
