"""Fits in processes of their own are the fits made one after the other, at one thread."""

import pytest
import torch

from pyrovae.apps.sweeps.fits import Fits, StaleRun
from pyrovae.apps.sweeps.grid import Combination
from pyrovae.apps.sweeps.sweep import sweep
from pyrovae.apps.sweeps.workers import in_processes

EVALUATION = {"num_particles": 30, "method": "importance"}
QUICK = {"epochs": 1, "latent": 2, "hidden": [20]}


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_they_leave_what_one_process_leaves(tmp_path, one_thread):
    arguments = {"prior": ["normal", "laplace"], "seeds": 1, "progress": False, **EVALUATION, **QUICK}
    side_by_side = sweep("digits", out=tmp_path, workers=2, **arguments)
    assert side_by_side.by_seed == sweep("digits", **arguments).by_seed
    said = []
    in_processes(Fits("digits", tmp_path, EVALUATION, None, "auto"), [], 2, said.append)
    assert said == []


def test_what_a_fit_refuses_is_said_and_another_fit_in_its_folder_raised(tmp_path):
    fits, said = Fits("digits", tmp_path, EVALUATION, None, "cpu"), []
    broken, kept = (
        Combination("one", {"prior": "normal", "likelihood": name, **QUICK}) for name in ("mixed", "binomial")
    )
    in_processes(fits, [(broken, 0)], 1, said.append)
    assert len(said) == 1 and "made of the columns of a table" in said[0]
    fits.measure(kept, 0)
    longer = Combination("one", {**kept.settings, "epochs": 2})
    with pytest.raises(StaleRun, match="was begun with epochs 1, not 2"):
        in_processes(
            Fits("digits", tmp_path, {**EVALUATION, "num_particles": 31}, None, "cpu"), [(longer, 0)], 1, print
        )
