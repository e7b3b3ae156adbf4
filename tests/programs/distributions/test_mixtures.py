"""The mixture of normals whose draws carry gradients: its density is the sum, and draws move as the density does."""

import pyro.distributions as dist
import pytest
import torch
from examples.pathwise import assert_draws_move_as_the_density_does, grid

from pyrovae.programs.distributions.mixtures import NormalMixture


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters(*lead, components=3, size=2):
    locs, scales = 1.5 * doubles(*lead, components, size), (0.3 * doubles(*lead, components, size, seed=1)).exp()
    return [each.requires_grad_() for each in (locs, scales, doubles(*lead, components, seed=2))]


FUNCTIONS = {
    "first coordinate": lambda z: z[..., 0],
    "squares": lambda z: z.square().sum(-1),
    "product": lambda z: z.prod(-1),
    "wave": lambda z: (z[..., 0] + 2 * z[..., 1]).sin(),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_the_density_is_the_sum_over_components():
    locs, scales, logits = parameters(4)
    z = doubles(7, 4, 2, seed=3)
    each = dist.Normal(locs, scales).to_event(1).log_prob(z[..., None, :])
    expected = (logits.log_softmax(-1) + each).logsumexp(-1)
    torch.testing.assert_close(NormalMixture(locs, scales, logits).log_prob(z), expected)


@pytest.mark.parametrize("lead", [(), (7,), (3, 1)], ids=str)
def test_the_density_of_many_is_that_of_differences(lead):
    """Scales down to a hundredth of the distances, where products of single precision would lose all digits."""
    locs, scales, logits = 3 * doubles(200, 10), 0.03 + doubles(200, 10, seed=1).square(), doubles(200, seed=2)
    z = locs[:7] + 0.02 * doubles(7, 10, seed=3)
    exact = NormalMixture(locs, scales, logits).log_prob(z)
    single = [each.float() for each in (locs, scales, logits)]
    found = NormalMixture(*single, many=True).expand(lead).log_prob(z.float())
    assert found.dtype == torch.float32 and found.shape == torch.broadcast_shapes((7,), lead)
    torch.testing.assert_close(found.double(), exact.expand(found.shape), rtol=0, atol=1e-3)
    torch.testing.assert_close(NormalMixture(locs, scales, logits, many=True).log_prob(z), exact, rtol=1e-9, atol=1e-9)


def test_the_density_integrates_to_one():
    points, weight = grid(-12, 12, 601)
    with torch.no_grad():
        mass = NormalMixture(*parameters()).log_prob(points).exp().sum() * weight
    assert mass.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)
def test_draws_move_as_the_density_does(f):
    """By locations, scales and logits."""
    each = parameters()
    assert_draws_move_as_the_density_does(lambda: NormalMixture(*each), each, f, *grid(-12, 12, 601))


@pytest.mark.parametrize("lead", [(), (5,), (2, 5)], ids=str)
@pytest.mark.parametrize("sample", [(), (7,), (3, 7)], ids=str)
def test_shapes_with_any_leading_dimensions(lead, sample):
    q = NormalMixture(*parameters(*lead, size=4))
    z = q.rsample(sample)
    assert (q.batch_shape, q.event_shape) == (lead, (4,))
    assert z.shape == (*sample, *lead, 4) and q.log_prob(z).shape == (*sample, *lead)
    assert q.expand((6, *lead)).rsample(sample).shape == (*sample, 6, *lead, 4)


def test_draws_are_as_often_of_a_component_as_its_weight_says():
    q = NormalMixture(torch.tensor([[-50.0], [50.0]]), torch.ones(2, 1), torch.tensor([0.3, 0.7]).log())
    number = 10_000
    fraction = (q.sample((number,)) > 0).double().mean()
    assert abs(fraction - 0.7) < 5 * (0.21 / number) ** 0.5  # 5 standard errors


def test_gradients_are_finite_where_components_are_far_apart_in_float32():
    locs = torch.tensor([[-500.0, 3.0], [500.0, -3.0], [0.0, 0.0]], requires_grad=True)
    scales, logits = torch.tensor([[1e-4, 1.0], [1.0, 30.0], [1e3, 1e-3]]), torch.tensor([3.0, -40.0, 0.0])
    each = [locs, scales.requires_grad_(), logits.requires_grad_()]
    z = NormalMixture(*each).rsample((200,))
    found = torch.autograd.grad(z.square().sum() + NormalMixture(*each).log_prob(z).sum(), each)
    assert z.isfinite().all() and all(one.isfinite().all() for one in found)


def test_without_gradients_a_draw_is_the_same():
    q = NormalMixture(*parameters())
    torch.manual_seed(1)
    drawn = q.rsample((9,)).detach()
    torch.manual_seed(1)
    with torch.no_grad():
        torch.testing.assert_close(q.rsample((9,)), drawn)


def test_changed_parts_make_another_mixture_of_the_same_weights():
    q = NormalMixture(*parameters(4))
    wider = q.with_parts(lambda part: dist.Normal(part.loc + 1, 2 * part.scale))
    torch.testing.assert_close(
        wider.log_prob(q.locs[:, 0] + 1), NormalMixture(q.locs + 1, 2 * q.scales, q.logits).log_prob(q.locs[:, 0] + 1)
    )
    assert type(wider) is NormalMixture and wider.has_rsample
