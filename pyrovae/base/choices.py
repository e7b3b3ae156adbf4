"""Names that cost nothing to list: what stands behind each is imported when it is first used.

So the command line's help reads the dicts of priors, families, objectives and data sets without importing torch.
A path names a module, ``"pyrovae.data"``, or something in it, ``"pyrovae.data.datasets:load"``.
"""

from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name as resolve
from typing import Any

from pyrovae.base.errors import InputError


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
        source: where it comes from: authors and year.
        takes: the keyword arguments that numbers behind its name are, in this order: ``vamp:500``.
        support: of latents: "real", "positive", "simplex", "sphere", "binary", "one-hot" or "unit"; a prior and a
            guide go together where these agree.
        shape: of priors over latents that are no plain vectors: their number, and the options -> the shape of one z.
        needs: the keyword arguments of what it is made from: "encoder", the network of the guide, or "rows", the
            training data.
        options: its keyword arguments.

    Example:
        >>> Choice("a fraction", "fractions:Fraction", denominator=4)(3)
        Fraction(3, 4)
    """

    def __init__(
        self,
        about: str,
        path: str,
        *,
        source: str = "",
        takes: Sequence[str] = (),
        support: str = "real",
        shape: Callable[..., tuple[int, ...]] | None = None,
        needs: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.about, self.path, self.options = about, path, options
        self.source, self.takes, self.support, self.shape, self.needs = source, takes, support, shape, needs

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return resolve(self.path)(*arguments, **{**self.options, **options})


def parsed(text: str, choices: Mapping[str, Any]) -> tuple[Any, dict[str, float]]:
    """A choice by its name, and the options that numbers behind it give: ``"vamp:500"``.

    Args:
        text: the name of one of the choices, alone or with numbers.
        choices: name -> what it stands for, whose ``takes`` are the names of its numbers.

    Raises:
        InputError: if what stands behind the name is no number, or there are more than it takes.
    """
    name, _, numbers = text.partition(":")
    given, takes = numbers.split(",") if numbers else [], getattr(choices[name], "takes", ())
    if len(given) > len(takes):
        asked = f"at most {len(takes)}: {', '.join(takes)}" if takes else "none"
        raise InputError(f"'{text}': {len(given)} numbers behind {name}, which takes {asked}")
    return choices[name], {option: _number(each, text) for option, each in zip(takes, given, strict=False)}


def _number(text: str, whole: str) -> float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise InputError(f"'{whole}': {text!r} is no number; write a name and its numbers as in vamp:500")
