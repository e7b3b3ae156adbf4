"""Each notebook runs from top to bottom without the network, and its two forms say the same.

Here in short: a line ``epochs = 150  # short: 10`` is run as ``epochs = 10``. ``make notebooks`` runs them as they are,
in a kernel, and holds their numbers against those kept.
"""

import json
import re
import runpy
import socket
import warnings
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import pyro
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "notebooks"
TEXTS = sorted(FOLDER.glob("[0-9]*.py"))
NUMBERS = json.loads((FOLDER / "numbers.json").read_text())
OF_EACH = pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)


def in_short(source):
    """The program with each marked line in its short form."""
    return re.sub(r"^(\s*\w+ = ).*  # short: (.*)$", r"\1\2", source, flags=re.MULTILINE)


@pytest.fixture
def offline(monkeypatch):
    """Sockets to anywhere but this machine are shut."""
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError("no network in a notebook")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def settings_undone():
    """What a notebook sets for itself is not left to the tests after it."""
    yield
    torch.set_default_dtype(torch.float32)
    plt.close("all")
    pyro.clear_param_store()


@OF_EACH
def test_it_runs_in_short(text, tmp_path, monkeypatch, offline, settings_undone, graphs_as_traced):
    """As a program, where what it imports is imported already; warnings are for its readers."""
    program = tmp_path / text.name
    program.write_text(in_short(text.read_text()))
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        runpy.run_path(str(program), run_name="__main__")


@OF_EACH
def test_the_notebook_and_its_text_agree(text):
    source = [(cell.cell_type, cell.source) for cell in jupytext.read(text).cells]
    paired = [(cell.cell_type, cell.source) for cell in jupytext.read(text.with_suffix(".ipynb")).cells]
    assert source == paired, f"run: jupytext --sync {text.name}"


@OF_EACH
def test_the_notebook_was_run_as_it_stands(text):
    cells = [cell for cell in jupytext.read(text.with_suffix(".ipynb")).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run: make notebooks"
    failed = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not failed


@OF_EACH
def test_it_says_what_a_reader_will_be_able_to_do_and_asks_three_exercises(text):
    source = text.read_text()
    assert "will be able to" in source
    assert len(set(re.findall(r"^# #+ Exercise (\d)", source, flags=re.MULTILINE))) == 3
    # Each is checked twice: what the reader puts in place of the dots, and the solution at the end, which must be right.
    assert len(re.findall(r"^answer_\d = \.\.\.$", source, flags=re.MULTILINE)) == 3
    assert len(re.findall(r"^assert .*\.right", source, flags=re.MULTILINE)) == 3


def test_every_notebook_has_a_number_kept():
    assert sorted(NUMBERS) == [path.stem for path in TEXTS]
    assert all(NUMBERS.values())
