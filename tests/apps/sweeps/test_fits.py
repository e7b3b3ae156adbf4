"""One fit of a sweep: what is kept of it, what is refused, and what cannot be told of its code."""

import math

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.apps.sweeps.fits import Fits, folder_of
from pyrovae.apps.sweeps.grid import Combination
from pyrovae.base import storage
from pyrovae.base.errors import InputError

EVALUATION = {"num_particles": 30, "method": "importance"}
NORMAL = Combination("normal", {"prior": "normal", "epochs": 1, "latent": 2, "hidden": [20]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fits")


@pytest.fixture(scope="module")
def measured(folder):
    return Fits("digits", folder, EVALUATION, None, "cpu").measure(NORMAL, 0)


def test_a_fit_is_done_once_its_report_is_kept(measured, folder):
    fits = Fits("digits", folder, EVALUATION, None, "cpu")
    assert fits.is_done(NORMAL, 0) and not fits.is_done(NORMAL, 1)
    assert not Fits("digits", folder, {**EVALUATION, "num_particles": 40}, None, "cpu").is_done(NORMAL, 0)
    assert not Fits("digits", None, EVALUATION, None, "cpu").is_done(NORMAL, 0)
    assert pv.runs.load_report(folder / "normal" / "seed-0").log_evidence.equal(measured.report.log_evidence)


def test_what_is_kept_is_read(measured, folder, monkeypatch):
    monkeypatch.setattr(pv, "fit", None)
    again = Fits("digits", folder, EVALUATION, None, "cpu").measure(NORMAL, 0)
    assert again.report.log_evidence.equal(measured.report.log_evidence) and again[1:] == measured[1:]


def test_what_is_kept_is_read_once(measured, folder, monkeypatch):
    times, read = [], storage.read

    def counted(run):
        times.append(run)
        return read(run)

    monkeypatch.setattr(storage, "read", counted)
    Fits("digits", folder, EVALUATION, None, "cpu").measure(NORMAL, 0)
    assert len(times) == 1


def test_other_settings_in_the_same_folder_are_refused(measured, folder):
    faster = NORMAL._replace(settings={**NORMAL.settings, "lr": 0.01})
    with pytest.raises(InputError, match=r"was begun with lr 0.002, not 0.01; use another out"):
        Fits("digits", folder, EVALUATION, None, "cpu").measure(faster, 0)


def test_a_fit_of_another_length_is_refused(measured, folder):
    longer = NORMAL._replace(settings={**NORMAL.settings, "epochs": 2})
    with pytest.raises(InputError, match="was begun with epochs 1, not 2; use another out"):
        Fits("digits", folder, EVALUATION, None, "cpu").measure(longer, 0)


def test_other_rows_under_the_same_name_are_refused(tmp_path):
    rows = tmp_path / "rows.npy"
    for scale in (1.0, 2.0):
        np.save(rows, scale * np.random.RandomState(0).randn(60, 3).astype("float32"))
        fits = Fits(rows, tmp_path / "out", EVALUATION, None, "cpu")
        if scale == 1.0:
            fits.measure(NORMAL, 0)
            continue
        with pytest.raises(InputError, match=r"was fitted to other rows of rows\.npy"):
            fits.measure(NORMAL, 0)


def test_a_code_that_cannot_be_taken_apart_has_no_active_units(monkeypatch):
    def refusing(*args, **options):
        raise InputError("site 'z' of the guide is auxiliary")

    monkeypatch.setattr(pv, "surgery", refusing)
    assert math.isnan(Fits("digits", None, EVALUATION, None, "cpu").measure(NORMAL, 0).active_units)


def test_folders_have_plain_names():
    assert folder_of("vamp:500, gated:300,300, latent 4") == "vamp-500+gated-300-300+latent-4"
