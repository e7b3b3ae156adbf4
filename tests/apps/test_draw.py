"""The commands that draw: the files that they leave."""

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.apps import cli, draw


def test_sample_and_figures(run, tmp_path):
    assert cli.main(["sample", str(run), "--num", "5", "--out", str(tmp_path / "x.npy")]) == 0
    draws = np.load(tmp_path / "x.npy")
    assert draws.shape == (5, 8, 8) and draws.min() >= 0 and draws.max() <= 16
    assert cli.main(["sample", str(run), "--num", "5", "--out", str(tmp_path / "x.png")]) == 0
    assert cli.main(["figures", str(run), "--out", str(tmp_path / "figures")]) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"training.png", "reconstructions.png", "samples.png", "latents.png", "interpolation.png"} <= names
    assert "manifold.png" in names  # two latents
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_account_is_drawn_where_there_is_a_report(run, account, tmp_path):
    assert cli.main(["figures", str(run), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "account.png").read_bytes().startswith(b"\x89PNG")


def test_figures_that_have_no_place_are_left_out(run):
    oracle = pv.oracles.ppca(5, 3)
    x, _ = oracle.draw(20, seed=0)
    fitted = pv.runs.load(run)
    drawn = draw.run_figures(fitted, pv.runs.dataset(run).test)
    assert set(drawn) == {"training", "reconstructions", "samples", "latents", "interpolation", "manifold"}
    model, guide = oracle.model, oracle.guide
    vectors = draw.run_figures(pv.Fit(model, guide, fitted.history), x)
    assert set(vectors) == {"training", "latents"}


def test_values_of_no_site_that_is_like_a_datum_are_refused(tmp_path):
    draws = pv.sample(pv.oracles.ppca(5, 3).model, torch.zeros(2, 5).double(), num_samples=4)
    with pytest.raises(pv.InputError, match="no site draws values of the shape of a datum"):
        draw._values_like(draws.values, torch.Size([7]), tmp_path / "x.npy")
