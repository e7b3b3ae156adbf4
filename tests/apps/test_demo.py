"""The demonstration keeps to its folder and beats its baselines."""

import pytest

import pyrovae as pv
from pyrovae.apps import demo as demonstration
from pyrovae.apps import runs


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of a demonstration, and the baselines that it computed; a second one takes them as they are."""
    folder, found, patch = tmp_path_factory.mktemp("demo") / "demo", {}, pytest.MonkeyPatch()
    compute = demonstration.baselines

    def baselines(digits):
        if not found:
            found.update(compute(digits))
        return found

    patch.setattr(demonstration, "baselines", baselines)
    patch.setattr(demonstration, "BUDGET", 500)  # few data climb, which the tests do not look at
    patch.setattr(demonstration, "GRID", (1, 320))  # the best of all is among them
    assert demonstration.run(folder, epochs=30, num_particles=100) == 0
    yield folder, found
    patch.undo()


def test_it_beats_both_baselines_on_the_same_rows(demo):
    folder, baselines = demo
    table = pv.compare({"vae": runs.load_report(folder / "vae"), **baselines})
    assert table.rows[0].name == "vae" and len(table.rows) == 3
    assert all(row.difference + 3 * row.difference_se < 0 for row in table.rows[1:])


def test_baselines_have_exact_guides(demo):
    for report in demo[1].values():
        assert (report.pareto_k == -float("inf")).all()
        assert report.mc_se_log_evidence.max() < 1e-10


def test_again_it_overwrites_its_own_and_nothing_else(demo):
    folder, _ = demo
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
