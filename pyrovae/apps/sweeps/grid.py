"""The combinations of a sweep: what is swapped, every one of its values with every other, each a record of a fit."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pyrovae.apps import fit
from pyrovae.apps.recipes import CHOICES, check_support
from pyrovae.base.choices import parsed
from pyrovae.base.errors import InputError, nearest
from pyrovae.training.objectives import OBJECTIVES

NOT_OF_A_SWEEP = ("from", "only", "seed")
OF_THE_DATA = ("binarization", "divisor", "dequantize", *fit.OF_THE_TABLE)
FIXED = ("data", *OF_THE_DATA, "labels", *NOT_OF_A_SWEEP)  # of the sweep, not of a combination


class Combination(NamedTuple):
    """One of the fits of a sweep, but for its seed."""

    name: str  # the values of what is swapped
    settings: dict[str, Any]


class Grid(NamedTuple):
    """All that can be fitted, and what cannot, with the reason."""

    combinations: tuple[Combination, ...]
    left_out: dict[str, str]


def grid(settings: Mapping[str, Any], *, one_at_a_time: bool = False) -> Grid:
    """Every combination of the settings that hold a list.

    Args:
        settings: of :data:`~pyrovae.apps.fit.SETTINGS`, each a value or a list of them; ``hidden``, a list already, is
            swapped as a list of lists.
        one_at_a_time: the first values together, and each other value in the place of the first of its own list alone.

    Returns:
        The :class:`Grid`, in the order of the lists, the last setting changing first.

    Raises:
        InputError: for a setting or a name that is not there, an empty list, a value given twice, and if priors and
            guides are such that no combination is left.
    """
    swapped = {name: value for name, value in settings.items() if _is_swapped(name, value)}
    _check(settings, swapped)
    found, left_out = list[Combination](), dict[str, str]()
    for combination in _around_the_first(swapped) if one_at_a_time else _products(swapped):
        name = ", ".join(itertools.starmap(_label, combination.items())) or settings.get("prior") or "normal"
        chosen = {**settings, **combination}
        try:
            check_support(chosen.get("prior") or "normal", chosen.get("guide") or "normal")
            _check_objective(chosen.get("objective") or "elbo")
        except InputError as error:
            left_out[name] = str(error)
            continue
        found.append(Combination(name, chosen))
    if not found:
        raise InputError(f"no combination can be fitted: {next(iter(left_out.values()))}")
    return Grid(tuple(found), left_out)


def _check_objective(name: str) -> None:
    if parsed(name, OBJECTIVES)[0].for_guide_alone:
        raise InputError(f"objective '{name}' trains a guide for a model as it is, and a sweep fits both")


def _products(swapped: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(swapped, values, strict=True)) for values in itertools.product(*swapped.values()))


def _around_the_first(swapped: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    first = {name: values[0] for name, values in swapped.items()}
    yield first
    for name, values in swapped.items():
        yield from ({**first, name: value} for value in values[1:])


def listed(text: str) -> list[str]:
    """Names set apart by commas; a number belongs to the name before it.

    Example:
        >>> listed("normal,mixture:20"), listed("mlp,gated:300,300")
        (['normal', 'mixture:20'], ['mlp', 'gated:300,300'])
    """
    names = list[str]()
    for part in text.split(","):
        if names and ":" in names[-1] and _is_number(part):
            names[-1] += f",{part}"
        else:
            names.append(part.strip())
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_swapped(name: str, value: Any) -> bool:
    """Whether a setting holds a list of values; the widths of hidden layers are one value."""
    is_list = isinstance(value, list | tuple)
    return is_list and not (name == "hidden" and all(isinstance(width, int) for width in value))


def _label(name: str, value: Any) -> str:
    """A name as it is, another value behind what it is of."""
    return str(value) if name in CHOICES else f"{name.replace('_', '-')} {_written(value)}"


def _written(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"


def _check(settings: Mapping[str, Any], swapped: Mapping[str, Sequence[Any]]) -> None:
    for name in settings:
        there = [known for known in fit.SETTINGS if known not in NOT_OF_A_SWEEP]
        if name not in there:
            raise InputError(f"a sweep has no setting '{name}':{nearest(name, there)} there are {', '.join(there)}")
    for name, values in swapped.items():
        if name in FIXED:
            raise InputError(f"{name} is one for a whole sweep: evidence of unlike rows has no difference")
        if not values:
            raise InputError(f"{name} is an empty list: leave it out, or give its values")
        if twice := [value for place, value in enumerate(values) if value in values[:place]]:
            raise InputError(f"{name} holds {twice[0]} twice")
    for name, value in settings.items():
        _check_type(name, value if _is_swapped(name, value) else [value])
    for choices in _every_choice(settings):
        fit.record(**choices)  # names and numbers, before anything is fitted


def _check_type(name: str, values: Sequence[Any]) -> None:
    """Raises InputError for text where numbers are asked for, and for one number where a list of widths is."""
    kind = fit.SETTINGS[name].argument.get("type")
    if name == "hidden":
        wrong = [value for value in values if value is not None and not isinstance(value, list | tuple)]
    else:
        wrong = [value for value in values if kind in (int, float) and isinstance(value, str)]
    if wrong:
        asked = "the widths of the layers, a list: [300, 100]" if name == "hidden" else "a number"
        raise InputError(f"{name} is {asked}, got {wrong[0]!r}")


def _every_choice(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Settings such that each value stands in one of them."""
    swapped = {name: value for name, value in settings.items() if _is_swapped(name, value)}
    return ({**settings, **combination} for combination in _around_the_first(swapped))
