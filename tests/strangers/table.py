"""The table of program x measurement, as it stands in README.md beside this file."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from strangers.measurements import MEASUREMENTS, STANDARD_ERRORS
from strangers.programs import PROGRAMS, STYLE_OF

FILE = Path(__file__).with_name("README.md")
HEAD = """\
# Programs that strangers write

{count} pairs of Pyro programs, each with its right numbers by closed form, enumeration or quadrature, or with the
refusal that it must meet, through every measurement. Written anew by `make test`; with other seeds:
`python tests/strangers/ten_seeds.py`.

`right`: every number within {errors} stated standard errors of the exact one (and rounding). `refused`: by a message
that names the site and the cause, as is wanted there. `not compiled`: `compile=True` is refused by name, as no graph
can hold these programs; they are right without. `said`: the number is off, and a warning or the record's own account
(k-hat, terms too skewed for so few draws, an ELBO that is minus infinity by the supports) says that it may be; it is
within three times what is allowed. `-`: nothing is asked. `WRONG`: none of these.

"""


def write_if_whole(words: Mapping[tuple[str, str], str]) -> None:
    """Writes the table anew once all cells were measured, where compiled ones can be; a row for each program.

    Args:
        words: (program, measurement) -> what came of it.
    """
    whole = all((name, measurement) in words for name in PROGRAMS for measurement in MEASUREMENTS)
    if not whole or not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        return
    lines = ["| program | style | " + " | ".join(MEASUREMENTS) + " |", "| --- " * (len(MEASUREMENTS) + 2) + "|"]
    for name in PROGRAMS:
        row = [words[name, measurement] for measurement in MEASUREMENTS]
        lines.append(f"| {name.replace('_', ' ')} | {STYLE_OF[name]} | " + " | ".join(row) + " |")
    counts = Counter(words.values())
    foot = f"{len(words)} cells: " + ", ".join(f"{counts[word]} {word}" for word in ("right", "refused", "WRONG")) + "."
    head = HEAD.format(count=len(PROGRAMS), errors=STANDARD_ERRORS)
    FILE.write_text(head + "\n".join(lines) + "\n\n" + textwrap.fill(foot, 118) + "\n")
