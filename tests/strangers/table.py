"""The table of program x measurement, as it stands in README.md beside this file."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from strangers.measurements import MEASUREMENTS, Cell
from strangers.programs import PROGRAMS, STYLE_OF

FILE = Path(__file__).with_name("README.md")
HEAD = """\
# Programs that strangers write

{count} pairs of Pyro programs, each with its right numbers by closed form, enumeration or quadrature, or with the
refusal that it must meet, through every measurement. Written anew by `make test`; with other seeds:
`python tests/strangers/ten_seeds.py`.

`right`: every number within {errors} stated standard errors of the exact one (and rounding). `refused`: by a message
that names the site and the cause, as is wanted there. `not compiled`: `compile=True` is refused by name, as no graph
can hold these programs; they are right without. `said`: the number is wrong, and a warning says that it may be. `-`:
nothing is asked. `WRONG`: none of these.

"""


def is_whole(cells: Mapping[tuple[str, str], Cell]) -> bool:
    """Whether all cells were measured."""
    return all((name, measurement) in cells for name in PROGRAMS for measurement in MEASUREMENTS)


def written(cells: Mapping[tuple[str, str], Cell], errors: int) -> str:
    """The table in Markdown; a row for each program."""
    lines = ["| program | style | " + " | ".join(MEASUREMENTS) + " |", "| --- " * (len(MEASUREMENTS) + 2) + "|"]
    for name in PROGRAMS:
        words = [cells[name, measurement].word for measurement in MEASUREMENTS]
        lines.append(f"| {name.replace('_', ' ')} | {STYLE_OF[name]} | " + " | ".join(words) + " |")
    counts = {word: sum(cell.word == word for cell in cells.values()) for word in ("right", "refused", "WRONG")}
    foot = f"{len(cells)} cells: " + ", ".join(f"{count} {word}" for word, count in counts.items()) + "."
    return HEAD.format(count=len(PROGRAMS), errors=errors) + "\n".join(lines) + "\n\n" + textwrap.fill(foot, 118) + "\n"
