"""Moments of weighed draws."""

import pyro.distributions as dist
import torch
from examples.skewed import poor, skewed

from pyrovae.evidence.ladder.adaptation.mixtures import Mixture
from pyrovae.evidence.ladder.adaptation.moments import moments
from pyrovae.evidence.ladder.adaptation.newton import laplace, started
from pyrovae.evidence.ladder.points import scored
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents


def test_moments_find_those_of_the_posterior():
    x = torch.tensor([0.0, 2.0], dtype=torch.float64)
    with isolated(skewed, poor) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (x,))
        points = scored(latents, 50)
        start = Mixture.alone(laplace(latents, started(points.u, points.log_joint)))
        found = moments(latents, start, lambda mixture: mixture.students(20.0, 1.1)).components[0]
    z = torch.linspace(-8, 5, 20_001, dtype=torch.float64)[:, None]
    weight = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Poisson(z.exp()).log_prob(x)).softmax(0)
    mean = (weight * z).sum(0)
    sd = (weight * (z - mean).square()).sum(0).sqrt()
    assert ((found.loc[:, 0] - mean).abs() < 0.15 * sd).all()
    torch.testing.assert_close(found.scale_tril[:, 0, 0], sd, rtol=0.1, atol=0)
