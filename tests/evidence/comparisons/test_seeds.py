"""Both errors of a difference by hand, of the data and of the fits; and what each verdict takes."""

import math
from dataclasses import replace

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.evidence.comparisons.seeds import OverSeeds, compare_seeds
from pyrovae.evidence.evaluate import evaluate
from pyrovae.evidence.proposals.widened import widened
from pyrovae.programs.oracles import ppca

X, _ = ppca(8, 2).draw(60, seed=0)


def account(seed, x=X):
    oracle = ppca(8, 2, seed=seed)
    guide = widened(oracle.guide, 1.2)
    return evaluate(oracle.model, guide, x, num_particles=40, seed=seed, method="importance", progress=False)


@pytest.fixture(scope="module")
def reports():
    return {"own": [account(0), account(0)], "others": [account(seed) for seed in (1, 2, 3)]}


@pytest.fixture(scope="module")
def table(reports):
    return compare_seeds(reports, beside={"minutes": {"own": [1.0, 3.0], "others": [5.0, 5.0, 8.0]}}, notes=["a note"])


def test_differences_by_hand(reports, table):
    assert table.row_names() == ["own", "others"]
    best, row = table.rows
    evidence = {name: torch.stack([one.log_evidence for one in found]) for name, found in reports.items()}
    paired = evidence["others"].mean(0) - evidence["own"].mean(0)
    assert row.difference == pytest.approx(float(paired.mean()), rel=1e-12)
    assert row.difference == pytest.approx(row.log_evidence - best.log_evidence, rel=1e-9)
    assert row.difference_se == pytest.approx(float(paired.std()) / math.sqrt(60), rel=1e-12)
    assert row.seed_sd == pytest.approx(float(evidence["others"].mean(1).std()), rel=1e-12)
    assert best.seed_sd == 0  # two fits of one seed
    assert row.difference_spread == pytest.approx(row.seed_sd, rel=1e-12)
    squares = [sum(float(one.mc_se_log_evidence.square().sum()) for one in found) for found in reports.values()]
    bias = [
        -sum(float(one.mc_se_log_evidence.square().mean()) for one in found) / 2 / len(found)
        for found in reports.values()
    ]
    expected = math.hypot(squares[0] ** 0.5 / 120, squares[1] ** 0.5 / 180, bias[0] - bias[1])
    assert row.difference_mc_error == pytest.approx(expected)
    assert row.elbo == pytest.approx(sum(float(one.elbo.mean()) for one in reports["others"]) / 3)
    assert table.by_seed["others"] == pytest.approx(evidence["others"].mean(1).tolist())
    assert table.beside["minutes"] == (2.0, 6.0)
    assert best.stacking + row.stacking == pytest.approx(1) and best.stacking > row.stacking


def test_rescaled_rows_are_brought_back_with_their_bounds(reports):
    """Rows that are source / 10 have log p(source) = log p(x) - 8 log 10, the ELBO too."""
    rescaled = {
        name: [replace(one, protocol=replace(one.protocol, log_jacobian=-8 * math.log(10))) for one in found]
        for name, found in reports.items()
    }
    before, after = compare_seeds(reports), compare_seeds(rescaled)
    for old, new in zip(before.rows, after.rows, strict=True):
        assert new.log_evidence - old.log_evidence == pytest.approx(-8 * math.log(10))
        assert new.elbo - old.elbo == pytest.approx(-8 * math.log(10))
        assert new.difference == pytest.approx(old.difference) and new.kl_posterior == old.kl_posterior


def test_the_text_says_what_an_error_is_of(table):
    text = str(table)
    assert "a note" in text and "minutes" in text and "spread: sd over seeds" in text and "highest" in text
    assert set(table.table()) >= {"log_evidence", "difference_spread", "stacking", "minutes"}


def test_it_is_saved_and_read_back(table, tmp_path):
    table.save(tmp_path / "table")
    again = OverSeeds.load(tmp_path / "table")
    assert again == table and str(again) == str(table)


def test_one_fit_of_each_leaves_the_spread_unknown(reports):
    table = compare_seeds({name: found[:1] for name, found in reports.items()})
    assert math.isnan(table.rows[1].difference_spread) and table.rows[1].verdict != "clear"
    assert "is not known" in str(table)


VERDICTS = {  # difference, its SE, its MC error, its spread over seeds, whether the evidence is reliable
    (-10.0, 1.0, 0.0, 1.0, True): "clear",
    (-10.0, 1.0, 0.0, 1.0, False): "",
    (-10.0, 1.0, 4.0, 1.0, True): "",
    (-10.0, 1.0, 6.0, 1.0, True): "noise",
    (-10.0, 1.0, 0.0, 6.0, True): "",
    (-10.0, 1.0, 0.0, 11.0, True): "noise",
    (-10.0, 6.0, 0.0, 1.0, True): "noise",
    (-10.0, 4.0, 0.0, 1.0, True): "",
    (-10.0, 1.0, 0.0, math.nan, True): "",
}


@pytest.mark.parametrize(("numbers", "verdict"), VERDICTS.items(), ids=str)
def test_a_verdict_takes_every_error(table, numbers, verdict):
    names = ("difference", "difference_se", "difference_mc_error", "difference_spread", "is_reliable")
    assert table.rows[1]._replace(**dict(zip(names, numbers, strict=True))).verdict == verdict


def test_the_bias_of_few_draws_is_no_difference_between_models():
    """One model, an exact guide and a poor one: what the poor one lacks is Monte-Carlo error, and said to be."""
    oracle = ppca(8, 2)
    poor = widened(oracle.guide, 2.5)
    x, _ = oracle.draw(2000, seed=3)
    reports = {
        name: [
            evaluate(oracle.model, g, x, num_particles=30, seed=seed, method="importance", progress=False)
            for seed in range(3)
        ]
        for name, g in {"exact": oracle.guide, "poor": poor}.items()
    }
    table = compare_seeds(reports)
    poorer = table.rows[1]
    assert poorer.name == "poor" and poorer.difference < -3 * poorer.difference_se
    assert poorer.verdict != "clear" and "unreliable: fraction of data" in str(table)


def test_what_cannot_be_compared_is_refused(reports):
    with pytest.raises(InputError, match="at least two kinds of fits, got 1"):
        compare_seeds({"own": reports["own"]})
    with pytest.raises(InputError, match="'none': give a list of reports"):
        compare_seeds({**reports, "none": []})
    with pytest.raises(InputError, match="'own': give a list of reports"):
        compare_seeds({"own": reports["own"][0], "others": reports["others"][0]})
    with pytest.raises(InputError, match="60 and 30 data"):
        compare_seeds({**reports, "fewer": [account(0, X[:30])]})
