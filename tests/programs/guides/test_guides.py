"""Every guide keeps the same contracts; each line of GUIDES is checked by all of them."""

import math

import pyro
import pytest
import torch
from programs.priors.test_priors import quadrature

import pyrovae as pv
from pyrovae.programs import priors
from pyrovae.programs.families import Family
from pyrovae.programs.guides import GUIDES

DISCRETE = ("binary", "one-hot")


def shape_of(choice, num_latents):
    prior = next(prior for prior in priors.PRIORS.values() if prior.support == choice.support)
    return prior.shape(num_latents) if prior.shape else (num_latents,)


def made(name, num_latents=3):
    """The guide of data (..., 4), its weights in double."""
    choice = GUIDES[name]
    guide, shape = choice(), shape_of(choice, num_latents)
    network = pv.networks.mlp(4, 5, seed=1)
    built = pv.Conditional(guide, shape, network) if isinstance(guide, Family) else guide(shape, network)
    return built.double()


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=GUIDES)
def name(request):
    return request.param


@pytest.mark.parametrize("lead", [(7,), (5, 7)], ids=str)
def test_shapes_support_and_gradients(name, lead):
    guide, shape = made(name), shape_of(GUIDES[name], 3)
    q = guide(torch.randn(*lead, 4, dtype=torch.float64))
    assert (q.batch_shape, q.event_shape) == (lead, shape)
    z = q.rsample() if GUIDES[name].support not in DISCRETE else q.sample()
    assert z.shape == (*lead, *shape) and z.dtype == torch.float64 and q.support.check(z).all()
    log_prob = q.log_prob(z)
    assert log_prob.shape == lead and log_prob.isfinite().all()
    gradients = torch.autograd.grad(log_prob.sum() + z.sum(), list(guide.parameters()), allow_unused=True)
    assert any(each is not None for each in gradients)
    assert all(each is None or each.isfinite().all() for each in gradients)


def test_draws_carry_a_gradient_unless_they_are_discrete(name):
    guide = made(name)
    q = guide(torch.randn(6, 4, dtype=torch.float64))
    assert q.has_rsample == (GUIDES[name].support not in DISCRETE)
    if q.has_rsample:
        (slope,) = torch.autograd.grad(q.rsample().square().sum(), [next(guide.parameters())], allow_unused=True)
        assert slope is not None or GUIDES[name].support == "sphere"


def test_density_integrates_to_one_and_draws_have_its_moments(name):
    choice = GUIDES[name]

    def make(num_latents):
        return None

    make.support, make.shape = choice.support, lambda num_latents: shape_of(choice, num_latents)
    num_latents, points, weight = quadrature(make)
    guide = made(name, num_latents)
    with torch.no_grad(), pyro.validation_enabled(False):
        q = guide(torch.randn(1, 4, dtype=torch.float64))
        mass = (q.log_prob(points).exp() * weight).nan_to_num(0.0)
        drawn = q.sample((10_000,))[:, 0].flatten(1)
    assert mass.sum().item() == pytest.approx(1, abs=1e-3)
    found, expected = drawn.mean(0), mass @ points.flatten(1)
    # 5 standard errors of the mean of 10,000 draws, and a thousandth for the grid.
    assert ((found - expected).abs() < 5 * drawn.std(0) / math.sqrt(10_000) + 1e-3).all()


def test_weights_are_kept_and_brought_back(name):
    guide, other = made(name), made(name)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += 0.1
    other.load_state_dict(guide.state_dict())
    x, pair = torch.randn(3, 4, dtype=torch.float64), (guide, other)
    z = guide(x).sample()
    torch.testing.assert_close(*(each(x).log_prob(z) for each in pair))
