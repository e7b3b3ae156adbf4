"""Moments of entries by the law of total variance, and what has none."""

import math

import torch

from pyrovae.posteriors.missing.entries import of_draws


def test_spread_within_and_between_draws_add_up():
    means = torch.tensor([[[1.0]], [[3.0]]])
    found = of_draws(means, means, torch.full_like(means, 2.0))
    assert found.mean.item() == 2.0
    assert math.isclose(found.sd.item(), math.sqrt(3.0), rel_tol=1e-6)  # 2 within, 1 between


def test_classes_are_those_drawn_most_often():
    draws = torch.tensor([0.0, 2.0, 2.0])[:, None, None]
    none = torch.full_like(draws, math.nan)
    found = of_draws(draws, none, none)
    assert found.mean.item() == 2.0
    assert found.sd.isnan().all()


def test_without_a_mean_the_median_stands_for_numbers_and_the_mode_for_classes():
    draws = torch.tensor([[0.1, 2.0], [0.5, 2.0], [0.9, 0.0]])[:, None]
    found = of_draws(draws, torch.full((3, 1, 2), math.nan), torch.full((3, 1, 2), math.nan))
    assert found.mean.tolist() == [[0.5, 2.0]]
