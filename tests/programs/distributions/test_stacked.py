"""Two levels as one latent: the density is the product, draws go down from the upper one."""

import pyro.distributions as dist
import pytest
import torch
from examples.pathwise import assert_draws_move_as_the_density_does, grid

from pyrovae.programs.distributions.stacked import Stacked


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOC, SCALE, SLOPE = doubles(2), (0.3 * doubles(2, seed=1)).exp(), doubles(1, 1, seed=2)


def pair(loc=LOC, scale=SCALE, slope=SLOPE):
    """z2 normal, z1 normal about a bend of it; one coordinate each."""
    upper = dist.Normal(loc[1:], scale[1:]).to_event(1)
    return Stacked(upper, lambda z: dist.Normal(loc[:1] + (z @ slope).sin(), scale[:1]).to_event(1), 1)


def of(*lead, lower=3, above=2):
    """Of any batch."""
    upper = dist.Normal(doubles(*lead, above), 0.5).to_event(1)
    weight = doubles(above, lower, seed=3)
    return Stacked(upper, lambda z: dist.Normal(z @ weight, 0.7).to_event(1), lower)


def test_the_density_is_the_product_of_both_levels():
    q = of(4)
    z = q.rsample((7,))
    expected = q.upper.log_prob(z[..., 3:]) + q.lower(z[..., 3:]).log_prob(z[..., :3])
    torch.testing.assert_close(q.log_prob(z), expected)


def test_the_density_integrates_to_one():
    points, weight = grid(-12, 12, 801)
    assert (pair().log_prob(points).exp().sum() * weight).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("f", [lambda z: z.square().sum(-1), lambda z: z.prod(-1), lambda z: z[..., 0]])
def test_draws_move_as_the_density_does(f):
    """By what moves the upper level too, through the lower one."""
    torch.manual_seed(0)
    each = [parameter.clone().requires_grad_() for parameter in (LOC, SCALE, SLOPE)]
    assert_draws_move_as_the_density_does(lambda: pair(*each), each, f, *grid(-12, 12, 801))


@pytest.mark.parametrize("lead", [(), (5,), (2, 5)], ids=str)
@pytest.mark.parametrize("sample", [(), (7,), (3, 7)], ids=str)
def test_shapes_with_any_leading_dimensions(lead, sample):
    q = of(*lead)
    z = q.rsample(sample)
    assert (q.batch_shape, q.event_shape) == (lead, (5,))
    assert z.shape == (*sample, *lead, 5) and q.log_prob(z).shape == (*sample, *lead)
    wide = q.expand((6, *lead))
    assert wide.rsample(sample).shape == (*sample, 6, *lead, 5)
    torch.testing.assert_close(wide.log_prob(wide.rsample()).shape, torch.Size((6, *lead)))


def test_draws_have_the_moments_of_the_walk():
    torch.manual_seed(0)
    walk = Stacked(dist.Normal(torch.zeros(1), 2.0).to_event(1), lambda z: dist.Normal(z, 1.0).to_event(1), 1)
    covariance = walk.sample((40_000,)).double().T.cov()
    expected = torch.tensor([[5.0, 4.0], [4.0, 4.0]]).double()
    error = ((expected.diag().outer(expected.diag()) + expected.square()) / 40_000).sqrt()  # of a covariance
    assert ((covariance - expected).abs() < 5 * error).all()


def test_what_is_no_vector_of_reals_is_refused_where_values_are_checked():
    with pytest.raises(ValueError, match="support"):
        Stacked(of().upper, of().lower, 3, validate_args=True).log_prob(torch.full((5,), torch.nan).double())


def test_both_levels_are_changed():
    q = of(4)
    z = q.rsample()
    wider = q.with_parts(lambda part: dist.Normal(part.base_dist.loc, 2 * part.base_dist.scale).to_event(1))
    upper = dist.Normal(q.upper.base_dist.loc, 1.0).to_event(1).log_prob(z[..., 3:])
    lower = dist.Normal(q.lower(z[..., 3:]).base_dist.loc, 1.4).to_event(1).log_prob(z[..., :3])
    torch.testing.assert_close(wider.log_prob(z), upper + lower)
