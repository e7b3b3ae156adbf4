"""A small run of the command line that the tests of commands share; what is kept in it may change, its fit does not."""

import contextlib
import io

import pytest

from pyrovae.apps import cli

WORDS = ["fit", "--data", "digits", "--latent", "2", "--hidden", "16", "--epochs", "2"]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "run"
    assert cli.main([*WORDS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def few_labels(tmp_path_factory):
    """A run whose classes are summed out, but for 100 labels."""
    folder = tmp_path_factory.mktemp("commands") / "few-labels"
    assert cli.main([*WORDS, "--kl-warmup", "0", "--semi-supervised", "100", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def account(run):
    """What the command printed as it evaluated the run; its report is kept there."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.main(["evaluate", str(run), "--particles", "50", "--budget", "500"]) == 0
    return printed.getvalue()
