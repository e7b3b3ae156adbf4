"""A small run of the command line that the tests of commands share; what is kept in it may change, its fit does not."""

import pytest

from pyrovae.apps import cli

WORDS = ["fit", "--data", "digits", "--latent", "2", "--hidden", "16", "--epochs", "2"]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "run"
    assert cli.main([*WORDS, "--out", str(folder)]) == 0
    return folder
