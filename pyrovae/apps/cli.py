"""The command ``pyrovae``: the table of its commands, each with its arguments in its own file, and what all ends in.

Only parsing runs for ``--help``; what a command needs is imported when it is carried out.
"""

import argparse
import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from pyrovae import __version__
from pyrovae.apps import draw, fit, measure
from pyrovae.apps.arguments import Command, in_options, options_of
from pyrovae.apps.commands import ask, complete, explore, impute, listing, new, reference, report, sweep
from pyrovae.base.errors import InputError, LostDigits, UntrustedEvidence, nearest

COMMANDS: dict[str, Command] = {
    "fit": fit.fit,
    **measure.COMMANDS,
    "impute": impute.impute,
    "ask": ask.ask,
    "sweep": sweep.sweep,
    "sample": draw.sample,
    "complete": complete.complete,
    "figures": draw.draw,
    "report": report.report,
    "explore": explore.explore,
    "list": listing.listing,
    "reference": reference.reference,
    "new": new.new,
    "demo": draw.demo,
}


class _Parser(argparse.ArgumentParser):
    """One line for an error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"pyrovae: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The command line, without importing anything heavy."""
    top = _Parser(
        prog="pyrovae",
        description="Variational autoencoders as probabilistic programs, with every nat accounted for.",
        epilog="example:\n  pyrovae fit --data digits --out runs/digits && pyrovae evaluate runs/digits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"pyrovae {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary, _, example = (inspect.getdoc(command) or "").partition("\n\n")
        one = commands.add_parser(
            name,
            help=summary[0].lower() + summary[1:].removesuffix("."),
            description=summary,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(action=command(one), options=options_of(one))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one command: 0 done, 2 bad input, 1 any other failure, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        return _fail(f"error: no command '{words[0]}':{nearest(words[0], COMMANDS)} there are {', '.join(COMMANDS)}", 2)
    given = parser().parse_args(words)
    try:
        with warnings.catch_warnings():
            for said in (UntrustedEvidence, LostDigits):  # by the printed account
                warnings.simplefilter("ignore", said)
            warnings.showwarning = lambda message, *where: _say(in_options(str(message), given.options))
            return given.action(given)
    except InputError as error:
        return _fail(f"error: {in_options(str(error), given.options)}", 2)
    except KeyboardInterrupt:
        return _fail("interrupted, with nothing finished to keep", 130)
    except BrokenPipeError:  # the reader of a pipe had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("PYROVAE_TRACEBACK"):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        return _fail(f"error: {text} (set PYROVAE_TRACEBACK=1 to see where)", 1)


def _fail(message: str, status: int) -> int:
    _say(message)
    return status


def _say(message: str) -> None:
    print(f"pyrovae: {message}", file=sys.stderr)
