"""The top-down guide: the product of both levels, in which the datum and the upper level meet by their precisions."""

import math

import pyro.distributions as dist
import pytest
import torch
from examples.pathwise import grid

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.families import positive
from pyrovae.programs.guides.hierarchical import TopDown


def made(size=5, **options):
    return TopDown((size,), pv.networks.mlp(4, 7, seed=3), **options).double()


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts(guide, x, second):
    """What the datum says of z1 and of z2, and what z2 says of z1: normals."""
    of_upper, of_lower = guide.network(x).split([2 * guide.num_upper, 2 * guide.num_lower], -1)
    numbers = (of_upper, of_lower, guide.top_down(second))
    return [dist.Normal(loc, positive(raw)) for loc, raw in (each.chunk(2, -1) for each in numbers)]


def test_the_density_is_the_product_of_both_levels():
    guide, x = made(), doubles(6, 4)
    q = guide(x)
    z = q.rsample((3,))
    first, second = z[..., :3], z[..., 3:]
    upper, datum, prior = parts(guide, x, second)
    precision = datum.scale**-2 + prior.scale**-2
    mean = (datum.loc / datum.scale**2 + prior.loc / prior.scale**2) / precision
    expected = dist.Normal(mean, precision.rsqrt()).log_prob(first).sum(-1) + upper.log_prob(second).sum(-1)
    torch.testing.assert_close(q.log_prob(z), expected)


def test_the_lower_level_is_the_product_of_what_is_said_of_it():
    """Up to a factor that does not depend on it: the posterior of a normal likelihood and a normal prior."""
    guide, x, second = made(), doubles(1, 4), doubles(1, 2, seed=1)
    first = doubles(50, 3, seed=2)
    z = torch.cat([first, second.expand(50, 2)], -1)
    _, datum, prior = parts(guide, x, second)
    rest = guide(x).log_prob(z) - (datum.log_prob(first) + prior.log_prob(first)).sum(-1)
    torch.testing.assert_close(rest, rest[:1].expand(50))


def test_the_density_integrates_to_one():
    points, weight = grid(-12, 12, 601)
    with torch.no_grad():
        mass = made(2)(doubles(1, 4)).log_prob(points).exp().sum() * weight
    assert mass.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("lead", [(), (7,), (3, 7)], ids=str)
def test_shapes_with_any_leading_dimensions(lead):
    q = made()(doubles(*lead, 4))
    z = q.rsample((2,))
    assert (q.batch_shape, q.event_shape) == (lead, (5,))
    assert z.shape == (2, *lead, 5) and q.log_prob(z).shape == (2, *lead)


def test_gradients_reach_every_weight_and_are_finite():
    guide = made()
    q = guide(doubles(7, 4))
    z = q.rsample()
    found = torch.autograd.grad(q.log_prob(z).sum() + z.square().sum(), list(guide.parameters()))
    assert all(each.isfinite().all() and each.abs().sum() > 0 for each in found)


def test_draws_have_the_moments_of_the_density():
    torch.manual_seed(0)
    points, weight = grid(-12, 12, 601)
    with torch.no_grad():
        q = made(2)(doubles(1, 4))
        mass = q.log_prob(points).exp() * weight
        z = q.sample((40_000,))[:, 0]
    found, expected = (
        torch.stack([z[:, 0], z[:, 1], z.prod(-1)], -1),
        torch.cat([points, points.prod(-1, keepdim=True)], -1),
    )
    error = found.std(0) / math.sqrt(40_000)
    assert ((found.mean(0) - mass @ expected).abs() < 5 * error).all()


@pytest.mark.parametrize("shape", [(1,), (2, 3), ()], ids=str)
def test_latents_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match="over vectors of at least 2 latents, got the shape"):
        TopDown(shape, pv.networks.mlp(4, 7))


def test_no_hidden_unit_is_refused():
    with pytest.raises(InputError, match="hidden must be at least 1, got 0"):
        made(hidden=0)
