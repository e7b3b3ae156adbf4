"""Priors over codes, proportions and directions begin where they say they do."""

import math

import torch

from pyrovae.programs import priors


def test_codes_begin_equally_likely():
    assert priors.BernoulliCode(3)().log_prob(torch.tensor([0.0, 1.0, 1.0])).item() == -3 * torch.tensor(2.0).log()
    code = torch.eye(4)[torch.tensor([0, 3])]
    torch.testing.assert_close(priors.OneHotCode(2, num_classes=4)().log_prob(code).exp(), torch.tensor(1 / 16))


def test_proportions_begin_uniform():
    density = priors.Dirichlet(3)().log_prob(torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])).exp()
    torch.testing.assert_close(density, torch.full((2,), 2.0))


def test_directions_are_uniform():
    torch.testing.assert_close(priors.Sphere(2)().log_prob(torch.tensor([0.0, 1.0])).exp().item(), 1 / (2 * math.pi))
