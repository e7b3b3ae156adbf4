"""What every test starts from: an empty parameter store and validation on; and nothing left behind.

Tests run in as many processes as there are cores, each with one thread: a process with several waits for the others.
"""

import atexit
import gc
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

# Half a minute each and more: at the end, the other processes would wait for them.
FIRST = ("test_notebooks.py", "test_readme.py", "test_demo.py", "test_claims.py", "test_encoder_for.py")
CELLS = {}  # of the table of strangers' programs, as reports of tests bring them from every process
COMBINATIONS = Counter()  # (axes, whether they fit) -> how many, likewise


def pytest_configure(config):
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # of the programs that tests run
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # else kernels go by a pool, whose processes import torch
    config.addinivalue_line("markers", "global_params: the test leaves parameters in Pyro's global store")
    config.addinivalue_line("markers", "combinations: one of all pairs of choices, of which the suite runs a sample")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_collection_finish():
    """What was imported and collected, a million objects, is no garbage: a look through them takes half a second.

    Through what tests leave it takes a tenth of one; at Python's own threshold that is a tenth of the suite.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 50)
    atexit.register(gc.unfreeze)


def pytest_runtest_logreport(report):
    CELLS.update({tuple(cell): word for name, (cell, word) in report.user_properties if name == "cell"})
    if report.when == "call" and report.passed:
        COMBINATIONS.update(tuple(found) for name, found in report.user_properties if name == "combination")


def pytest_terminal_summary(terminalreporter):
    for (axes, word), number in sorted(COMBINATIONS.items()):
        terminalreporter.write_line(f"{axes}: {number} {word}")


def pytest_sessionfinish(session):
    if CELLS and not hasattr(session.config, "workerinput"):
        from strangers.table import write_if_whole

        write_if_whole(CELLS)


@pytest.fixture(autouse=True)
def clean_pyro(request):
    """An empty global parameter store and validation on; afterwards the store is empty, unless the test is marked."""
    pyro.clear_param_store()
    pyro.enable_validation(True)
    yield
    left = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert torch.get_default_dtype() == torch.float32, "a test changed the default dtype"
    if request.node.get_closest_marker("global_params") is None:
        assert not left, f"parameters left in the global store: {left}"


@pytest.fixture
def graphs_as_traced():
    """Graphs are traced, checked and replayed, but not compiled: the compiler takes seconds for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch._inductor.compile_fx.compile_fx", lambda module, inputs, **_: module)
        yield


@pytest.fixture
def graphs(request):
    """What graphs become: "kernels", or themselves, "as traced"."""
    if request.param == "as traced":
        request.getfixturevalue("graphs_as_traced")


@pytest.fixture
def real_data():
    """The folder of real data that the environment names."""
    if not os.environ.get("PYROVAE_DATA"):
        pytest.skip("PYROVAE_DATA is not set: name a folder with MNIST/raw/*.gz and binarized_mnist/*.npz")
    return Path(os.environ["PYROVAE_DATA"]).resolve()


@pytest.fixture
def rows_file(tmp_path):
    """A function that saves an array and gives its path."""

    def save(array, name="rows.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return save
