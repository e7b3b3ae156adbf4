"""Each notebook runs from top to bottom without the network, and its two forms say the same."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
TEXTS = sorted(FOLDER.glob("*.py"))
# Sockets to anywhere but this machine are shut.
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
    """As a program: in a kernel the same cells take up to ten times as long beside another process."""
    run = f"import runpy; runpy.run_path({str(text)!r}, run_name='__main__')"
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE + run], cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_the_notebook_and_its_text_agree(text):
    source = [(cell.cell_type, cell.source) for cell in jupytext.read(text).cells]
    paired = [(cell.cell_type, cell.source) for cell in jupytext.read(text.with_suffix(".ipynb")).cells]
    assert source == paired, f"run: jupytext --sync {text.name}"


def test_there_are_two_tours():
    assert [path.stem for path in TEXTS] == ["01_two_programs", "02_trusting_the_evidence"]
