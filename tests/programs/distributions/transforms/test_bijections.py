"""Bijections at the edges of their supports: there and back in float32, as torch's are in float64 away from them."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import biject_to, constraints, transforms

from pyrovae.programs.distributions.transforms.bijections import Affine, Sigmoid, StickBreaking, onto


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_away_from_the_edge_it_is_torchs():
    x, own, torchs = 2 * doubles(50, 4), StickBreaking(), transforms.StickBreakingTransform()
    y = torchs(x)
    torch.testing.assert_close(own(x), y)
    torch.testing.assert_close(own.inv(y), x)
    torch.testing.assert_close(own.log_abs_det_jacobian(x, y), torchs.log_abs_det_jacobian(x, y))
    assert (own.forward_shape((2, 4)), own.inverse_shape((2, 5))) == ((2, 5), (2, 4))


def test_its_jacobian_is_that_of_its_values():
    x = doubles(4)
    jacobian = torch.autograd.functional.jacobian(lambda x: StickBreaking()(x)[:-1], x)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(StickBreaking().log_abs_det_jacobian(x, StickBreaking()(x)), expected)


def test_no_digit_is_lost_at_the_edge_in_float32():
    """Where one part takes all but 1e-30 of the stick, and what is left is broken again."""
    x = torch.tensor([[20.0, -30.0, 40.0], [-60.0, 25.0, 0.5], [0.1, 60.0, -20.0]])
    y = StickBreaking()(x)
    assert (y > 0).all() and (y.sum(-1) - 1).abs().max() < 1e-6
    torch.testing.assert_close(StickBreaking().inv(y), x, rtol=1e-5, atol=1e-5)
    wide = StickBreaking()(x.double())
    torch.testing.assert_close(y.double(), wide, rtol=3e-5, atol=0)
    found = StickBreaking().log_abs_det_jacobian(x, y).double()
    torch.testing.assert_close(found, StickBreaking().log_abs_det_jacobian(x.double(), wide), rtol=1e-6, atol=0)


SUPPORTS = {
    "simplex": constraints.simplex,
    "interval": constraints.unit_interval,
    "wider": constraints.interval(-1.0, 4.0),
    "event": constraints.independent(constraints.interval(torch.tensor([0.0, -1.0, 2.0]), 4.0), 1),
}


@pytest.mark.parametrize("support", SUPPORTS.values(), ids=SUPPORTS)
def test_a_draw_is_scored_where_it_was_drawn(support):
    """Far out, where torch's transforms round to the edge."""
    torch.manual_seed(0)
    loc = torch.tensor([30.0, -35.0, 40.0])
    moved = onto(support)
    fn = dist.TransformedDistribution(dist.Normal(loc, 0.01), [moved])
    z = fn.rsample((20,))
    x = fn.transforms[0].inv(z)
    expected = dist.Normal(loc, 0.01).log_prob(x).sum(-1) - _log_jacobian(support, x.double())
    torch.testing.assert_close(fn.log_prob(z).reshape(20, -1).sum(-1).double(), expected, rtol=1e-5, atol=1e-3)
    assert (x - loc).abs().max() < 0.06  # six standard deviations: the place that it was drawn from


def _log_jacobian(support, x):
    move = StickBreaking() if support is constraints.simplex else biject_to(support)
    return move.log_abs_det_jacobian(x, move(x)).reshape(len(x), -1).sum(-1)


MOVES = {
    "stick": lambda loc: [StickBreaking()],
    "sigmoid": lambda loc: [Sigmoid()],
    "affine": lambda loc: [Affine(loc, 2.0, event_dim=1)],
    "both": lambda loc: [Affine(loc, 2.0, event_dim=1), StickBreaking()],
}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_what_was_drawn_without_a_graph_gives_gradients_all_the_same(moves):
    loc = torch.full((3,), 0.3, requires_grad=True)

    def make():
        return dist.TransformedDistribution(dist.Normal(loc, 1.0).to_event(1), moves(loc))

    fn = make()
    z = fn.sample().requires_grad_()
    found = torch.autograd.grad(fn.log_prob(z), [z, loc])
    expected = torch.autograd.grad(make().log_prob(z), [z, loc])  # by one that remembers nothing
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert all(each.abs().max() > 0 for each in found)


def test_another_support_is_torchs():
    assert type(onto(constraints.positive)) is type(biject_to(constraints.positive))
