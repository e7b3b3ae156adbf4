"""Gaussians of many data, and mixtures of them."""

import math

import torch

from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian


def test_what_is_not_finite_is_not_taken():
    fine = Gaussian(torch.zeros(2, 1), torch.ones(2, 1, 1), torch.float64)
    lost = fine._replace(loc=torch.tensor([[math.nan], [1.0]]))
    assert lost.finite_or(fine).loc.flatten().tolist() == [0.0, 1.0]
