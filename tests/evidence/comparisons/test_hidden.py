"""Hidden data and the programs for them: who reads what, and that the model never sees a guess."""

import torch

import pyrovae as pv
from pyrovae.evidence.comparisons.hidden import hidden
from pyrovae.evidence.plan import Plan

ORACLE = pv.oracles.missing_entries(5, 2)
X = ORACLE.complete.draw(30, seed=0)[0]
MASK = pv.data.mcar(X.shape, 0.4, seed=0)
PLAN = Plan(100, 0, method="auto")


def test_a_guide_that_reads_missing_entries_is_given_them():
    found = hidden(ORACLE.complete.model, ORACLE.guide, pv.data.as_split(X), MASK, PLAN)
    (x,) = found.split.tensors
    assert not found.is_filled and torch.equal(x.isnan(), ~MASK) and torch.equal(found.observed, MASK)


def test_another_is_given_a_guess_beside_the_data():
    found = hidden(ORACLE.complete.model, ORACLE.complete.guide, pv.data.as_split(X), MASK, PLAN)
    x, guess = found.split.tensors
    assert found.is_filled and torch.equal(x.isnan(), ~MASK) and guess.isfinite().all()
    assert torch.equal(guess[MASK], X[MASK])
    # The guess is near the conditional mean: nearer than the mean of all data.
    exact = pv.impute(ORACLE.complete.model, ORACLE.guide, x, num_particles=100)
    assert (guess - exact)[~MASK].square().mean() < 0.5 * (ORACLE.complete.bias - exact)[~MASK].square().mean()
    again = pv.evaluate(found.model, found.guide, found.split)
    assert ((again.log_evidence - ORACLE.log_evidence(x)).abs() < 4 * again.mc_se_log_evidence + 1e-9).all()


def test_complete_data_stay_as_they_are():
    found = hidden(ORACLE.complete.model, ORACLE.complete.guide, pv.data.as_split(X), None, PLAN)
    assert len(found.split.tensors) == 1 and torch.equal(found.split.x, X) and bool(found.observed.all())
