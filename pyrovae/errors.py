"""One exception for everything the caller can put right, and the nearest name to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "nearest"]


class InputError(ValueError):
    """What the caller gave cannot be used; the message says what was expected, what came and what to do."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Offers the choice nearest to a misspelt name, upper and lower case alike.

    Args:
        name: what the caller wrote.
        choices: the names that exist.

    Returns:
        A question to append to an error message, with its leading space; empty if nothing is close.

    Example:
        >>> nearest("mnits", ["digits", "mnist"])
        ' did you mean "mnist"?'
        >>> nearest("cifar", ["digits", "mnist"])
        ''
    """
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f' did you mean "{by_lower[found[0]]}"?' if found else ""
