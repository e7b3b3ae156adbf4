import math

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.reports.exercises import exercise


@pytest.mark.parametrize(
    ("answer", "expected", "tolerance", "right"),
    [
        (..., 1.0, 0.1, None),
        (1.05, 1.0, 0.1, True),
        (1.2, 1.0, 0.1, False),
        (math.nan, 1.0, 0.1, False),
        ("one", 1.0, 0.1, False),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.05]), 0.1, True),
        (torch.tensor([1.0]), torch.tensor([1.0, 2.0]), 0.1, False),
        ("posterior", "posterior", None, True),
        ("prior", "posterior", None, False),
        (3, 3, None, True),
        (4, 3, None, False),
        (0.3, lambda scale: 0 < scale < 1, None, True),
        (1.3, lambda scale: 0 < scale < 1, None, False),
    ],
)
def test_an_answer_is_right_or_not_or_none(answer, expected, tolerance, right):
    verdict = exercise(answer, expected, tolerance=tolerance, hint="Look again.")
    assert verdict.right is right
    assert ("Look again." in repr(verdict)) == (right is False)


def test_a_float_needs_a_tolerance():
    with pytest.raises(InputError, match="how far a number may be off"):
        exercise(1.0, 1.0)
