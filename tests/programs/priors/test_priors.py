"""Every prior keeps the same contracts; each line of PRIORS is checked by all of them."""

import math

import pyro
import pytest
import torch

from pyrovae.programs import priors
from pyrovae.programs.priors.mixtures import GaussianMixture

PRIORS = {
    **{
        name: lambda num_latents, choice=choice: scattered(choice(num_latents))
        for name, choice in priors.PRIORS.items()
    },
    "mixture-of-five": lambda num_latents: scattered(GaussianMixture(num_latents, num_components=5, seed=0)),
    "mixture-of-one": lambda num_latents: scattered(GaussianMixture(num_latents, num_components=1, seed=0)),
}


def scattered(prior):
    """The prior with other parameters than it starts with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return prior


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=PRIORS.values(), ids=PRIORS.keys())
def make(request):
    return request.param


@pytest.fixture
def grid():
    """Points (M, 2) of a 2-D grid and the area of a cell."""
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def test_density_integrates_to_one(make, grid):
    points, area = grid
    assert make(2).double()().log_prob(points).exp().sum().item() * area == pytest.approx(1, abs=1e-3)


def test_draws_have_the_moments_of_the_density(make, grid):
    def moments(z):
        return torch.cat([z, z.square(), z.prod(1, keepdim=True)], dim=1)

    points, area = grid
    prior = make(2).double()
    expected = prior().log_prob(points).exp() * area @ moments(points)
    drawn = moments(prior().sample((40_000,)))
    # 5 standard errors of the mean of 40,000 draws.
    assert ((drawn.mean(0) - expected).abs() < 5 * drawn.std(0) / math.sqrt(40_000)).all()


@pytest.mark.parametrize("lead", [(), (7,), (5, 7)], ids=str)
def test_particles_stand_before_data(make, lead):
    p = make(3)()
    assert (p.batch_shape, p.event_shape) == ((), (3,))
    assert p.sample(lead).shape == (*lead, 3)
    assert p.log_prob(p.sample(lead)).shape == lead


def test_expands_under_plates(make):
    p = make(3)()
    with pyro.plate("particles", 5, dim=-2), pyro.plate("data", 7, dim=-1):
        z = pyro.sample("z", p)
    assert z.shape == (5, 7, 3)
    torch.testing.assert_close(p.expand((5, 7)).log_prob(z), p.log_prob(z))


def test_density_has_a_gradient_in_the_latent_and_every_parameter(make):
    prior = make(3)
    z = torch.randn(20, 3, requires_grad=True)
    prior().log_prob(z).sum().backward()
    gradients = [z.grad, *(parameter.grad for parameter in prior.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_precision_and_device_follow_the_module(make):
    prior = make(3)
    assert prior().sample().dtype == torch.float32
    assert prior.double()().sample().dtype == torch.float64
    with pyro.validation_enabled(False):  # which would ask for numbers that a meta tensor has not
        assert prior.to("meta")().log_prob(torch.zeros(2, 3, device="meta")).device.type == "meta"


def test_checkpoints_hold_what_is_learned_alone(make):
    prior = make(3)
    assert set(prior.state_dict()) == {name for name, _ in prior.named_parameters()}
