"""A function that is asked again and again gives what it gave before it was traced, to the last bit and draw."""

import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.annealing.paths import from_guide, from_prior, state_at
from pyrovae.pairs.context import isolated
from pyrovae.pairs.graphs.graph import trace
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.pairs.graphs.replays import Replays, settled
from pyrovae.pairs.latents import Latents


def points(seed, *shape):
    return torch.randn(*(shape or (4, 3)), generator=torch.Generator().manual_seed(seed))


def counted(function):
    """The function, and a list that grows with each of its runs."""
    runs = []

    def counting(*points):
        runs.append(len(points))
        return function(*points)

    return counting, runs


def assert_as_asked(function, repaid=3, times=7, shape=()):
    """Bit for bit, the random state too; returns how often the function ran."""
    counting, runs = counted(function)
    replays = Replays(counting, repaid)
    for seed in range(times):
        torch.manual_seed(seed)
        found, after = replays(points(seed, *shape)), torch.get_rng_state()
        torch.manual_seed(seed)
        expected = function(points(seed, *shape))
        assert all(map(torch.equal, found, expected)) and torch.equal(after, torch.get_rng_state())
    return replays, len(runs)


WEIGHT = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))


def noisy(x):
    """With noise, a constant, and a gradient that is the same for all points."""
    u = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad((u * WEIGHT.exp()).sum(), u)
    torch.rand(2)  # drawn and not used
    return (x + torch.randn_like(x)) @ WEIGHT.detach(), slope, torch.ones_like(x) * 2, x.view(4, 3)


def in_place(x):
    """Writes into tensors of its own, of the points and of none."""
    total = torch.zeros(3).add_(WEIGHT.detach().exp())
    return ((x * 1).add_(total).mul_(x),)


def in_place_of_one_that_is_known(x):
    return (torch.zeros(4, 3).add_(x), (x * 2).view(4, 3).squeeze_(0))


@pytest.mark.parametrize("function", [noisy, in_place, in_place_of_one_that_is_known])
def test_it_runs_a_few_times_and_is_replayed(function):
    replays, runs = assert_as_asked(function)
    assert runs == 3 + 1 + 1 and not replays.fails  # the calls until it is traced, the trace, and a look at another


def test_points_of_each_shape_have_a_graph_of_their_own():
    replays = Replays(lambda x: (x.exp(),), 1)
    for rows in (4, 2, 4, 2, 4, 2):
        assert torch.equal(replays(points(rows, rows, 3))[0], points(rows, rows, 3).exp())
    assert len(replays.graphs) == 2 and not replays.fails


def test_several_tensors_are_points_together():
    replays = Replays(lambda x, y: (x @ y.T, y.sum()), 1)
    for seed in range(4):
        x, y = points(seed), points(seed + 9, 5, 3)
        assert all(map(torch.equal, replays(x, y), (x @ y.T, y.sum())))
    assert len(replays.graphs) == 1


def by_value(x):
    return (x if x.sum() > 0 else -x,)


def by_numpy(x):
    return (x * float(x.numpy().max()),)


def into_what_stays(x):
    WEIGHT.data.add_(0 * x.sum())
    return (x * WEIGHT.detach(),)


@pytest.mark.parametrize("function", [by_value, by_numpy, into_what_stays])
def test_what_no_graph_can_hold_goes_on_as_it_is(function):
    replays, _ = assert_as_asked(function)
    assert replays.fails


def test_what_does_not_depend_on_the_points_is_left_out():
    graph = trace(lambda x: (x.view(4, 3) * WEIGHT.detach().exp().log() + torch.zeros_like(x).cos(),), points(0))
    names = [node.target for node in settled(graph, points(0)).module.graph.nodes if node.op == "call_function"]
    assert names == [torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor]
    with pytest.raises(Untraceable, match=r"write into a tensor that stays \(aten.add_"):
        settled(trace(lambda x: (WEIGHT.detach().add_(0), x + 1), points(0)), points(0))


@pytest.mark.parametrize("start", [from_guide, from_prior])
@pytest.mark.parametrize("name", ["ppca", "hierarchy", "state space", "gamma-poisson", "beta-binomial"])
def test_densities_and_slopes_of_programs(name, start):
    oracle = pv.oracles.ppca(5, 2) if name == "ppca" else pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(6, seed=0)
    with isolated(oracle.model, oracle.guide) as (model, guide, _):
        path = start(Latents(model, guide, (x,)))
        path.slopes.repaid = 2
        for seed in range(5):
            torch.manual_seed(seed)
            u = path.draw(4)
            expected = state_at(start(Latents(model, guide, (x,))), u)
            assert all(map(torch.equal, state_at(path, u), expected))
        assert path.slopes.graphs and not path.slopes.fails


def test_a_density_that_is_infinite_stays_so():
    replays = Replays(lambda u: (dist.Exponential(1.0, validate_args=False).log_prob(u.log()),), 1)
    for u in (points(0), points(1), -points(2), points(3)):
        torch.testing.assert_close(replays(u)[0], replays.function(u)[0], equal_nan=True)
    assert not replays.fails


def test_a_method_and_points_in_other_strides():
    class Holder:
        def product(self, x):
            return (x.exp() @ WEIGHT.detach(), x.view(-1))

    replays = Replays(Holder().product, 1)
    for u in (points(0), points(1), points(2, 3, 4).T, points(3, 1, 3).expand(4, 3)):
        assert all(map(torch.equal, replays(u), replays.function(u.contiguous())))
    assert len(replays.graphs) == 1 and not replays.fails
