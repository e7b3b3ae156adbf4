"""Moments of weighted points, and what a method can be asked for."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.posteriors.methods import Plan, plain_moments, weighted_moments

POINTS = {"z": torch.tensor([[0.0, 2.0], [4.0, 2.0], [8.0, 2.0]]), "k": torch.tensor([1, 1, 0])}


def test_moments_by_hand():
    moments = weighted_moments(POINTS, torch.tensor([0.5, 0.25, 0.25]).double())
    assert moments.mean["z"].tolist() == [3.0, 2.0] and moments.sd["z"].tolist() == [11**0.5, 0.0]
    assert moments.mean["k"].item() == 0.75 and moments.sd["k"].item() == pytest.approx(0.1875**0.5)
    assert all(value.dtype == torch.float64 for part in moments for value in part.values())


def test_draws_count_alike():
    moments, expected = plain_moments(POINTS), POINTS["z"].double()
    torch.testing.assert_close(moments.mean["z"], expected.mean(0))
    torch.testing.assert_close(moments.sd["z"], expected.std(0, correction=0))


LEAST = {"num_draws": 4, "num_particles": 2, "num_warmup": 1, "num_chains": 1}


@pytest.mark.parametrize("name", LEAST)
def test_too_little_is_refused(name):
    Plan(**LEAST, seed=0, progress=False)
    with pytest.raises(InputError, match=f"{name} must be at least {LEAST[name]}, got {LEAST[name] - 1}"):
        Plan(**{**LEAST, name: LEAST[name] - 1}, seed=0, progress=False)


@pytest.mark.parametrize("name", LEAST)
def test_what_is_no_whole_number_is_refused(name):
    with pytest.raises(InputError, match=f"{name} must be a whole number, got 10.5"):
        Plan(**{**LEAST, name: 10.5}, seed=0, progress=False)
