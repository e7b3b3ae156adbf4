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
