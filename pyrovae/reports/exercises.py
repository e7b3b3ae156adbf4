"""An exercise whose answer is checked by code: right, not yet (with a hint), or not answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyrovae.base.errors import InputError


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth.

    Args:
        right: None where there is no answer yet.
        text: a line for the reader.
    """

    right: bool | None
    text: str

    def __repr__(self) -> str:
        return self.text


def exercise(
    answer: Any, expected: Any | Callable[[Any], bool], *, tolerance: float | None = None, hint: str = ""
) -> Verdict:
    """Check an answer of a reader: ``...`` stands for none as yet.

    Args:
        answer: a number, an array, a word, or whatever ``expected`` takes.
        expected: what is right, or a function of the answer that says whether it is.
        tolerance: how far a number or an entry may be off; demanded where ``expected`` is a float.
        hint: where to look, for a reader whose answer is not right.

    Returns:
        A verdict; the last thing in a cell, it is printed.

    Raises:
        InputError: a float is expected, and no tolerance is given.

    Example:
        >>> exercise(..., 2.0, tolerance=0.1)
        No answer yet: put yours in place of the dots.
        >>> exercise(3.0, 2.0, tolerance=0.1, hint="KL(q || p) is a mean over q.")
        Not yet. KL(q || p) is a mean over q.
        >>> exercise(2.05, 2.0, tolerance=0.1)
        Right.
        >>> exercise("b", "b")
        Right.
    """
    if answer is ...:
        return Verdict(None, "No answer yet: put yours in place of the dots.")
    if _is_right(answer, expected, tolerance):
        return Verdict(True, "Right.")
    return Verdict(False, f"Not yet. {hint}".strip())


def _is_right(answer: Any, expected: Any, tolerance: float | None) -> bool:
    if callable(expected):
        return bool(expected(answer))
    if tolerance is not None:
        return _is_near(answer, expected, tolerance)
    if np.asarray(expected).dtype.kind == "f":
        raise InputError("say how far a number may be off: exercise(answer, expected, tolerance=0.01)")
    return bool(np.array_equal(np.asarray(answer), np.asarray(expected)))


def _is_near(answer: Any, expected: Any, tolerance: float) -> bool:
    answer, expected = np.asarray(answer), np.asarray(expected, dtype=float)
    same_kind = answer.dtype.kind in "biuf" and answer.shape == expected.shape
    return same_kind and bool(np.all(np.abs(answer - expected) <= tolerance))
