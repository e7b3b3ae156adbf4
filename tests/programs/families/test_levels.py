"""Ordered levels: equally likely at first, in the order of their cut points; pixels near their mean."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs import families


def test_levels_are_equally_likely_at_first_and_move_in_order():
    family = families.ordinal(5)
    (cuts,) = family.initial(torch.Size([3]))
    at_first = family.build(1, torch.zeros(3), cuts).base_dist.probs
    torch.testing.assert_close(at_first, torch.full((3, 5), 0.2), rtol=1e-3, atol=1e-3)
    levels = torch.arange(5.0)
    means = [
        (family.build(1, torch.full((3,), eta), cuts).base_dist.probs * levels).sum(-1) for eta in (-2.0, 0.0, 2.0)
    ]
    assert (means[0] < means[1]).all() and (means[1] < means[2]).all()


def test_cut_points_are_those_of_each_element():
    family = families.ordinal(3)
    (cuts,) = family.initial(torch.Size([2, 4]))
    assert cuts.shape == (2, 2, 4)
    cumulative = family.build(2, torch.full((2, 4), 0.7), cuts).base_dist.probs.cumsum(-1)[..., :-1]
    first, second = cuts[0], cuts[0] + families.positive(cuts[1])
    torch.testing.assert_close(cumulative, torch.stack([first - 0.7, second - 0.7], -1).sigmoid())


def test_pixels_lie_around_their_mean():
    y = families.discretised_logistic().build(1, torch.tensor([[-0.5, 0.0, 0.5]]), torch.zeros(1, 3))
    torch.testing.assert_close(y.mean, 127.5 * torch.tensor([0.5, 1.0, 1.5]), rtol=0.1, atol=0)


def test_too_few_levels_are_refused():
    with pytest.raises(InputError, match="ordinal needs at least 2 levels, got 1"):
        families.ordinal(1)


def test_bins_are_of_the_density_on_levels_from_minus_one_to_one():
    y = families.binned(families.normal(scale=0.5), 4).build(1, torch.tensor([0.0, 0.5]))
    expected = torch.distributions.Normal(torch.tensor([2.0, 3.0]), 1.0)
    mass = expected.cdf(torch.tensor([2.5, 2.5])) - expected.cdf(torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(y.base_dist.log_prob(torch.tensor([2.0, 2.0])).exp(), mass)


def test_fixed_and_learned_scales_are_those_of_the_density():
    learned = families.binned(families.normal(scale=families.learned(0.5)), 16)
    assert learned.name == "binned(normal(scale learned), 16)" and len(learned.free) == 1
    fixed = families.binned(families.normal(scale=0.5), 16)
    both = (family.build(1, torch.zeros(3), *family.free) for family in (learned, fixed))
    torch.testing.assert_close(*(y.log_prob(torch.tensor([0.0, 8.0, 16.0])) for y in both))


@pytest.mark.parametrize(
    "family", [families.student_t(), families.low_rank_normal(), families.gamma()], ids=lambda f: f.name
)
def test_densities_without_a_distribution_function_are_refused(family):
    binned = families.binned(family, 16)
    parameters = [torch.zeros(shape) for shape in binned.shapes(torch.Size([3]))]
    with pytest.raises(InputError, match="independent values that are Normal, Logistic, Laplace, got"):
        binned.build(1, *parameters)
    with pytest.raises(InputError, match="highest must be at least 1"):
        families.binned(family, 0)
