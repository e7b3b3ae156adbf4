"""The command that writes the explorer of a run: one HTML file, decoded live in a browser."""

from argparse import ArgumentParser, Namespace
from typing import Any

import pyrovae as pv
from pyrovae.apps.arguments import Action, bring_back, check_parent, run_arguments
from pyrovae.apps.recipes import choose
from pyrovae.base.errors import InputError
from pyrovae.data.named import PARTS


def explore(p: ArgumentParser) -> Action:
    """Write one HTML page that decodes the latent plane live in a browser.

    example:
      pyrovae explore runs/digits --out explorer.html
      pyrovae explore runs/mnist --plane 0,3 --out explorer.html
    """
    run_arguments(p)
    p.add_argument("--out", default="explorer.html", metavar="FILE.html", help="of the page [explorer.html]")
    p.add_argument("--split", default="test", help="whose data are shown: train, valid or test [test]")
    p.add_argument("--plane", metavar="I,J", help="two latent coordinates [of more than two, principal axes]")
    p.add_argument("--site", help="which of several observed sites is shown")
    p.add_argument("--seed", type=int, default=0, help="of the draws [0]")
    return _explore


def _explore(given: Namespace) -> int:
    choose("split", given.split, PARTS)
    check_parent(given.out)
    plane, loaded = _plane(given.plane), bring_back(given)
    rows = loaded.split(given.split)
    report = pv.runs.best_report(given.run)
    how: dict[str, Any] = {"plane": plane, "site": given.site, "seed": given.seed, "report": _of(report, rows)}
    print(pv.explore(loaded.fit, rows, given.out, **how).summary())
    return 0


def _plane(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise InputError(f"--plane takes two coordinates as 0,1, got '{text}'") from None
    return first, second


def _of(report: Any, rows: Any) -> Any:
    """The report, where it is on these rows."""
    return report if report is not None and report.protocol and report.protocol.sha256 == rows.protocol.sha256 else None
