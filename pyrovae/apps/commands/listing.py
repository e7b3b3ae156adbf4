"""The command list: every axis with one line for each choice; or one axis, with the numbers that each takes."""

from argparse import ArgumentParser, Namespace
from typing import Any

from pyrovae.apps.arguments import Action
from pyrovae.apps.recipes import CHOICES, choose
from pyrovae.base.choices import usage


def listing(p: ArgumentParser) -> Action:
    """List what can be chosen by name: priors, likelihoods, guides, networks, objectives, baselines, data sets.

    example:
      pyrovae list
      pyrovae list prior
    """
    help = "one of them, with the numbers that stand behind its names: " + ", ".join(map(option, CHOICES))
    p.add_argument("axis", nargs="?", metavar="AXIS", help=help)

    def show(given: Namespace) -> int:
        axes = {option(kind): kind for kind in CHOICES}
        if given.axis is None:
            print("\n".join(map(section, CHOICES)))
        else:
            print(section(axes[choose("axis", given.axis, list(axes))], numbers=True))
        return 0

    return show


def option(kind: str) -> str:
    """What the command line calls it."""
    return kind.removesuffix(" set")


def section(kind: str, *, numbers: bool = False) -> str:
    """One axis, a line for each choice: its name, what it is, where it comes from.

    Args:
        kind: a key of ``CHOICES``.
        numbers: show behind each name the numbers that it takes, and say above how they are given.
    """
    rows = [(usage(name, choice) if numbers else name, choice) for name, choice in CHOICES[kind].items()]
    width = max(len(name) for name, _ in rows)
    head = f"{kind}s"
    if numbers:
        behind = any("[:" in name for name, _ in rows)
        head += f", by --{option(kind)} NAME" + ", or NAME:NUMBER,NUMBER where [:...] stands" * behind
    return "\n".join([head, *(f"  {name:{width}}  {_about(choice)}" for name, choice in rows)])


def _about(choice: Any) -> str:
    source = getattr(choice, "source", "")
    return choice.about + f" [{source}]" * bool(source)
