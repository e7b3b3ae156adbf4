"""The record of restored data: with a truth and without, to files and back."""

import pytest
import torch

import pyrovae as pv

OPERATOR = pv.operators.linear(torch.eye(4).double()[:2])


@pytest.fixture(scope="module")
def records():
    oracle = pv.oracles.ppca(4, 1)
    x, _ = oracle.draw(5, seed=0)
    how = {"num_draws": 3, "num_particles": 50}
    return [pv.restore(oracle.model, oracle.guide, OPERATOR.apply(x), OPERATOR, truth=t, **how) for t in (None, x)]


def test_the_truth_is_counted_where_it_is_known(records):
    without, known = records
    assert without.log_density is None and "log_density" not in without.numbers()
    assert "log p(x | y)" not in without.summary() and "log p(x | y)" in known.summary()
    torch.testing.assert_close(
        known.log_density, known.evidence.log_evidence + known.log_likelihood - known.report.log_evidence
    )
    assert known.numbers()["num_hidden"] == 10 and len(known.table()["log_density"]) == 5


def test_it_comes_back_from_files(records, tmp_path):
    for record in records:
        record.save(tmp_path / "restored.json")
        back = pv.Restoration.load(tmp_path / "restored.json")
        assert back.summary() == record.summary() and torch.equal(back.draws, record.draws)
