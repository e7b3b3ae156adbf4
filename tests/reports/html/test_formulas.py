"""Formulas of docstrings, set as pictures; every formula of the package can be set."""

import re
from pathlib import Path

import pytest

import pyrovae
from pyrovae.reports.html.formulas import formulas, typeset

SOURCES = [path for path in sorted(Path(pyrovae.__file__).parent.rglob("*.py")) if path.name != "formulas.py"]
FORMULAS = sorted({one for path in SOURCES for one in formulas(path.read_text().replace('"""', "\n\n"))})


def test_there_are_formulas():
    assert len(FORMULAS) > 20


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_formula_is_set(formula):
    shown = typeset(formula)
    assert "<svg" in shown, formula
    assert 'role="img"' in shown and "http" not in shown
    ids = re.findall(r' id="([^"]*)"', shown)
    assert len(set(ids)) == len(ids) and all(one.startswith("f") for one in ids)


def test_what_cannot_be_set_stays_latex():
    assert typeset(r"\nosuchcommand{x} < 1") == r"<code>\nosuchcommand{x} &lt; 1</code>"
