"""The command reference: every public name and every choice as one HTML page, generated from the docstrings."""

import inspect
import types
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

import pyrovae as pv
from pyrovae.apps.arguments import Action
from pyrovae.apps.recipes import CHOICES
from pyrovae.base.choices import usage

THEMES = {  # folder -> what its names are for, in the order of a page
    "programs": "Write a pair",
    "training": "Fit it",
    "evidence": "How much evidence: log p(x)",
    "diagnostics": "What is wrong, and whose fault it is",
    "posteriors": "Draws of what is not known",
    "pairs": "Handlers of any pair",
    "data": "Rows",
    "reports": "Figures and pages",
    "apps": "Runs, sweeps, recipes",
    "base": "Records and errors",
}


def reference(p: ArgumentParser) -> Action:
    """Write the reference of all public names as one HTML page.

    example:
      pyrovae reference --out reference.html
    """
    p.add_argument("--out", default="reference.html", metavar="FILE.html", help="the page [reference.html]")
    return _reference


def _reference(given: Namespace) -> int:
    from pyrovae.reports.html.page import write
    from pyrovae.reports.html.reference import reference as page

    found = themes()
    write(page(found, title=f"pyrovae {pv.__version__}: reference"), given.out)
    count = sum(len(theme.entries) for theme in found)
    print(f"{given.out}: {count} names in {len(found)} themes")
    return 0


def themes() -> list[Any]:
    """Every public name in its theme: those of ``pyrovae`` by their folder, then each of its modules, then choices."""
    from pyrovae.reports.html.reference import Theme, entries

    plain, modules = _public()
    found = []
    for folder, title in THEMES.items():
        named = [(f"pv.{name}", value) for name, value in plain.items() if _folder(value) == folder]
        if named:
            found.append(Theme(folder, title, "", entries(named)))
    for name, module in modules.items():
        about = (inspect.getdoc(module) or "").partition("\n\n")[0]
        named = [(f"pv.{name}.{one}", value) for one, value in _names_of(module)]
        found.append(Theme(f"module-{name}", f"pv.{name}", " ".join(about.split()), entries(named)))
    for kind, choices in CHOICES.items():
        rows = [(usage(name, one), one.about, getattr(one, "source", "")) for name, one in choices.items()]
        key = kind.replace(" ", "-")
        about = f"What pyrovae list {key.removesuffix('-set')} prints."
        found.append(Theme(f"choices-{key}", f"{kind.capitalize()}s by name", about, [], rows))
    return found


def _public() -> tuple[dict[str, Any], dict[str, types.ModuleType]]:
    """Public names of the package: things, and modules."""
    named = {name: getattr(pv, name) for name in pv.__all__ if name != "__version__"}
    modules = {name: value for name, value in named.items() if isinstance(value, types.ModuleType)}
    return {name: value for name, value in named.items() if name not in modules}, modules


def _folder(value: Any) -> str:
    return value.__module__.split(".")[1]


def _names_of(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions and classes that a module lists, or defines."""
    listed = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    for name in listed:
        value = getattr(module, name)
        is_own = getattr(value, "__module__", "").startswith("pyrovae.") and not isinstance(value, types.ModuleType)
        if is_own and (inspect.isfunction(value) or inspect.isclass(value)) and _is_listed(module, name, value):
            yield name, value


def _is_listed(module: types.ModuleType, name: str, value: Any) -> bool:
    """Whether a name is a module's own, and not one that it imports for its work."""
    return hasattr(module, "__path__") or hasattr(module, "__all__") or value.__module__ == module.__name__
