"""Fits in processes of their own are the fits made one after the other, at one thread."""

import time

import pytest
import torch

from pyrovae.apps.sweeps.fits import Fits, StaleRun
from pyrovae.apps.sweeps.grid import Combination
from pyrovae.apps.sweeps.sweep import sweep
from pyrovae.apps.sweeps.workers import in_processes
from pyrovae.base import storage

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
    said = []
    broken, kept = (
        Combination("one", {"prior": "normal", "likelihood": name, **QUICK}) for name in ("mixed", "binomial")
    )
    Fits("digits", tmp_path, EVALUATION, None, "cpu").measure(kept, 0)
    fits = Fits("digits", tmp_path, {**EVALUATION, "num_particles": 31}, None, "cpu")
    longer = Combination("one", {**kept.settings, "epochs": 2})
    with pytest.raises(StaleRun, match="was begun with epochs 1, not 2"):
        in_processes(fits, [(broken, 0), (longer, 0)], 1, said.append)
    assert len(said) == 1 and "made of the columns of a table" in said[0]


def test_a_stop_ends_every_fit_at_its_next_step(tmp_path):
    """One that would take a minute is left as a run to go on with; one that was handed over is not begun."""
    fits = Fits("digits", tmp_path, EVALUATION, None, "cpu")
    settings = {"prior": "normal", **QUICK, "batch_size": 1200}
    short, long, late = (
        Combination(name, {**settings, "epochs": epochs})
        for name, epochs in (("short", 1), ("long", 5000), ("late", 5000))  # too few to compile a step
    )

    def say(line):
        if line.startswith("[1/"):
            while not storage.holds_run(fits.folder(long, 0)):
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_processes(fits, [(short, 0), (long, 0), (late, 0)], 1, say)
    progress = storage.read(fits.folder(long, 0))[0]["progress"]
    assert progress["interrupted"] and progress["epoch"] < 5000
    assert not storage.holds_run(fits.folder(late, 0)) and fits.is_done(short, 0)
