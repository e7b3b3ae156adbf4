"""What commands share. A command is a function that gives a parser its arguments and returns what carries them out.

Its docstring is its help: a sentence, and below it an example. What it needs is imported when it is carried out.
"""

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae.base.errors import InputError

Action = Callable[[Namespace], int]  # what was given -> exit status
Command = Callable[[ArgumentParser], Action]
PICTURES = (".png", ".svg", ".pdf")


def options_of(p: ArgumentParser) -> dict[str, bool]:
    """The options of a command, and whether a value stands behind each."""
    return {name: one.nargs != 0 for one in p._actions for name in one.option_strings}


_KEYWORD = re.compile(r"(?<![\w.-])([a-z]\w*)=(?!=)('[^']*'|\"[^\"]*\"|\[[^]]*\]|-?\w+(?:\.\w+)*)?")
_WORD = re.compile(r"(?<![\w.-])[a-z]+_[a-z_]+(?![\w=(.-])")
_VALUES = {"True": "yes", "False": "no"}


def in_options(text: str, options: Mapping[str, bool]) -> str:
    """What functions say of their keyword arguments, said of the options of a command; the others stay as they are.

    Args:
        text: of an error or a warning.
        options: as :func:`options_of` gives them.

    Example:
        >>> options = {"--site": True, "--particles": True, "--resume": False, "--no-vectorize": False}
        >>> in_options("give site= or vectorize=False; num_particles must be at least 1, got num_particles=0", options)
        'give --site or --no-vectorize; --particles must be at least 1, got --particles 0'
        >>> in_options("choose site='x.real', resume=True and plate='rows'", options)
        "choose --site x.real, --resume and plate='rows'"
    """
    text = _KEYWORD.sub(lambda found: _as_option(found[1], found[2], options) or found[0], text)
    return _WORD.sub(lambda found: _option(found[0], options) or found[0], text)


def _option(name: str, options: Mapping[str, bool]) -> str | None:
    """What a command calls a keyword argument, if it has it."""
    named = (f"--{one.replace('_', '-')}" for one in (name, name.removeprefix("num_")))
    return next((one for one in (*named, *(["--num"] if name == "num_data" else [])) if one in options), None)


def _as_option(name: str, value: str | None, options: Mapping[str, bool]) -> str | None:
    if value == "False" and f"--no-{name}" in options:
        return f"--no-{name}"
    option = _option(name, options)
    if option is None or value is None or not options[option]:
        return option
    return f"{option} {_VALUES.get(value, value.strip('[]').strip(chr(39) + chr(34)).replace(',', ''))}"


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


def keep_in(run: str, record: Any, *, quiet: bool = False) -> None:
    """Keeps a record in its run and says so; where it cannot be kept, as while a fit writes there, says why."""
    if type(record).__name__ not in pv.__all__:  # another's record, which could not be read again
        return
    try:
        pv.runs.save_report(run, record)
    except (InputError, OSError) as error:
        print(f"not kept in the run: {error}", file=sys.stderr)
        return
    if not quiet:
        print(f"kept in {run}")
