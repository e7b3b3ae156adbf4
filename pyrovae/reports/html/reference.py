"""The reference: every public name by theme, with the first paragraph of its docstring, its formula and its source."""

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from pyrovae.reports.html.formulas import formulas, typeset
from pyrovae.reports.html.page import rendered
from pyrovae.reports.html.sections import first_paragraph

_HEADS = r"(?:Args|Arguments|Attributes|Returns|Raises|Warns|Yields|References|Example|Examples|Note|Notes):"


class Member(NamedTuple):
    """A method or property of a class, in a line."""

    name: str
    about: str


class Entry(NamedTuple):
    """A public name."""

    name: str
    signature: str
    about: str
    formulas: Sequence[Markup]
    source: str  # authors, year
    members: Sequence[Member]


class Theme(NamedTuple):
    """Names that belong together."""

    key: str
    title: str
    about: str
    entries: Sequence[Entry]
    choices: Sequence[tuple[str, str, str]] = ()  # of an axis: a name with its numbers, what it is, its source


def reference(themes: Sequence[Theme], *, title: str) -> str:
    """The page of all themes as text."""
    return rendered("reference.html", title=title, themes=themes)


def entry(name: str, value: Any) -> Entry:
    """What a page says of a public name.

    Args:
        name: as it is written, ``pv.fit``.
        value: a function, a class, or plain values with a docstring.

    Example:
        >>> entry("entry", entry).about
        'What a page says of a public name.'
    """
    doc = inspect.getdoc(value) or ""
    module = inspect.getdoc(sys.modules.get(getattr(value, "__module__", ""), None)) or ""
    is_main = inspect.isfunction(value) or not _is_record(value)
    found = formulas(doc) or (formulas(module) if is_main else [])
    source = part(doc, "References") or (part(module, "References") if is_main else "")
    return Entry(
        name, _signature(value), first_paragraph(doc), [typeset(one) for one in found], source, _members(value)
    )


def part(docstring: str, head: str) -> str:
    r"""What stands under a head of a docstring, on one line.

    Example:
        >>> part("One.\n\nReferences:\n    Box (1980), Sampling.\n\nExample:\n    1\n", "References")
        'Box (1980), Sampling.'
    """
    found = re.search(rf"^[ \t]*{head}:\n(.*?)(?=^[ \t]*{_HEADS}\n|\Z)", docstring, flags=re.S | re.M)
    return " ".join(found[1].split()) if found else ""


def _is_record(value: Any) -> bool:
    return inspect.isclass(value) and hasattr(value, "__dataclass_fields__")


def _signature(value: Any) -> str:
    """Its arguments with their defaults; their types are in the docstring's own words."""
    try:
        found = inspect.signature(value)
    except (ValueError, TypeError):
        return ""
    if _is_record(value):  # made by measurements, not by hand
        return ""
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"<(?:function|class) '?([\w.]+)[^>]*>", r"\1", text)


def _members(value: Any) -> list[Member]:
    """Public methods and properties that a class defines itself, with their first sentence."""
    if not inspect.isclass(value):
        return []
    own = {name: one for name, one in vars(value).items() if not name.startswith("_")}
    told = {name: first_paragraph(_doc(one)) for name, one in own.items() if callable(_function(one))}
    return [Member(name, about) for name, about in told.items() if about]


def _function(one: Any) -> Any:
    return getattr(one, "fget", None) or getattr(one, "__func__", one)


def _doc(one: Any) -> str | None:
    return _function(one).__doc__


def entries(named: Iterable[tuple[str, Any]]) -> list[Entry]:
    """The entries of some names, those without a docstring left out."""
    return [found for name, value in named if (found := entry(name, value)).about]
