"""Rows that come and go: which kinds columns have, in which unit they are, what is refused."""

import numpy as np
import pytest
import torch

from pyrovae.apps.sklearn import rows
from pyrovae.base.errors import InputError

VALUES = np.array([[1.0, 10.0], [2.0, 30.0], [4.0, 20.0], [0.0, 50.0]])
PARTS = {"train": np.arange(4), "valid": np.arange(1), "test": np.arange(1)}


def dataset(table=None, **asked):
    table = rows.table_of(VALUES, None) if table is None else table
    return rows.dataset_of(table, PARTS, **{"likelihood": None, "columns": None, "standardize": None, **asked})


def test_numbers_are_real_columns_in_standard_scores():
    data = dataset()
    assert [(one.name, one.kind) for one in data.columns] == [("x0", "real"), ("x1", "real")]
    torch.testing.assert_close(data.train.x.std(0, correction=0), torch.ones(2))
    assert data.train.protocol.log_jacobian == pytest.approx(-np.log(VALUES.std(0)).sum())


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        ({"likelihood": "student-t"}, ["real", "real"]),
        ({"likelihood": "mixed", "columns": "found"}, ["count", "count"]),
        ({"columns": "count"}, ["count", "count"]),
        ({"columns": {"x1": "positive"}}, ["real", "positive"]),
        ({"columns": "x1:count"}, ["real", "count"]),
        ({"likelihood": "poisson"}, None),
        ({"likelihood": "binomial"}, None),
        ({"standardize": False}, None),
    ],
)
def test_which_kinds_columns_have(asked, kinds):
    data = dataset(**asked)
    assert kinds == (None if data.columns is None else [one.kind for one in data.columns])
    np.testing.assert_allclose(rows.in_unit(data.train.x, data), VALUES, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rows.in_unit(rows.later(rows.table_of(VALUES[1:2], None), data).x, data), VALUES[1:2])


def test_labels_come_back_as_they_were():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.5, 2.5, 3.5, 0.5], "b": ["x", "y", "x", "z"], "c": [0, 1, 0, 1]})
    data = dataset(rows.unlike_numbers(frame), columns={"c": "binary"})
    back = rows.in_unit(data.train.x, data)
    assert back.dtype == object and back[:, 1].tolist() == ["x", "y", "x", "z"] and back[:, 2].tolist() == [0, 1, 0, 1]
    assert back[:, 0].tolist() == pytest.approx([1.5, 2.5, 3.5, 0.5])


def test_a_frame_of_numbers_is_an_array():
    pandas = pytest.importorskip("pandas")
    assert rows.unlike_numbers(pandas.DataFrame({"a": [1, 2], "b": [True, False]})) is None
    assert rows.unlike_numbers(VALUES) is None


def test_no_column_is_ignored():
    with pytest.raises(InputError, match="cannot be ignored here: select columns before"):
        dataset(columns="x0:ignored")
