"""Counts that spread, and too many zeros: their masses keep their digits in float32."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from pyrovae.programs.distributions.counts import BetaBinomial, NegativeBinomial, ZeroInflated
from pyrovae.programs.distributions.exponential import Poisson


@pytest.mark.parametrize("dispersion", [1e-3, 1.0, 30.0, 1e6, 1e8])
def test_negative_binomials_in_float32_lose_no_digit(dispersion):
    mean, x = torch.tensor([0.1, 3.0, 80.0]), torch.tensor([0.0, 1.0, 7.0, 90.0])[:, None]
    found = NegativeBinomial(mean.log(), torch.tensor(dispersion).log()).log_prob(x)
    r, m = dispersion, mean.double().numpy()
    expected = scipy.stats.nbinom(r, r / (r + m)).logpmf(x.double().numpy())
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


LARGE = torch.tensor([0.0, 1.0, 900.0, 59_000.0, 60_000.0])[:, None]


@pytest.mark.parametrize("dispersion", [1e-3, 1.0, 30.0, 6e4, 1e8])
def test_negative_binomials_of_large_counts_lose_no_digit(dispersion):
    """Of the mass at the very parameters: in float32 600,000 nats would cancel, 0.05 nats of them be lost."""
    log_mean, log_r = torch.tensor([0.1, 5.0, 1e3, 5e4, 6e4, 8e4]).log(), torch.tensor(dispersion).log()
    found = NegativeBinomial(log_mean, log_r).log_prob(LARGE)
    wide = NegativeBinomial(log_mean.double(), log_r.double()).log_prob(LARGE.double())
    np.testing.assert_allclose(found, wide, rtol=3e-5, atol=3e-4)
    r, m = log_r.double().exp().numpy(), log_mean.double().exp().numpy()
    expected = scipy.stats.nbinom(r, r / (r + m)).logpmf(LARGE.double().numpy())
    np.testing.assert_allclose(wide, expected, rtol=1e-9, atol=1e-9 + 1e-12 * r * 60)  # SciPy's own loss at large r


def test_negative_binomials_have_right_gradients_on_both_sides_of_the_dispersion():
    log_mean = torch.tensor([-1.0, 2.0, 6.0]).double().requires_grad_()
    log_r = torch.tensor([-2.0, 0.0, math.log(7), 5.0]).double()[:, None, None].requires_grad_()
    x = torch.tensor([0.0, 1.0, 7.0, 600.0]).double()[:, None]
    assert torch.autograd.gradcheck(lambda *p: NegativeBinomial(*p).log_prob(x), (log_mean, log_r))
    assert torch.autograd.gradgradcheck(lambda *p: NegativeBinomial(*p).log_prob(x), (log_mean, log_r))


def test_counts_far_from_the_mean_have_finite_masses_and_negative_ones_none():
    log_mean = torch.tensor([-300.0, -120.0, 85.0], requires_grad=True)
    log_mass = NegativeBinomial(log_mean, torch.tensor(0.0)).log_prob(torch.tensor(4000.0))
    np.testing.assert_allclose(log_mass.detach(), [-1.2e6, -4.8e5, -85], rtol=1e-5)
    assert torch.autograd.grad(log_mass.sum(), log_mean)[0].tolist() == [4000.0, 4000.0, -1.0]
    assert (
        NegativeBinomial(log_mean.detach(), torch.tensor(0.0), validate_args=False)
        .log_prob(torch.tensor(-1.0))
        .eq(-math.inf)
        .all()
    )


@pytest.mark.parametrize("concentration", [1e-3, 1.0, 30.0, 1e6, 1e8])
def test_beta_binomials_in_float32_lose_no_digit(concentration):
    logits, x = torch.tensor([-3.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 100.0, 255.0])[:, None]
    found = BetaBinomial(255, logits, torch.tensor(concentration).log()).log_prob(x)
    a, b = (concentration * p.double().sigmoid().numpy() for p in (logits, -logits))
    expected = scipy.stats.betabinom(255, a, b).logpmf(x.double().numpy())
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=1e-4)  # lgamma(256) is 1,168: 7e-5 in float32


def test_too_many_zeros_have_their_mass_and_a_gradient_far_out():
    gate, log_rate = (
        torch.tensor([-60.0, 0.0, 60.0], requires_grad=True),
        torch.tensor([5.0, 0.0, -60.0]).requires_grad_(),
    )
    y = ZeroInflated(Poisson(log_rate), gate)
    log_mass = y.log_prob(torch.tensor([[0.0], [2.0]]))
    with np.errstate(divide="ignore"):
        pi, p0 = gate.detach().double().sigmoid().numpy(), np.exp(-np.exp(log_rate.detach().double().numpy()))
        expected = np.log(pi + (1 - pi) * p0)
    np.testing.assert_allclose(log_mass[0].detach()[1:], expected[1:], rtol=1e-5, atol=1e-6)
    assert log_mass[0, 0].item() == pytest.approx(-60, abs=1e-4)  # Poisson's zero is e^-148
    assert all(each.isfinite().all() for each in torch.autograd.grad(log_mass.sum(), (gate, log_rate)))
