"""Scales of columns, from observed training values."""

import numpy as np
import pytest

from pyrovae.base.errors import InputError
from pyrovae.data.tables.kinds import Columns, Kind
from pyrovae.data.tables.names import KINDS
from pyrovae.data.tables.scaling import scaled, served


def test_real_columns_become_standard_scores_of_what_is_seen():
    kind = scaled("t", Kind("a", "real"), np.array([1.0, np.nan, 3.0, 5.0]))
    assert (kind.shift, kind.scale) == (3.0, pytest.approx(np.std([1, 3, 5])))


def test_positive_columns_are_divided_by_their_geometric_mean():
    kind = scaled("t", Kind("a", "positive"), np.array([1.0, 4.0, np.nan]))
    assert (kind.shift, kind.scale) == (0.0, pytest.approx(2.0))


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"real", "positive"}))
def test_other_kinds_stay_as_they_are(name):
    kind = Kind("a", name)
    assert scaled("t", kind, np.array([0.25, 0.5])) is kind


@pytest.mark.parametrize(("values", "words"), [([2.0, 2.0], "it holds 2 alone"), ([np.nan], "it has no values")])
def test_a_column_that_is_constant_where_a_fit_sees_it(values, words):
    with pytest.raises(InputError, match=f't: column "a" is constant in the training rows: {words}'):
        scaled("t", Kind("a", "real"), np.array(values))


def test_values_are_served_in_these_units():
    columns = Columns((Kind("a", "real", shift=1.0, scale=2.0), Kind("b", "count")))
    np.testing.assert_equal(served(columns, np.array([[3.0, 7.0], [np.nan, 1.0]])), [[1.0, 7.0], [np.nan, 1.0]])
