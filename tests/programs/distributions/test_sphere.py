"""Directions in three dimensions: densities by the area, draws with the moments and gradients of the density."""

import math

import pytest
import torch

from pyrovae.programs.distributions.sphere import PowerSpherical, UniformSphere

MU = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)


def power(concentration):
    return PowerSpherical(MU, torch.as_tensor(concentration, dtype=torch.float64))


def test_a_uniform_direction_has_one_over_the_area():
    uniform = UniformSphere(torch.zeros(3))
    z = uniform.rsample((20_000,))
    torch.testing.assert_close(uniform.log_prob(z).exp(), torch.full((20_000,), 1 / (4 * math.pi)))
    assert (z.mean(0).abs() < 5 / math.sqrt(3 * 20_000)).all()  # 5 standard errors


@pytest.mark.parametrize("concentration", [0.5, 5.0, 80.0])
def test_the_density_integrates_to_one_and_has_its_mean(concentration):
    along = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:-1] + 5e-5  # area is uniform along any axis
    side = torch.tensor([0.8, 0.0, -0.6], dtype=torch.float64)
    z = along[:, None] * MU + (1 - along.square()).sqrt()[:, None] * side
    mass = power(concentration).log_prob(z).exp() * 2 * math.pi * 1e-4
    assert mass.sum().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close((mass * along).sum(), power(concentration).mean @ MU, rtol=1e-5, atol=1e-6)


def test_draws_have_the_mean_of_the_density_and_its_gradient():
    torch.manual_seed(0)
    concentration = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    z = PowerSpherical(MU, concentration).rsample((40_000,))
    assert z.norm(dim=-1).sub(1).abs().max() < 1e-9
    along = z @ MU
    expected = power(4.0).mean @ MU
    assert abs(along.mean() - expected) < 5 * along.std() / 200  # 5 standard errors
    (slope,) = torch.autograd.grad(along.mean(), concentration)
    exact = (power(4.001).mean @ MU - power(3.999).mean @ MU) / 0.002
    assert slope.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.parametrize("size", [2, 3, 20])
@pytest.mark.parametrize("concentration", [1e-3, 5.0, 1e5, 1e7])
def test_float32_keeps_its_digits(size, concentration):
    """Against double at the same numbers: of a nat, a ten-thousandth at most."""
    torch.manual_seed(0)
    loc = torch.randn(size)
    narrow = PowerSpherical(loc, torch.tensor(concentration))
    z = narrow.rsample((200,))
    wide = PowerSpherical(narrow.loc.double(), torch.tensor(concentration).double(), validate_args=False)
    torch.testing.assert_close(narrow.log_prob(z).double(), wide.log_prob(z.double()), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(narrow.entropy().double(), wide.entropy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("concentration", [1e5, 1e8])
def test_a_high_concentration_is_normal_about_the_direction(concentration):
    """Of variance 2 / kappa in the tangent plane, to a relative error of some 1 / kappa."""
    q = power(concentration)
    side = torch.tensor([0.8, 0.0, -0.6], dtype=torch.float64)
    angle = torch.linspace(0, 3, 7, dtype=torch.float64) * math.sqrt(2 / concentration)
    z = angle.cos()[:, None] * MU + angle.sin()[:, None] * side
    expected = -angle.square() * concentration / 4 - math.log(2 * math.pi * 2 / concentration)
    torch.testing.assert_close(q.log_prob(z), expected, rtol=0, atol=100 / concentration)


def test_gradients_are_finite_up_to_the_antipode():
    loc, concentration = torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor(50.0, requires_grad=True)
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    found = torch.autograd.grad(PowerSpherical(loc, concentration).log_prob(z).sum(), [loc, concentration])
    assert all(each.isfinite().all() for each in found)
