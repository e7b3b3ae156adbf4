"""Names that cost nothing to list: what stands behind each is imported when it is first used.

So the command line's help reads the dicts of priors, families, objectives and data sets without importing torch.
A path names a module, ``"pyrovae.data"``, or something in it, ``"pyrovae.data.datasets:load"``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name as resolve
from typing import Any

from pyrovae.base.errors import InputError, nearest


def handed_on(
    package: str, paths: Mapping[str, str], *others: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that hands names on, each from its path, at first use (PEP 562).

    Args:
        package: its name.
        paths: name -> where it comes from.
        others: names that the package defines itself, to be listed too.
    """

    def find(name: str) -> Any:
        if name not in paths:
            hint = nearest(name, paths)
            # With obj= Python would offer a name of its own beside this one.
            raise AttributeError(f"module '{package}' has no attribute {name!r}{hint and ';' + hint}", name=name)
        return resolve(paths[name])

    return find, lambda: sorted([*paths, *others])


class Choice:
    """A constructor by its path, with what it is called with unless told otherwise, and a line for ``pyrovae list``.

    Args:
        about: one line on what it makes.
        path: of the constructor.
        source: where it comes from: authors and year.
        takes: the keyword arguments that numbers behind its name are, in this order: ``vamp:500``; the last, with a
            star before it, is the list of all that are left: ``["*hidden"]`` for ``gated:300,300``.
        support: of latents: "real", "positive", "simplex", "sphere", "binary", "one-hot" or "unit"; a prior and a
            guide go together where these agree.
        shape: of priors over latents that are no plain vectors: their number, and the options -> the shape of one z.
        needs: the keyword arguments of what it is made from: "encoder", the network of the guide, or "rows", the
            training data.
        of_images: of networks: whether they read and draw images alone.
        has_mean: of guides: whether their distributions have a mean.
        needs_mean: of priors: whether the guide's distributions must have one.
        takes_warmup: of objectives: whether the weight of their KL may rise to 1.
        for_guide_alone: of objectives: whether they leave the model as it is.
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
        of_images: bool = False,
        has_mean: bool = True,
        needs_mean: bool = False,
        takes_warmup: bool = True,
        for_guide_alone: bool = False,
        **options: Any,
    ) -> None:
        self.about, self.path, self.options = about, path, options
        self.source, self.takes, self.support, self.shape, self.needs = source, takes, support, shape, needs
        self.of_images, self.has_mean, self.needs_mean = of_images, has_mean, needs_mean
        self.takes_warmup, self.for_guide_alone = takes_warmup, for_guide_alone

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return resolve(self.path)(*arguments, **{**self.options, **options})


def parsed(text: str, choices: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A choice by its name, and the options that numbers behind it give: ``"vamp:500"``, ``"gated:300,300"``.

    Args:
        text: the name of one of the choices, alone or with numbers.
        choices: name -> what it stands for, whose ``takes`` are the names of its numbers.

    Raises:
        InputError: if what stands behind the name is no number, or there are more than it takes.
    """
    name, _, behind = text.partition(":")
    numbers = [_number(each, text) for each in behind.split(",")] if behind else []
    single, many = _takes(choices[name])
    options: dict[str, Any] = dict(zip(single, numbers, strict=False))
    if left := numbers[len(single) :]:
        if many is None:
            asked = f"at most {len(single)}: {', '.join(single)}" if single else "none"
            raise InputError(f"'{text}': {len(numbers)} numbers behind {name}, which takes {asked}")
        options[many] = left
    return choices[name], options


def usage(name: str, choice: Any) -> str:
    """A name with the numbers that it takes, and what each is where nothing is said and the choice has a say in it.

    Example:
        >>> usage("mixture", Choice("Gaussians", "a:b", takes=["num_components", "seed"], num_components=20))
        'mixture[:num_components=20,seed]'
    """
    single, many = _takes(choice)
    options = getattr(choice, "options", {})
    numbers = [f"{one}={options[one]}" if one in options else one for one in single] + [f"{many},..."] * bool(many)
    return f"{name}[:{','.join(numbers)}]" if numbers else name


def _takes(choice: Any) -> tuple[list[str], str | None]:
    """The names of the numbers behind a choice, one each, and that of the list of all others."""
    takes = list(getattr(choice, "takes", ()))
    many = takes.pop().removeprefix("*") if takes and takes[-1].startswith("*") else None
    return takes, many


def _number(text: str, whole: str) -> float:
    for kind in (int, float):
        try:
            if math.isfinite(number := kind(text)):
                return number
        except (ValueError, OverflowError):
            continue
    raise InputError(f"'{whole}': {text!r} is no number; write a name and its numbers as in vamp:500")
