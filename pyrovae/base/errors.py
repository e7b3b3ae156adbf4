"""What can go wrong: bad input, an interrupt, a number not to be trusted; and a hint at the nearest name."""

from __future__ import annotations

import difflib
import operator
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PACKAGE = str(Path(__file__).parents[1]) + "/"


class InputError(ValueError):
    """What the caller gave cannot be used; the message says what was expected, what came and what to do."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a measurement; ``partial`` is the record of the data that were done by then.

    Example:
        >>> try:
        ...     raise Interrupted("a report on 300 data")
        ... except KeyboardInterrupt as interrupt:
        ...     print(interrupt.partial)
        a report on 300 data
    """

    def __init__(self, partial: Any) -> None:
        super().__init__("interrupted; what was done is kept")
        self.partial = partial


class EdgeOfSupport(UserWarning):
    """A posterior reaches the edge of a support, beyond what its numbers hold; the message says what to do."""


class LostDigits(UserWarning):
    """The programs' number format is too short for their densities; the message says by how much and at which site."""


class NoisyGradients(UserWarning):
    """Continuous draws of a guide carry no gradient, and its fit is slow and ends early; the message says where."""


class NotCompiled(UserWarning):
    """A fit or an evaluation goes on without compiled kernels, which is right and slower; the message says why."""


class UnfinishedFit(UserWarning):
    """A run that is loaded holds a fit that did not come to its end; the message says why and what to do."""


class UntrustedEvidence(UserWarning):
    """Importance sampling cannot vouch for the evidence of too many data; the message says how many and what to do."""


class UntrustedPosterior(UserWarning):
    """The draws cannot vouch for themselves; the message says why and what to do."""


def warn(warning: Warning) -> None:
    """Warns at the line outside this package that led here, however deep inside it is said."""
    level, frame = 1, sys._getframe()
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing.

    Example:
        >>> first_line(ValueError("no such row\\nin a table")), first_line(ValueError())
        ('no such row', 'ValueError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(name: Any, choices: Iterable[str]) -> str:
    """Offers the choice nearest to a misspelt name, upper and lower case alike.

    Returns:
        A question to append to an error message, with its leading space; empty if nothing is close.

    Example:
        >>> nearest("mnits", ["digits", "mnist"])
        ' did you mean "mnist"?'
        >>> nearest("cifar", ["digits", "mnist"])
        ''
    """
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f' did you mean "{by_lower[found[0]]}"?' if found else ""


def whole(name: str, value: Any) -> int:
    """Python's int of a whole number of any library: NumPy's integers are no ints of Python's, and no JSON either.

    Raises:
        InputError: naming the argument, for anything else.

    Example:
        >>> import numpy
        >>> whole("num_particles", numpy.int64(10))
        10
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} must be a whole number, got {value!r}") from error


def check_at_least_one(**numbers: Any) -> None:
    """Raises InputError, naming the argument, unless each is a whole number from 1."""
    for name, value in numbers.items():
        if whole(name, value) < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
