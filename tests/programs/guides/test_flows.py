"""Flows as guides: normal before they are trained, conditioned on the datum, autoregressive, one density."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.families import positive
from pyrovae.programs.guides.flows import iaf, neural_spline_flow

pytest.importorskip("zuko")
KINDS = {"iaf": iaf, "neural-spline-flow": neural_spline_flow}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def made(kind, shape=(3,), *, trained=True, seed=0, **options):
    """A flow whose steps move, as after some training."""
    torch.manual_seed(seed)
    flow = kind(**options)(shape, pv.networks.mlp(4, 6, seed=3)).double()
    if trained:
        for step in flow.steps:
            for parameter in step.hyper[-1].parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return flow


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_untrained_it_is_a_normal(kind):
    flow, x = made(kind, trained=False), doubles(5, 4)
    loc, raw, _ = flow.network(x).split([3, 3, flow.network(x).shape[-1] - 6], -1)
    expected, z = dist.Normal(loc, positive(raw)).to_event(1), doubles(5, 3, seed=1)
    torch.testing.assert_close(flow(x).log_prob(z), expected.log_prob(z), rtol=1e-9, atol=1e-9)


def test_the_density_integrates_to_one(kind):
    points = torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        mass = made(kind, (1,))(doubles(1, 4)).log_prob(points).exp().sum() * (points[1] - points[0])
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_draws_are_scored_as_others_are(kind):
    q = made(kind)(doubles(6, 4))
    z = q.rsample((3,))
    own, given = q.log_prob(z), q.log_prob(z.clone())  # a copy is no draw that the flow remembers
    torch.testing.assert_close(own, given, rtol=1e-7, atol=1e-7)


def test_a_coordinate_moves_by_those_before_it(kind):
    """One step: the Jacobian of the draw by its noise is triangular, in the order of the step."""
    flow, x = made(kind, num_steps=1), doubles(1, 4)

    def moved(noise):
        value = noise
        for move in flow(x).transforms:
            value = move(value)
        return value[0]

    jacobian = torch.autograd.functional.jacobian(moved, doubles(1, 3, seed=2))[:, 0]
    above = jacobian.triu(1).abs().max()
    assert above < 1e-12 and jacobian.tril(-1).abs().max() > 1e-6


def test_it_is_conditioned_on_the_datum_and_keeps_shapes(kind):
    flow = made(kind, (2, 3))
    q = flow(doubles(7, 4))
    assert q.batch_shape == (7,) and q.event_shape == (2, 3)
    assert q.rsample((5,)).shape == (5, 7, 2, 3)
    assert not torch.allclose(*flow(doubles(2, 4)).log_prob(torch.zeros(2, 2, 3).double()).split(1))


@pytest.mark.parametrize("options", [{"num_steps": 0}, {"hidden": 0}], ids=str)
def test_what_is_no_flow_is_refused(kind, options):
    with pytest.raises(InputError, match="must be at least 1"):
        made(kind, trained=False, **options)


def test_a_spline_without_pieces_is_refused():
    with pytest.raises(InputError, match="num_bins must be at least 1"):
        neural_spline_flow(num_bins=0)


def test_gradients_reach_every_weight(kind):
    flow = made(kind)
    q = flow(doubles(6, 4))
    q.log_prob(q.rsample()).sum().backward()
    assert all(p.grad is not None and math.isfinite(float(p.grad.abs().sum())) for p in flow.parameters())
