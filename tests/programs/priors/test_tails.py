"""The horseshoe: its density in closed form, and its draws."""

import math

import pytest
import scipy.integrate
import scipy.special
import torch

from pyrovae.programs.priors.tails import HalfCauchyNormal, Horseshoe


def test_the_density_is_the_integral_over_scales():
    z = torch.tensor([1e-4, 0.05, 0.7, 1.4, 1.5, 1.9, 6.0], dtype=torch.float64)
    t = (z.square() / 2 / 1.3**2).numpy()
    expected = torch.as_tensor(scipy.special.exp1(t)) * torch.as_tensor(t).exp() / math.sqrt(2 * math.pi**3) / 1.3
    density = HalfCauchyNormal(torch.tensor(1.3, dtype=torch.float64)).log_prob(z).exp()
    torch.testing.assert_close(density, expected, rtol=1e-7, atol=0)

    def by_scale(scale):
        normal = math.exp(-((6 / scale) ** 2) / 2) / scale / math.sqrt(2 * math.pi)
        return normal * 2 / (math.pi * 1.3 * (1 + (scale / 1.3) ** 2))

    assert density[-1].item() == pytest.approx(scipy.integrate.quad(by_scale, 0, math.inf)[0], rel=1e-6)


def test_draws_are_as_often_small_as_the_density_says():
    drawn = Horseshoe(1)().sample((40_000,)).abs()
    density = HalfCauchyNormal(torch.tensor(1.0)).log_prob
    for edge in (0.1, 1.0, 5.0):
        inside = 2 * scipy.integrate.quad(lambda z: density(torch.tensor(z)).exp().item(), 0, edge)[0]
        fraction = (drawn < edge).double().mean().item()
        assert abs(fraction - inside) < 5 * math.sqrt(inside * (1 - inside) / 40_000)  # 5 standard errors
