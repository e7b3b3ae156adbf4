r"""Formulas of docstrings as pictures: LaTeX after ``.. math::`` -> SVG, by matplotlib's typesetting, without a script.

What it cannot set stays LaTeX, to be read as such.
"""

import io
import re
from functools import cache
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_ARGUMENT = r"\s*(\\[a-zA-Z]+|[a-zA-Z0-9])"  # one that stands without braces
# What LaTeX writes otherwise than matplotlib does, in this order.
_SAME: list[tuple[str, Any]] = [
    (r"\\text\{([^}]*)\}", lambda found: rf"\mathrm{{{found[1].replace(' ', '~')}}}"),
    (r"\\underbrace\{([^{}]*)\}_\{(\\mathrm\{[^{}]*\})\}", r"\\underset{\2}{\1}"),
    (r"\\frac(?![a-z])", r"\\dfrac"),
    (r"\\tfrac(?![a-z])", r"\\frac"),
    (rf"\\(d?frac){_ARGUMENT}{_ARGUMENT}", r"\\\1{\2}{\3}"),
    (rf"\\(hat|bar|tilde){_ARGUMENT}", r"\\\1{\2}"),
    (r"\\[tb]?binom", r"\\binom"),
    (r"\\(?:[Bb]igg?[lr]?|textstyle)(?![a-z])", ""),
    (r"\\operatorname", r"\\mathrm"),
    (r"\\mid(?![a-z])", r"\\,|\\,"),
    (r"\\qquad", r"\\quad\\quad"),
    (r"\\([gl]e)(?![a-z])", r"\\\1q"),
    (r"\\\|", r"\\Vert "),
]
_HEIGHT = 13.0  # points of the letters


def formulas(docstring: str) -> list[str]:
    r"""The formulas of a docstring as LaTeX on one line each.

    Example:
        >>> formulas("One.\n\n.. math:: a =\n    b\n\nTwo.\n\n.. math::\n    c\n")
        ['a = b', 'c']
    """
    found = re.findall(r"\.\. math::[ \t]*(.*?)(?=\n[ \t]*\n|\Z)", docstring, flags=re.S)
    return [" ".join(one.split()) for one in found if one.strip()]


@cache
def typeset(formula: str) -> Markup:
    """The SVG of a formula; its LaTeX as code where it cannot be set."""
    try:
        drawn = _svg(_translated(formula))
    except ValueError:
        return Markup("<code>{}</code>").format(formula)
    return Markup(f'<span role="img" aria-label="{escape(formula)}">{drawn}</span>')


def _translated(formula: str) -> str:
    for pattern, written in _SAME:
        formula = re.sub(pattern, written, formula)
    return formula


def _svg(formula: str) -> str:
    figure = Figure()
    FigureCanvasAgg(figure)
    text = figure.text(0, 0, f"${formula}$", fontsize=_HEIGHT, math_fontfamily="stix")
    box = text.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": formula}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches=box.padded(0.03),
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    whole = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|\n\s*", " ", buffer.getvalue(), flags=re.S)
    body = whole[whole.index("<svg") :]
    width, height = 72 * (box.width + 0.06), 72 * (box.height + 0.06)
    head = f'<svg viewBox="0 0 {width:.2f} {height:.2f}" style="width:{width / 0.75:.0f}px;fill:currentColor">'
    return head + _own_ids(body.partition(">")[2], formula)


def _own_ids(body: str, formula: str) -> str:
    """Glyphs are named by the formula, as all of a page share one list of names."""
    mark = f"f{abs(hash_of(formula)):x}"
    used = set(re.findall(r'href="#([^"]+)"', body)) | set(re.findall(r"url\(#([^)]+)\)", body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{mark}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{mark}-\1)", body)
    return re.sub(r'xlink:href="#([^"]+)"', rf'href="#{mark}-\1"', body).replace("fill: #000000", "fill: inherit")


def hash_of(text: str) -> int:
    """The same number for a text in every process."""
    value = 0
    for letter in text:
        value = (value * 131 + ord(letter)) % 2**61
    return value
