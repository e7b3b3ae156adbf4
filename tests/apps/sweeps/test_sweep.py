"""A sweep is fits and evaluations as one would make them by hand; stopped, it goes on; what diverges is told."""

import pytest
import torch

import pyrovae as pv
from pyrovae.apps import fit, loading
from pyrovae.apps.sweeps.fits import Fits
from pyrovae.apps.sweeps.sweep import sweep
from pyrovae.base.errors import InputError, Interrupted

QUICK = {"epochs": 1, "num_particles": 30, "method": "importance", "latent": 2, "hidden": [20]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def table(folder):
    return sweep("digits", prior=["normal", "mixture:3"], seeds=2, out=folder, progress=False, **QUICK)


def test_each_fit_is_the_one_made_by_hand(table, folder):
    assert sorted(table.row_names()) == ["mixture:3", "normal"]
    settings = {name: value for name, value in QUICK.items() if name not in ("num_particles", "method")}
    record = fit.record(data="digits", prior="mixture:3", seed=1, **settings)
    digits = pv.data.load("digits")
    model, guide, record = loading.pair_of(record, digits, None)
    fitted = pv.fit(model, guide, digits.train, valid=digits.valid, **fit.training(record), progress=False)
    by_hand = pv.evaluate(
        fitted.model, fitted.guide, digits.test, num_particles=30, method="importance", progress=False
    )
    assert table.by_seed["mixture:3"][1] == float(by_hand.log_evidence.mean())
    kept = pv.runs.load_report(folder / "mixture-3" / "seed-1")
    assert torch.equal(kept.log_evidence, by_hand.log_evidence)


def test_the_table_holds_what_was_asked(table):
    assert set(table.beside) == {"active units", "fit, s"}
    assert all(0 <= units <= 2 for units in table.beside["active units"])
    assert all(seconds > 0 for seconds in table.beside["fit, s"])
    assert all(row.num_seeds == 2 for row in table.rows)


def test_what_is_there_is_not_done_again(table, folder, monkeypatch):
    monkeypatch.setattr(pv, "evaluate", None)
    again = sweep("digits", prior=["normal", "mixture:3"], seeds=2, out=folder, progress=False, **QUICK)
    assert again == table


def test_stopped_it_goes_on_where_it_was(table, tmp_path, monkeypatch):
    evaluate, calls = pv.evaluate, []

    def stopping(*args, **options):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(*args, **options)

    monkeypatch.setattr(pv, "evaluate", stopping)
    arguments = {"prior": ["normal", "mixture:3"], "seeds": 2, "out": tmp_path, "progress": False, **QUICK}
    with pytest.raises(Interrupted) as stop:
        sweep("digits", **arguments)
    assert sorted(row.num_seeds for row in stop.value.partial.rows) == [1, 2]
    assert sweep("digits", **arguments).by_seed == table.by_seed
    assert len(calls) == 5


def test_a_fit_that_diverges_is_counted_out_and_told(monkeypatch):
    original = Fits.measure

    def diverging(self, combination, seed):
        if (combination.name, seed) == ("mixture:3", 1):
            raise FloatingPointError("site 'z': loss is NaN in epoch 1")
        return original(self, combination, seed)

    monkeypatch.setattr(Fits, "measure", diverging)
    table = sweep("digits", prior=["normal", "mixture:3"], seeds=2, progress=False, **QUICK)
    assert {row.name: row.num_seeds for row in table.rows} == {"normal": 2, "mixture:3": 1}
    assert "diverged: mixture:3, seed 1: site 'z': loss is NaN" in str(table)


def test_what_an_objective_refuses_is_left_out_and_told():
    guides = ["normal", "low-rank-normal", "student-t"]
    table = sweep("digits", guide=guides, objective="free-bits", seeds=2, progress=False, **QUICK)
    assert {row.name: row.num_seeds for row in table.rows} == {"normal": 2, "student-t": 2}
    assert "left out: low-rank-normal: site 'z'" in str(table)


def test_a_mass_beside_a_density_is_refused_before_more_is_fitted(monkeypatch):
    fitted, measure = [], Fits.measure
    monkeypatch.setattr(Fits, "measure", lambda self, one, seed: fitted.append(one.name) or measure(self, one, seed))
    with pytest.raises(InputError, match="'binomial' and 'normal' cannot be compared: the likelihood of one is a mass"):
        sweep("digits", likelihood=["binomial", "normal", "poisson"], seeds=1, progress=False, **QUICK)
    assert fitted == ["binomial", "normal"]


def test_data_of_ones_own_need_no_name(capsys):
    table = sweep(pv.data.load("digits"), seeds=[3], **{**QUICK, "latent": [1, 2]})
    assert sorted(table.row_names()) == ["latent 1", "latent 2"]
    assert "[2/2] latent 2, seed 3: log p(x)" in capsys.readouterr().err


REFUSED = {
    "one combination": ({"prior": "normal"}, "at least two combinations"),
    "one that can be": ({"prior": ["normal", "gamma"]}, "left out: gamma: prior 'gamma' is over positive latents"),
    "no seed": ({"prior": ["normal", "laplace"], "seeds": 0}, "seeds must be at least 1"),
    "workers without a folder": ({"prior": ["normal", "laplace"], "workers": 2}, "give out, a folder"),
    "a seed twice": ({"prior": ["normal", "laplace"], "seeds": [1, 1]}, "each once"),
    "an unknown name": ({"prior": ["normal", "laplas"]}, 'did you mean "laplace"'),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_swept_is_refused_before_anything_is_fitted(settings, words, monkeypatch):
    monkeypatch.setattr(pv, "fit", None)
    with pytest.raises(InputError, match=words):
        sweep("digits", **settings)


def test_data_without_a_name_are_not_kept(tmp_path):
    with pytest.raises(InputError, match="give the data's name or path"):
        sweep(pv.data.load("digits"), latent=[1, 2], out=tmp_path)


def test_all_seeds_count_where_a_step_is_to_be_compiled(monkeypatch):
    original, told = pv.fit, []
    monkeypatch.setattr(
        pv, "fit", lambda *args, **options: told.append(options["num_fits"]) or original(*args, **options)
    )
    sweep("digits", prior=["normal", "laplace"], seeds=[0, 4, 7], progress=False, **QUICK)
    assert told == [3] * 6
