"""The settings of a fit: what they are where nothing is said, and what the record of a run keeps."""

import pytest

import pyrovae as pv
from pyrovae.apps import fit


def test_schedules_start_at_one():
    assert all(schedule(0.0) == 1.0 for schedule in fit.SCHEDULES.values())
    assert fit.SCHEDULES["cosine"](0.5) == pytest.approx(0.5)


def test_a_record_is_full_and_follows_the_data():
    record = fit.record(data="mnist-static", latent=3)
    assert set(record) == set(fit.SETTINGS)
    assert (record["latent"], record["hidden"], record["lr"]) == (3, [400, 400], 2e-3)
    assert fit.record()["latent"] == 16 and fit.record(data="a/path.csv")["latent"] == 10
    assert fit.record(kl_warmup=0.0)["kl_warmup"] == 0.0
    with pytest.raises(pv.InputError, match="--lr must be positive"):
        fit.record(lr=0.0)
