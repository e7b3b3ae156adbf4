"""Baselines by their names: every one on data that it is for, in the same units and on the same rows as a VAE."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

import pyrovae as pv
from pyrovae.apps.sweeps.baselines import baseline, is_seeded
from pyrovae.apps.sweeps.sweep import sweep
from pyrovae.programs.baselines import BASELINES

QUICK = {"epochs": 1, "num_particles": 30, "method": "importance", "latent": 2, "hidden": [10], "progress": False}
SMALL = {"ppca": "ppca:1", "factor-analysis": "factor-analysis:1", "mixture": "mixture:2"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of two real and one positive column, of unlike scales, with gaps, and one of its answers."""
    path, noise = tmp_path_factory.mktemp("tables") / "table.csv", np.random.RandomState(0).randn(200, 3)
    x = np.stack([noise[:, 0], 100 * (noise[:, 0] + noise[:, 1]), np.exp(noise[:, 2] + noise[:, 0])], 1)
    cells = [[f"{value:.6f}" for value in row] + ["abc"[i % 3]] for i, row in enumerate(x)]
    for i in range(0, 200, 10):
        cells[i][i % 3] = ""
    path.write_text("\n".join(["a,b,c,answer", *(",".join(row) for row in cells)]) + "\n")
    return path


def evaluated(pair, split):
    return pv.evaluate(pair.model, pair.guide, split, num_particles=25, progress=False)


@pytest.mark.parametrize("name", BASELINES)
def test_each_is_exact_in_the_unit_of_the_source(name, table):
    served, raw = (
        pv.data.load(table, columns={"c": "positive", "answer": "ignored"}, standardize=each) for each in (None, False)
    )
    reports = {}
    for unit, data in {"served": served, "raw": raw}.items():
        pair = baseline(SMALL.get(name, name), data)
        reports[unit] = evaluated(pair, data.test)
        torch.testing.assert_close(reports[unit].log_evidence, pair.log_prob(data.test.x), rtol=1e-12, atol=1e-12)
        assert reports[unit].found_by == "exact"
    rows = {row.name: row for row in pv.compare(reports).rows}
    if name != "ppca":  # whose noise is one for all units
        assert rows["served"].log_evidence == pytest.approx(rows["raw"].log_evidence, abs=2e-3)


def test_it_is_the_fit_by_hand(table):
    data = pv.data.load(table, columns={"c": "real", "answer": "ignored"})
    train, test = (split.x[~split.x.isnan().any(1)].double().numpy() for split in (data.train, data.test))
    centre, scale = train.mean(0), train.std(0)
    by_hand = GaussianMixture(2, reg_covar=1e-4, n_init=3, max_iter=1000, random_state=0).fit((train - centre) / scale)
    found = evaluated(baseline("mixture:2", data), data.test)
    whole = ~data.test.x.isnan().any(1)
    expected = by_hand.score_samples((test - centre) / scale) - np.log(scale).sum()
    np.testing.assert_allclose(found.log_evidence[whole], expected, rtol=1e-6)


def test_they_take_the_place_of_a_vae_in_a_sweep(table):
    names = ["normal", "mixture:2", "mixture:9999", "independent", "factor-analysis"]
    columns = "c:positive,answer:ignored"
    data = pv.data.load(table, columns=columns)
    found = sweep(data, prior=["normal"], baselines=names, seeds=2, **QUICK)
    kept = {"normal", "baseline normal", "baseline mixture:2", "baseline independent", "baseline factor-analysis"}
    assert set(found.row_names()) == kept
    rows = {row.name: row for row in found.rows}
    assert all(row.num_seeds == 2 and row.fraction_unreliable == 0 for name, row in rows.items() if name != "normal")
    assert rows["baseline normal"].seed_sd == 0 and math.isnan(rows["baseline normal"].difference_spread) is False
    by_hand = evaluated(baseline("normal", data), data.test).log_evidence + data.test.log_jacobians()
    assert rows["baseline normal"].log_evidence == pytest.approx(float(by_hand.mean()))
    assert "left out: baseline mixture:9999: num_components must be at most" in str(found)
    assert "baseline normal: exact; normal, full covariance; fitted without" in str(found)


def test_masses_and_densities_side_by_side_keep_to_their_columns(table):
    data = pv.data.load(table, columns="c:positive,answer:categorical")
    found = sweep(data, baselines=["independent", "normal"], seeds=1, **QUICK)
    assert set(found.row_names()) == {"normal", "baseline independent"}
    assert "left out: baseline normal: baseline 'normal' is a density, and 1 of the 4 columns" in str(found)


def test_covariates_are_not_told_to_them_and_that_is_said(table):
    data = pv.data.load(table, columns="c:positive,answer:categorical", covariates=["answer"])
    found = sweep(data, baselines=["normal"], seeds=1, **QUICK)
    assert "baseline normal: exact; normal, full covariance; fitted without" in str(found)
    assert "gaps; not told the covariates" in str(found)


def test_a_density_beside_masses_is_left_out_and_told(tmp_path):
    np.save(tmp_path / "counts.npy", np.random.RandomState(0).binomial(5, [0.2, 0.5, 0.8], (100, 3)))
    found = sweep(
        pv.data.load(tmp_path / "counts.npy"), baselines="normal", prior=["normal", "laplace"], seeds=1, **QUICK
    )
    assert set(found.row_names()) == {"normal", "laplace"}
    assert "left out: baseline normal: 'normal' and 'baseline normal' cannot be compared: the likelihood" in str(found)


def test_binarized_rows_have_bernoulli_baselines():
    digits = pv.data.load("digits", binarization="dynamic")
    found = baseline("mixture:3", digits)
    assert found.about == "mixture of 3 x independent Bernoullis"
    pixels = evaluated(baseline("independent", digits), digits.test)
    assert pixels.log_evidence.mean() < evaluated(found, digits.test).log_evidence.mean()


def test_seeds_are_for_what_starts_at_random_alone():
    assert [name for name in BASELINES if is_seeded(name)] == ["mixture"]


def test_unknown_names_have_a_neighbour():
    with pytest.raises(pv.InputError, match="unknown baseline 'factor-analyses': did you mean \"factor-analysis\""):
        baseline("factor-analyses", pv.data.load("digits"))
    with pytest.raises(pv.InputError, match="unknown baseline 'mixtures': did you mean"):
        sweep("digits", baselines=["mixtures:3"])
