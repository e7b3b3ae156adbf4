"""zuko's flows as distributions of Pyro's: the same densities, draws that move as they do, one pass where there is one."""

import pyro.distributions as dist
import pytest
import torch
from examples.pathwise import assert_draws_move_as_the_density_does, grid
from torch.distributions import Distribution

from pyrovae.base.errors import InputError
from pyrovae.programs.distributions.flows import Moved, from_zuko, zuko

CONTEXT = torch.tensor([0.4, -1.0, 0.2], dtype=torch.float64)
FLOWS = {
    "maf": lambda size: zuko().flows.MAF(size, 3, transforms=2, hidden_features=(7,)),
    "spline": lambda size: zuko().flows.NSF(size, 3, transforms=1, hidden_features=(7,)),
    "coupling": lambda size: zuko().flows.RealNVP(size, 3, transforms=2, hidden_features=(7,)),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=FLOWS.values(), ids=FLOWS.keys())
def make(request):
    def flow(size=2):
        torch.manual_seed(1)
        return request.param(size).double()

    return flow


@pytest.mark.parametrize("lead", [(), (5,), (2, 5)], ids=str)
def test_densities_and_shapes_are_those_of_the_flow(make, lead):
    flow = make(4)(doubles(*lead, 3))
    q = from_zuko(flow)
    assert (q.batch_shape, q.event_shape, q.has_rsample) == (lead, (4,), True)
    for z in (doubles(7, *lead, 4, seed=2), q.rsample((7,)), q.sample((7,))):
        torch.testing.assert_close(q.log_prob(z), flow.log_prob(z))
    assert q.rsample((3, 7)).shape == (3, 7, *lead, 4)
    assert q.expand((6, *lead)).rsample().shape == (6, *lead, 4)


@pytest.mark.parametrize("name", ["maf", "coupling"])
def test_the_density_integrates_to_one(name):
    points, weight = grid(-12, 12, 601)
    torch.manual_seed(1)
    with torch.no_grad():
        mass = from_zuko(FLOWS[name](2).double()(CONTEXT)).log_prob(points).exp().sum() * weight
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_draws_move_as_the_density_does():
    flow = FLOWS["coupling"](2).double()
    parameters = list(flow.parameters())
    assert_draws_move_as_the_density_does(
        lambda: from_zuko(flow(CONTEXT)), parameters, lambda z: z.square().sum(-1), *grid(-12, 12, 301), num_batches=50
    )


def test_gradients_at_a_value_are_the_flows(make):
    flow, z = make(), doubles(6, 2, seed=4).requires_grad_()
    wanted = [z, *flow.parameters()]
    found = torch.autograd.grad(from_zuko(flow(CONTEXT)).log_prob(z).sum(), wanted)
    torch.testing.assert_close(found, torch.autograd.grad(flow(CONTEXT).log_prob(z).sum(), wanted))


def test_gradients_at_a_draw_without_a_graph_are_the_flows(make):
    flow = make()
    q = from_zuko(flow(CONTEXT))
    z = q.sample((6,))
    found = torch.autograd.grad(q.log_prob(z).sum(), list(flow.parameters()))
    torch.testing.assert_close(found, torch.autograd.grad(flow(CONTEXT).log_prob(z).sum(), list(flow.parameters())))


def test_a_density_takes_one_pass_and_a_draw_with_its_density_two():
    """Of a coupling flow: zuko scores an inverse, as a draw is, by a second pass; what is remembered takes none."""
    flow, passes = FLOWS["coupling"](4).double(), []
    for step in flow.transform.transforms:
        step.hyper.register_forward_hook(lambda *_: passes.append(1))
    q = from_zuko(flow(CONTEXT))
    z = q.rsample((5,))
    q.log_prob(z)
    drawn = len(passes)
    from_zuko(flow(CONTEXT)).log_prob(z.detach())
    assert (drawn, len(passes) - drawn) == (2 * 2, 2)  # two steps


def test_uniform_noise_is_taken():
    transform = zuko().transforms.MonotonicRQSTransform(doubles(2, 4), doubles(2, 4), doubles(2, 3), bound=1.0)
    noise = zuko().distributions.BoxUniform(-torch.ones(2).double(), torch.ones(2).double())
    flow = zuko().distributions.NormalizingFlow(zuko().transforms.DependentTransform(transform, 1), noise)
    z = from_zuko(flow).rsample((50,))
    assert (z.abs() <= 1).all()
    torch.testing.assert_close(from_zuko(flow).log_prob(z), flow.log_prob(z))


@pytest.mark.parametrize(
    "other", [dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0), None], ids=lambda o: type(o).__name__
)
def test_another_distribution_is_refused(other):
    with pytest.raises(InputError, match=r"expected what a flow of zuko's gives .* got"):
        from_zuko(other)


def test_importing_zuko_leaves_validation_on():
    zuko()
    assert Distribution._validate_args


def test_a_move_goes_there_and_back():
    move = Moved(FLOWS["coupling"](2).double()(CONTEXT).transform.inv)
    x = doubles(5, 2)
    y = move(x)
    assert move.inv(y) is x  # which it remembers
    torch.testing.assert_close(move.inv(y.clone()), x)
    assert (move.domain, move.codomain) == (move.transform.domain, move.transform.codomain)
