"""Families of counts: a dispersion for each element that all data share, and what is refused."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs import families


def test_a_dispersion_is_shared_by_all_data():
    family = families.negative_binomial()
    (dispersion,) = family.initial(torch.Size([3]))
    y = family.build(1, torch.zeros(7, 3), dispersion + torch.tensor([0.0, 1.0, 9.0]))
    assert y.batch_shape == (7,) and (y.variance[0].diff() < 0).all() and (y.variance > y.mean).all()


def test_a_large_concentration_is_the_binomial():
    logits = torch.tensor([-1.0, 0.5])
    x = torch.tensor([2, 7])
    spread = families.beta_binomial(9).build(1, logits, torch.full((2,), 20.0)).log_prob(x)
    torch.testing.assert_close(spread, families.binomial(9).build(1, logits).log_prob(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [families.beta_binomial, families.multinomial])
def test_no_trials_are_refused(make):
    with pytest.raises(InputError, match="total_count"):
        make(0)
