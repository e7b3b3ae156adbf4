"""Mixture priors against the sum over their components, and how they start."""

import math

import pyro
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs.families.family import positive
from pyrovae.programs.priors.mixtures import GaussianMixture


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


def test_mixture_is_the_sum_over_its_components():
    prior = GaussianMixture(2, num_components=5, seed=0).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    z = torch.randn(50, 2).double()
    weights, scales = prior.logits.softmax(0), positive(prior.raw_scale)
    total = sum(
        weight * torch.distributions.Normal(loc, scale).log_prob(z).sum(1).exp()
        for weight, loc, scale in zip(weights, prior.loc, scales, strict=True)
    )
    torch.testing.assert_close(prior().log_prob(z), total.log(), rtol=1e-10, atol=1e-10)


def test_a_mixture_starts_even_and_of_unit_scale():
    mixture = GaussianMixture(500, num_components=20, spread=3.0, seed=0)
    torch.testing.assert_close(mixture.logits.softmax(0), torch.full((20,), 0.05))
    torch.testing.assert_close(positive(mixture.raw_scale), torch.ones(20, 500))
    assert mixture.loc.std().item() == pytest.approx(3, abs=5 * 3 / math.sqrt(2 * 10_000))  # 5 standard errors


def test_a_seed_alone_decides_a_mixture():
    before = torch.get_rng_state()
    first = GaussianMixture(3, seed=1).loc
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, GaussianMixture(3, seed=1).loc)
    assert not torch.equal(first, GaussianMixture(3, seed=2).loc)
    assert not torch.equal(GaussianMixture(3).loc, GaussianMixture(3).loc)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: GaussianMixture(-1), "num_latents must be at least 1, got -1"),
        (lambda: GaussianMixture(2, num_components=0), "num_components must be at least 1, got 0"),
        (lambda: GaussianMixture(2, spread=-1.0), "spread must not be negative, got -1"),
    ],
)
def test_bad_arguments(make_bad, message):
    with pytest.raises(InputError, match=message):
        make_bad()
