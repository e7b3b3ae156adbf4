"""Kinds by name, and what the command line says of columns."""

import subprocess
import sys

import pytest

from pyrovae.base.errors import InputError
from pyrovae.data.tables import names


def test_columns_on_the_command_line():
    assert names.parse_columns("fixed acidity:real, a:b:count,s:low<mid<high") == {
        "fixed acidity": "real",
        "a:b": "count",
        "s": ["low", "mid", "high"],
    }
    for text in ("quality", ":real", "a:", "a:real,"):
        with pytest.raises(InputError, match="columns: expected name:kind, set apart by commas"):
            names.parse_columns(text)


def test_kinds_are_checked_and_levels_are_none_of_them():
    names.check_kinds({"a": "real", "b": ["low", "high"], "c": "ignored"})
    with pytest.raises(InputError, match='column "a": unknown kind \'rael\'; did you mean "real"'):
        names.check_kinds({"a": "rael"})


def test_names_are_read_without_torch():
    code = "import sys, pyrovae.data.tables.names; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
