"""Rows whose columns have different families."""

import pytest
import torch
from examples.families import parameters_of

from pyrovae.base.errors import InputError
from pyrovae.programs import families
from pyrovae.programs.distributions.events import MixedColumns


def columns():
    real, count, level = families.normal(), families.negative_binomial(), families.ordinal(4)
    return families.mixed([real, count, real, level])


def test_columns_keep_their_places_and_their_densities():
    torch.manual_seed(0)
    family = columns()
    assert family.name == "mixed(normal x 2, negative_binomial x 1, ordinal(4) x 1)"
    parameters = [each.detach() for each in parameters_of(family, (4,), (6,))]
    loc, raw, log_mean, eta, dispersion, cuts = parameters
    y = family.build(1, *parameters)
    assert isinstance(y, MixedColumns) and (y.batch_shape, y.event_shape) == ((6,), (4,))
    x = y.sample((50,))
    parts = [
        families.normal().build(1, loc, raw).log_prob(x[..., [0, 2]]),
        families.negative_binomial().build(1, log_mean, dispersion).log_prob(x[..., [1]]),
        families.ordinal(4).build(1, eta, cuts).log_prob(x[..., [3]]),
    ]
    torch.testing.assert_close(y.log_prob(x), sum(parts))
    assert y.support.check(x).all() and (y.mean[:, [0, 2]] == loc).all()
    wrong = x.clone()
    wrong[..., 3] = 9
    assert not y.support.check(wrong).any()


def test_rows_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"mixed has 4 columns, but events have the shape \(5,\)"):
        columns().shapes(torch.Size([5]))
    with pytest.raises(InputError, match="a family for each column, got none"):
        families.mixed([])
