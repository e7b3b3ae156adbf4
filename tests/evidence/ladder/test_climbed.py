"""What became of data: doubts that are added, rows that are given back, and which draws do not vouch for themselves."""

import math

import torch

from pyrovae.evidence.ladder.climbed import EDGE, NAN, Climbed

ROWS = torch.tensor([3, 5, 8])


def climbed(route="Newton", **columns):
    plain = {"log_evidence": -1.0, "pareto_k": 0.1, "ess": 300.0, "skewness_log_evidence": 0.5, "num_weights": 600.0}
    given = {name: torch.full((3,), value) for name, value in plain.items()} | {
        name: torch.tensor(values) for name, values in columns.items()
    }
    return Climbed(ROWS, given, route, torch.full((3,), 7.0))


def test_rows_whose_evidence_is_nan_stay_at_the_encoder_and_say_why():
    assert len(climbed().parted()) == 1
    known, lost = climbed(log_evidence=[-1.0, math.nan, -2.0]).parted()
    assert known.rows.tolist() == [3, 8] and known.columns["log_evidence"].tolist() == [-1, -2]
    assert lost.rows.tolist() == [5] and lost.reason == NAN and not lost.columns and lost.cost.tolist() == [7]


def test_a_posterior_at_an_edge_has_no_k_hat():
    away = torch.tensor([False, True, False])
    doubted = climbed().doubted(away, EDGE)
    assert doubted.columns["pareto_k"].isnan().tolist() == away.tolist() and doubted.reason == EDGE
    assert climbed().doubted(~away & away, EDGE).reason is None


def test_draws_do_not_vouch_for_a_high_k_hat_nor_for_few_effective_ones():
    assert climbed(pareto_k=[0.9, 0.1, math.nan]).unvouched.tolist() == [True, False, False]  # of NaN nothing is known
    assert climbed(ess=[4.0, 300.0, 300.0]).unvouched.tolist() == [True, False, False]


def test_weights_of_chains_may_be_too_skewed_for_their_number():
    skewness = [9.0, 0.5, 4.0]
    assert climbed("annealed", skewness_log_evidence=skewness).unvouched.tolist() == [True, False, False]
    assert not climbed("Newton", skewness_log_evidence=skewness).unvouched.any()
