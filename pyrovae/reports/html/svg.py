"""A figure inside a page: SVG with a text alternative, names of its own, and ink that follows a light or dark page.

Texts stay texts: they can be read aloud, searched and copied, and take half the room of outlines.
"""

import io
import re
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from pyrovae.reports.figures.style import FAINT, INK, QUIET, styled

# What is drawn in these follows the page; other colours stand on light and dark alike.
_PAGE_COLORS = {INK: "--ink", "#000000": "--ink", QUIET: "--quiet", FAINT: "--faint", "#ffffff": "--page"}
_FONT = re.compile(r"font-family: [^;\"]*")
_POINTS = 72 / 96  # of an inch, in a pixel of the page


def inline(figure: Figure, *, name: str, title: str, about: str) -> Markup:
    """The SVG element of a figure.

    Args:
        figure: any figure of matplotlib.
        name: what the ids in it begin with; another one for each figure of a page.
        title: what it is, in a few words.
        about: what it shows, for those who do not see it.
    """
    whole = _drawn(figure)
    body = whole[whole.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    body = _shortened(_renamed(_recolored(body), name))
    head, _, rest = body.partition(">")
    told = f"<title>{escape(title)}</title><desc>{escape(about)}</desc>"
    return Markup(_opened(head, name) + told + re.sub(r"\n\s*", "\n", rest))


@styled
def _drawn(figure: Figure) -> str:
    """What matplotlib writes of it; the white behind figure and axes is left out."""
    buffer = io.StringIO()
    undated: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=undated)
    return buffer.getvalue()


def _opened(head: str, name: str) -> str:
    """The tag of an SVG that is as wide as it was drawn, and narrower where the page is."""
    box = re.search(r'viewBox="([^"]*)"', head)
    corners = box[1].split() if box else ["0", "0", "480", "320"]
    width = float(corners[2]) / _POINTS
    # Narrower than six tenths, texts could not be read: there it scrolls.
    size = f"width:100%;max-width:{width:.0f}px;min-width:{min(0.6 * width, 620):.0f}px"
    return f'<svg id="{escape(name)}" viewBox="{" ".join(corners)}" role="img" style="{size}">'


def _recolored(body: str) -> str:
    for color, variable in _PAGE_COLORS.items():
        body = re.sub(rf"(fill|stroke): {color}", rf"\1: var({variable})", body)
    return _FONT.sub("font-family: var(--figure)", body)


def _shortened(body: str) -> str:
    """Points of lines to a hundredth of a point, of which no eye sees more."""
    return re.sub(r' d="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)


def _renamed(body: str, name: str) -> str:
    """Ids that are pointed to begin with a name of their own; the others are left out."""
    used = set(re.findall(r"url\(#([^)]+)\)", body)) | set(re.findall(r'href="#([^"]+)"', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    return re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body).replace("xlink:href=", "href=")
