"""Each notebook runs from top to bottom without the network, and its two forms say the same."""

from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
TEXTS = sorted(FOLDER.glob("*.py"))
# Sockets to anywhere but this machine are shut; the kernel itself talks over loopback.
OFFLINE = """
import socket as _socket
_connect = _socket.socket.connect
def _local_only(self, address):
    if self.family in (_socket.AF_INET, _socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError("no network in a notebook")
    return _connect(self, address)
_socket.socket.connect = _local_only
"""


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_it_runs(text):
    notebook = jupytext.read(text)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(OFFLINE))
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_the_notebook_and_its_text_agree(text):
    source = [(cell.cell_type, cell.source) for cell in jupytext.read(text).cells]
    paired = [(cell.cell_type, cell.source) for cell in jupytext.read(text.with_suffix(".ipynb")).cells]
    assert source == paired, f"run: jupytext --sync {text.name}"


def test_there_are_two_tours():
    assert [path.stem for path in TEXTS] == ["01_two_programs", "02_trusting_the_evidence"]
