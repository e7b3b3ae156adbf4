"""Every prior keeps the same contracts; each line of PRIORS is checked by all of them."""

import math

import pyro
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs import priors
from pyrovae.programs.families.family import positive
from pyrovae.programs.priors.gaussian import StandardNormal
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


def test_standard_normal_is_one():
    z = torch.randn(50, 4).double()
    expected = -0.5 * z.square().sum(1) - 2 * math.log(2 * math.pi)
    torch.testing.assert_close(StandardNormal(4).double()().log_prob(z), expected, rtol=1e-12, atol=1e-12)


def test_mixture_is_the_sum_over_its_components():
    prior = PRIORS["mixture-of-five"](2).double()
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
        (lambda: StandardNormal(0), "at least one latent dimension, got 0"),
        (lambda: GaussianMixture(-1), "at least one latent dimension, got -1"),
        (lambda: GaussianMixture(2, num_components=0), "at least one component, got 0"),
        (lambda: GaussianMixture(2, spread=-1.0), "spread must not be negative, got -1"),
    ],
)
def test_bad_arguments(make_bad, message):
    with pytest.raises(InputError, match=message):
        make_bad()
