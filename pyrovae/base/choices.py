"""Names that cost nothing to list: what stands behind each is imported when it is first used.

So the command line's help reads the dicts of priors, families, objectives and data sets without importing torch.
A path names a module, ``"pyrovae.data"``, or something in it, ``"pyrovae.data.datasets:load"``.
"""

from collections.abc import Callable, Mapping
from pkgutil import resolve_name as resolve
from typing import Any


def handed_on(package: str, paths: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that hands names on, each from its path, at their first use (PEP 562)."""

    def find(name: str) -> Any:
        if name not in paths:
            raise AttributeError(f"module '{package}' has no attribute {name!r}")
        return resolve(paths[name])

    return find


class Choice:
    """A constructor by its path, with what it is called with unless told otherwise, and a line for ``pyrovae list``.

    Args:
        about: one line on what it makes.
        path: of the constructor.
        options: its keyword arguments.

    Example:
        >>> Choice("a fraction", "fractions:Fraction", denominator=4)(3)
        Fraction(3, 4)
    """

    def __init__(self, about: str, path: str, **options: Any) -> None:
        self.about, self.path, self.options = about, path, options

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return resolve(self.path)(*arguments, **{**self.options, **options})
