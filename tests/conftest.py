"""What every test starts from: an empty parameter store and validation on; and nothing left behind."""

import os
from pathlib import Path

import pyro
import pytest
import torch


def pytest_configure(config):
    config.addinivalue_line("markers", "global_params: the test leaves parameters in Pyro's global store")


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
def data_folder():
    """The folder of MNIST and Fashion-MNIST files that the environment names."""
    if not os.environ.get("PYROVAE_DATA"):
        pytest.skip("PYROVAE_DATA is not set")
    return Path(os.environ["PYROVAE_DATA"]).resolve()
