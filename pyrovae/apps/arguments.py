"""What commands share. A command is a function that gives a parser its arguments and returns what carries them out.

Its docstring is its help: a sentence, and below it an example. What it needs is imported when it is carried out.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae.base.errors import InputError

Action = Callable[[Namespace], int]  # what was given -> exit status
Command = Callable[[ArgumentParser], Action]
PICTURES = (".png", ".svg", ".pdf")


def run_arguments(p: ArgumentParser) -> None:
    """Of every command that brings a run back."""
    p.add_argument("run", metavar="RUN", help="folder of a run")
    p.add_argument("--program", metavar="FILE.py", help="the program file, for a run of your own programs")
    p.add_argument("--data-dir", help="where the files of named data sets lie [PYROVAE_DATA]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto: cuda where there is one]")


def bring_back(given: Namespace) -> Any:
    """The run that :func:`run_arguments` name, as :func:`pyrovae.runs.bring_back` gives it."""
    return pv.runs.bring_back(given.run, program=given.program, data_dir=given.data_dir, device=given.device)


def check_parent(path: str | None) -> None:
    """Raises InputError, before any work, where a file could not be written."""
    if path is not None and path != "-" and not Path(path).absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {Path(path).absolute().parent}; make it first")


def check_picture(path: str | None) -> None:
    """Raises InputError where a name is not that of a picture."""
    if path is not None and Path(path).suffix.lower() not in PICTURES:
        raise InputError(f"{path}: give a name that ends in {', '.join(PICTURES)}")


def deliver(path: str | None, record: Any, *, interrupted: bool = False) -> None:
    """Prints the account of a record and writes it as JSON where that is asked for; "-" prints the JSON instead."""
    from pyrovae.base import storage
    from pyrovae.base.records import as_json

    account = {**record.to_dict(), "interrupted": True} if interrupted else record.to_dict()
    if path == "-":
        print(as_json(account), end="")
        return
    print(record.summary())
    if path:
        storage.write_whole(Path(path), as_json(account).encode())


def draw_record(path: str | None, record: Any) -> None:
    """Draws a record where that is asked for."""
    if path is not None:
        pv.figures.save(pv.figures.draw(record), path)
        print(path, file=sys.stderr)
