"""Arguments of public functions, held against their own annotations: what a signature says is what is taken."""

import functools
import inspect
import numbers
import operator
import types
from collections import abc
from collections.abc import Callable
from typing import Any, TypeVar, Union, get_args, get_origin

from pyrovae.base.errors import InputError, nearest

Function = TypeVar("Function", bound=Callable[..., Any])
LARGEST = 2**63 - 1  # of the whole numbers that tensors hold


def checked(function: Function) -> Function:
    """The function, which refuses what is not of the type that its signature names, before it does anything.

    Raises:
        InputError: naming the argument, what is expected and what came.

    Example:
        >>> @checked
        ... def twice(number: int, *, word: str | None = None) -> int:
        ...     return 2 * number
        >>> twice(3)
        6
        >>> twice("3")
        Traceback (most recent call last):
        ...
        pyrovae.base.errors.InputError: number must be a whole number, got '3'
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            given = {}  # too many: Python says so below
            for name in kwargs.keys() - signature.parameters.keys():
                raise TypeError(f"{function.__name__}() takes no {name}:{_instead(name, signature)}") from None
        for name, value in given.items():
            parameter = signature.parameters[name]
            for one in value if parameter.kind is parameter.VAR_POSITIONAL else (value,):
                _check(parameter, one)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def _instead(name: str, signature: inspect.Signature) -> str:
    """What may have been meant by a name that is none."""
    if name in ("lr", "learning_rate") and "optimizer" in signature.parameters:
        return " give optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2)"
    names = list(signature.parameters)
    return f"{nearest(name, names)} its arguments are {', '.join(names)}"


def _check(parameter: inspect.Parameter, value: Any) -> None:
    annotation, default = parameter.annotation, parameter.default
    allowed = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if not any(_is_one(value, one) for one in allowed):
        words = " or ".join(dict.fromkeys(map(_words, allowed)))
        words += f" such as {default.__name__}" if inspect.isfunction(default) else ""
        said = repr(value)
        raise InputError(f"{parameter.name} must be {words}, got {said if len(said) <= 60 else said[:57] + '...'}")


def _is_whole(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and abs(operator.index(value)) <= LARGEST
    except TypeError:
        return False


def _is_real(value: Any) -> bool:
    too_long = isinstance(value, int) and abs(value) > LARGEST
    return isinstance(value, numbers.Real) and value == value and not too_long  # no NaN


def _is_flag(value: Any) -> bool:
    """Python's own, or a single one of NumPy's."""
    return isinstance(value, bool) or (str(getattr(value, "dtype", None)) == "bool" and getattr(value, "ndim", 0) == 0)


def _is_list(value: Any) -> bool:
    return isinstance(value, abc.Sequence) and not isinstance(value, str)


_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", _is_whole),
    float: ("a real number", _is_real),
    bool: ("True or False", _is_flag),
    str: ("a string", lambda value: isinstance(value, str)),
    type(None): ("None", lambda value: value is None),
    abc.Sequence[str]: (
        "a list or tuple of strings",
        lambda value: _is_list(value) and all(isinstance(one, str) for one in value),
    ),
    abc.Sequence: ("a list or tuple", _is_list),
    abc.Mapping: ("a dict", lambda value: isinstance(value, abc.Mapping)),
    dict: ("a dict", lambda value: isinstance(value, dict)),
    abc.Callable: ("a function", callable),
}


def _kind(annotation: Any) -> tuple[str, Callable[[Any], bool]] | None:
    return _KINDS.get(annotation) or _KINDS.get(get_origin(annotation))


def _is_one(value: Any, annotation: Any) -> bool:
    if (kind := _kind(annotation)) is not None:
        return kind[1](value)
    return annotation is Any or not isinstance(annotation, type) or isinstance(value, annotation)


def _words(annotation: Any) -> str:
    kind = _kind(annotation)
    name = str(getattr(annotation, "__name__", annotation))
    return kind[0] if kind is not None else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
