"""Panels: the numbers are those of the functions that measure them, and an exact pair's are known."""

import math

import pytest
import torch
from examples.fits_of_codes import DIGITS, OBJECTIVES, autoencoder, panels, vae

import pyrovae as pv
from pyrovae.base.errors import InputError


def test_numbers_are_those_of_surgery_and_evaluate():
    record, data = panels(), DIGITS.test[:50]
    assert record.names == list(OBJECTIVES)
    row = record.named_rows()["both"]
    fit = vae("both")
    again = pv.evaluate(fit.model, fit.guide, data, num_particles=100, budget=2000, progress=False)
    assert row["log_evidence"] == pytest.approx(float(again.log_evidence.mean()), rel=1e-12)
    parts = pv.surgery(fit.model, fit.guide, data, progress=False)
    assert (row["marginal_kl"], row["se_marginal_kl"]) == (parts.marginal_kl.mean, parts.marginal_kl.data_se)
    means, labels = pv.posterior(fit.model, fit.guide, data).means["z"][0].double(), data.labels
    distance = torch.cdist(means, means).fill_diagonal_(math.inf)
    assert row["neighbours"] == float((labels[distance.argmin(1)] == labels).double().mean())


def test_the_terms_do_what_they_say():
    """KL alone makes the prior of all; reconstruction alone leaves it by far; data SEs are ten times smaller."""
    rows = panels().named_rows()
    assert rows["KL"]["marginal_kl"] < 0.1 < rows["both"]["marginal_kl"] + 0.1 < rows["reconstruction"]["marginal_kl"]
    assert rows["KL"]["neighbours"] < rows["both"]["neighbours"]
    assert rows["both"]["log_evidence"] > max(rows[name]["log_evidence"] for name in ("KL", "reconstruction"))


def test_without_labels_neighbours_are_unknown():
    oracle = pv.oracles.ppca(5, 2)
    record = pv.latent_panels({"exact": oracle}, oracle.draw(30, seed=0)[0], num_particles=50, progress=False)
    assert record.alike["exact"].isnan().all() and "SE" in record.summary()
    assert record.to_dict()["fits"]["exact"]["neighbours"] is None


def test_an_autoencoder_has_no_panel():
    with pytest.raises(InputError, match="'z' is the code of an autoencoder"):
        pv.latent_panels({"autoencoder": autoencoder()}, DIGITS.test[:10], progress=False)


def test_no_fit_is_none():
    with pytest.raises(InputError, match="expected fits by name"):
        pv.latent_panels({}, DIGITS.test)
