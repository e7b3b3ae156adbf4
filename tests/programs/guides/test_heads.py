"""Every head draws on its support, scores what others drew, and says of a value no less than what it is."""

import pyro.distributions as dist
import pytest
import torch
from torch import Size
from torch.distributions import constraints

from pyrovae.programs.guides.heads import Angles, Classes, Coins, Gaussian

CENTER, SPREAD = torch.tensor([1.0, -0.5, 0.0]).double(), torch.tensor([0.5, 1.0, 2.0]).double()


def gaussian(event_shape, support, covariance="full covariance", size=3, bounds=()):
    torch.manual_seed(0)
    return Gaussian(Size(event_shape), support, bounds, CENTER[:size], SPREAD[:size], covariance).double()


def always(constraint):
    return lambda: constraint


UPPER = (torch.tensor([1.0, 2.0, 3.0]).double(),)
HEADS = {
    "reals": lambda: gaussian((3,), None),
    "a real matrix": lambda: gaussian((1, 3), None),
    "a real number": lambda: gaussian((), None, size=1),
    "diagonal reals": lambda: gaussian((3,), None, "diagonal"),
    "a flow": lambda: gaussian((3,), None, "flow"),
    "a flow of one number": lambda: gaussian((), always(constraints.positive), "flow", 1),
    "positive": lambda: gaussian((3,), always(constraints.independent(constraints.positive, 1))),
    "bounds of each": lambda: gaussian(
        (3,), lambda end: constraints.independent(constraints.interval(0.0 * end, end), 1), bounds=UPPER
    ),
    "simplex": lambda: gaussian((4,), always(constraints.simplex)),
    "diagonal simplex": lambda: gaussian((4,), always(constraints.simplex), "diagonal"),
    "flow onto a simplex": lambda: gaussian((4,), always(constraints.simplex), "flow"),
    "ordered": lambda: gaussian((3,), always(dist.constraints.ordered_vector)),
    "correlation": lambda: gaussian((3, 3), always(constraints.corr_cholesky)),
    "correlation matrix": lambda: gaussian((3, 3), always(dist.constraints.corr_matrix)),
    "coins": lambda: Coins(Size([2, 2])),
    "classes": lambda: Classes(Size([2]), 3, is_one_hot=False),
    "one-hot": lambda: Classes(Size([2, 3]), 3, is_one_hot=True),
    "angles": lambda: Angles(Size([2])),
}


@pytest.mark.parametrize("batch", [(5,), (7, 2, 5)], ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_draws_are_on_the_support_and_have_a_density_from_elsewhere(name, batch):
    head = HEADS[name]()
    fn = head.build(0.5 * torch.randn(*batch, head.num_raw, dtype=torch.float64))
    value = fn.sample()
    assert fn.batch_shape == batch and value.shape == batch + head.event_shape
    assert bool(fn.support.check(value).all())
    of_draw, of_copy = fn.log_prob(value), fn.log_prob(value.clone())
    assert of_draw.shape == batch and torch.allclose(of_draw, of_copy, rtol=1e-8)
    seen = head.features(value)
    assert seen.shape == (*batch, head.num_features) and bool(seen.isfinite().all())


@pytest.mark.parametrize("covariance", ["diagonal", "full covariance"])
def test_an_untrained_head_is_near_the_prior(covariance):
    head = gaussian((3,), None, covariance)
    draws = head.build(torch.zeros(head.num_raw, dtype=torch.float64)).sample((4000,))
    assert bool(((draws.mean(0) - CENTER).abs() < 4 * SPREAD / 4000**0.5).all())  # 4 standard errors
    assert bool(((draws.std(0) / SPREAD - 0.693).abs() < 0.05).all())


@pytest.mark.parametrize("name", ["a flow", "flow onto a simplex", "simplex", "correlation", "reals"])
def test_densities_are_those_of_the_transforms(name):
    """By autograd's Jacobian of noise -> coordinates that are free."""
    head = HEADS[name]()
    fn = head.build(0.5 * torch.randn(head.num_raw, dtype=torch.float64))
    base = fn.base_dist
    noise = base.sample()

    def free(u):
        for transform in fn.transforms:
            u = transform(u)
        square = u.dim() == 2
        return u[torch.tril_indices(3, 3, -1).unbind()] if square else u[:3]

    jacobian = torch.autograd.functional.jacobian(free, noise)
    expected = base.log_prob(noise) - torch.linalg.slogdet(jacobian)[1]
    value = noise
    for transform in fn.transforms:
        value = transform(value)
    assert torch.allclose(fn.log_prob(value.clone()), expected, rtol=1e-8)


def test_a_flow_that_is_trained_bends():
    head = gaussian((), None, "flow", 1)
    raw = torch.zeros(2, head.num_raw, dtype=torch.float64)
    raw[1, 2:] = 5.0  # another context
    grid = torch.linspace(-4, 6, 4001, dtype=torch.float64)[:, None]
    density = head.build(raw).log_prob(grid).exp()
    mass = density.sum(0) * (grid[1] - grid[0])
    assert torch.allclose(mass, torch.ones(2).double(), atol=1e-2)
    assert float((density[:, 0] - density[:, 1]).detach().abs().max()) > 1e-3


def test_a_nearly_singular_covariance_scores_its_own_draws_to_rounding():
    """A solve in float32 would be off by more than the optimizer needs to run away with."""
    head = gaussian((3,), None).float()
    raw = torch.tensor([3.0, -2.0, 1.0, -30.0, -30.0, -30.0, 20.0, -20.0, 20.0])
    fn = head.build(raw)
    value = fn.rsample()
    noise = fn.transforms[0].inv(value)
    scales = head.spread * 1e-5
    expected = dist.Normal(0.0, 1.0).log_prob(noise).sum() - scales.log().sum()
    assert torch.allclose(fn.log_prob(value), expected, rtol=1e-5) and float(noise.abs().max()) < 6
