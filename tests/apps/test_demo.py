"""The demonstration keeps to its folder and beats its baselines."""

import pytest

import pyrovae as pv
from pyrovae.apps import demo as demonstration
from pyrovae.apps import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    assert demonstration.run(folder, epochs=40, num_particles=100) == 0
    return folder


def test_it_beats_both_baselines_on_the_same_rows(folder):
    digits = pv.data.load("digits")
    reports = {"vae": runs.load_report(folder / "vae"), **demonstration.baselines(digits)}
    table = pv.compare(reports)
    assert table.rows[0].name == "vae"
    assert all(row.difference + 3 * row.difference_se < 0 for row in table.rows[1:])


def test_baselines_have_exact_guides():
    for report in demonstration.baselines(pv.data.load("digits")).values():
        assert (report.pareto_k == -float("inf")).all()
        assert report.mc_se_log_evidence.max() < 1e-10


def test_again_it_overwrites_its_own_and_nothing_else(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "figures" / "training.png").write_bytes(b"old")
    assert demonstration.run(folder, epochs=1, num_particles=30) == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "figures" / "training.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(pv.InputError, match="did not make"):
        demonstration.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
