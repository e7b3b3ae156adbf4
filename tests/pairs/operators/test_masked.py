"""Entries observed as they are: what is drawn of the others, their density, and masks that are refused."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.operators.masked import entries

MASK = torch.tensor([[True, False], [False, True]])
FN = dist.Normal(torch.arange(4.0).view(1, 2, 2), 1.0).to_event(2)


def test_what_is_hidden_is_nan_and_drawn():
    x = torch.ones(3, 2, 2)
    operator = entries(MASK)
    y = operator.apply(x)
    assert torch.equal(y.isnan(), ~MASK.expand(3, 2, 2))
    found = operator.restore(FN.expand((3,)), y)
    assert torch.equal(found.value[:, MASK], x[:, MASK]) and not found.value.isnan().any()
    assert found.mean[0].tolist() == [[1.0, 1.0], [2.0, 1.0]]
    assert operator.num_hidden(y).tolist() == [2.0] * 3


def test_densities_are_those_of_the_entries():
    x = torch.randn(3, 2, 2)
    operator = entries(MASK)
    y, each = operator.apply(x), FN.base_dist.log_prob(x)
    torch.testing.assert_close(operator.log_observed(FN, y), each[:, MASK].sum(1))
    torch.testing.assert_close(operator.log_conditional(FN, y, x), each[:, ~MASK].sum(1))
    assert (operator.log_likelihood(y, x + 1) == -math.inf).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2), "mask must hold booleans, True for an entry that is observed, got float32"),
        (torch.ones(2).bool(), "the mask observes all of the entries; hide some"),
        (torch.zeros(2).bool(), "the mask observes none of the entries; hide some"),
        ([True], "mask must be a Tensor, got"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(InputError, match=message):
        entries(mask)
