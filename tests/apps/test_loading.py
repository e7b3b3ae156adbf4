"""A user's program file, as the commands take it."""

import pytest

import pyrovae as pv
from pyrovae.apps import loading as commands

GOOD = "def model(x): ...\ndef guide(x): ...\n"
FILES = {
    "model and guide": GOOD,
    "build()": GOOD + "def build():\n    return model, guide\n",
    "build(dataset)": GOOD + "def build(dataset):\n    return model, guide\n",
}
BAD = {
    "neither": ("x = 1\n", "defines neither model and guide nor build"),
    "only a model": ("def model(x): ...\n", "defines neither model and guide nor build"),
    "a mistake": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "no Python": ("def model(:\n", "SyntaxError"),
    "a wrong build": ("def build():\n    return 1\n", "TypeError"),
}


@pytest.mark.parametrize("name", FILES)
def test_programs_are_found(name, tmp_path):
    (tmp_path / "mine.py").write_text(FILES[name])
    model, guide, digest = commands.load_program(str(tmp_path / "mine.py"), pv.data.load("digits"))
    assert (model.__name__, guide.__name__, len(digest)) == ("model", "guide", 64)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_says_why(name, tmp_path):
    text, message = BAD[name]
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(pv.InputError, match=message):
        commands.load_program(str(tmp_path / "mine.py"), pv.data.load("digits"))


def test_a_file_that_is_missing_or_no_python(tmp_path):
    with pytest.raises(pv.InputError, match="no such file"):
        commands.load_program(str(tmp_path / "none.py"), pv.data.load("digits"))
    (tmp_path / "mine.txt").write_text(GOOD)
    with pytest.raises(pv.InputError, match=r"must end in \.py"):
        commands.load_program(str(tmp_path / "mine.txt"), pv.data.load("digits"))
