"""Stacking weights against the optimum by hand and by its condition, and what has no optimum."""

import math

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.evidence.comparisons.stacking import TOLERANCE, stacking_weights


def gain(log_evidence, weights):
    """What more of each model would give the mixture: at the optimum 1 where a weight is, below 1 elsewhere."""
    density = log_evidence.double().exp()
    return (density / (weights @ density)).mean(1)


def test_two_models_of_two_kinds_of_data_by_hand():
    """Each datum is possible under one model alone: the weights are the fractions of the data."""
    table = torch.tensor([[0.0, 0.0, 0.0, -math.inf], [-math.inf, -math.inf, -math.inf, -2.0]])
    torch.testing.assert_close(stacking_weights(table), torch.tensor([0.75, 0.25]).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_condition_of_the_optimum_holds(seed):
    table = torch.randn(5, 200, generator=torch.Generator().manual_seed(seed))
    weights = stacking_weights(table)
    assert weights.sum() == pytest.approx(1, abs=1e-12) and (weights >= 0).all()
    found = gain(table, weights)
    assert found.max() < 1 + TOLERANCE
    assert ((found - 1).abs() < 0.01)[weights > 0.01].all()


def test_evidence_that_underflows_is_weighed():
    table = torch.tensor([[-1e5, -1e5 - 1], [-1e5 - 1, -1e5]])
    torch.testing.assert_close(stacking_weights(table), torch.tensor([0.5, 0.5]).double(), rtol=0, atol=1e-3)


def test_a_model_that_is_best_everywhere_takes_all():
    weights = stacking_weights(torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.0, 1.0]]))
    assert weights[0] > 1 - 1e-4


@pytest.mark.parametrize("table", [torch.zeros(3), torch.zeros(0, 3), torch.full((2, 3), -math.inf)], ids=str)
def test_what_has_no_weights_is_refused(table):
    with pytest.raises(InputError, match="stacking needs"):
        stacking_weights(table)
