"""Rows whose columns have different families."""

import pytest
import torch
from examples.families import parameters_of

from pyrovae.base.errors import InputError
from pyrovae.data.tables import names as tables
from pyrovae.programs import families
from pyrovae.programs.distributions.events import MixedColumns
from pyrovae.programs.families.columns import OF_KIND


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


KINDS = [("ordinal", 4), ("real", 0), ("count", 0), ("categorical", 3), ("real", 0), ("binary", 2), ("ordinal", 3)]
KINDS += [("positive", 0), ("proportion", 0)]


def test_each_kind_has_its_family_and_those_alike_are_scored_together():
    y = families.of_kinds(KINDS)
    parts = "ordinal(4) x 1, normal(scales learned) x 2, negative_binomial x 1, categorical(3) x 1, bernoulli x 1, "
    assert y.name == f"mixed({parts}ordinal(3) x 1, log_normal x 1, beta x 1)"
    built = y.build(1, *parameters_of(y, (9,), (6,)))
    assert built.names == ["ordinal4", "real", "count", "categorical3", "binary", "ordinal3", "positive", "proportion"]
    assert built.expand((5, 6)).names == built.names
    x = built.sample((20,)).double()
    assert built.support.check(x).all() and built.log_prob(x).isfinite().all()
    with pytest.raises(InputError, match="unknown kind 'rael' of a column; there are real, positive"):
        families.of_kinds([("rael", 0)])


def test_every_kind_of_a_table_has_a_family():
    assert set(OF_KIND) == set(tables.KINDS)


def test_counts_begin_at_their_means():
    y = families.of_kinds([("count", 0), ("real", 0), ("count", 0)], [50.0, 1.0, 0.0])
    zeros = [torch.zeros(each) for each in y.shapes(torch.Size([3]))]
    mean = y.build(1, *zeros, *y.initial(torch.Size([3]))).mean
    torch.testing.assert_close(mean, torch.tensor([50.0, 0.0, 1e-3]))


def test_the_log_mass_of_a_row_is_that_of_its_columns_by_themselves():
    torch.manual_seed(1)
    y = families.of_kinds(KINDS)
    parameters = parameters_of(y, (9,), (6,))
    built = y.build(1, *parameters)
    x = built.sample().double()
    each = [part.base_dist.log_prob(x[:, at]).sum(1) for part, at in zip(built.parts, built.columns, strict=True)]
    torch.testing.assert_close(built.log_prob(x), sum(each))
