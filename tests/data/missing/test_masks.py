"""Masks by each mechanism: how much is missing, what decides on it, seeds; and what is hidden by them."""

import math

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.data.missing.masks import MECHANISMS, hide, mar, mcar, mnar

X = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_a_fraction_is_missing_by_a_seed(name, fraction):
    seen = MECHANISMS[name](X, fraction, seed=1)
    gone = (~seen).double().mean(0)
    gone = gone[1:] if name == "mar" else gone  # its first column decides
    assert (gone - fraction).abs().max() < 4.5 * math.sqrt(0.25 / 4000)  # 4.5 standard errors
    assert torch.equal(seen, MECHANISMS[name](X, fraction, seed=1))
    assert not torch.equal(seen, MECHANISMS[name](X, fraction, seed=2))


def mean_of_missing(seen):
    return torch.stack([X[~seen[:, d], d].mean() if (~seen[:, d]).any() else torch.zeros(()) for d in range(4)])


def test_what_decides():
    assert mean_of_missing(mcar(X.shape, 0.3)).abs().max() < 4.5 / math.sqrt(0.3 * 4000)  # 4.5 standard errors
    at_random = mar(X, 0.3, drivers=[0, 2])
    assert at_random[:, [0, 2]].all()
    assert mean_of_missing(at_random).abs().max() < 4.5 / math.sqrt(0.3 * 4000)
    assert X[~at_random[:, 1]][:, [0, 2]].mean(0).abs().max() > 0.2
    for sign in (1, -1):
        assert (sign * mean_of_missing(mnar(X, 0.3, sign=sign)) > 0.3).all()


def test_values_beyond_a_mean_are_missing():
    seen = mnar(X, 0.0, columns=[1, 3], threshold=True)
    assert seen[:, [0, 2]].all()
    assert torch.equal(seen[:, 1], X[:, 1] <= X[:, 1].mean())


def test_what_is_hidden_is_nan_in_the_type_of_the_data():
    mask = torch.tensor([True, False])
    whole = torch.tensor([[1, 2], [3, 4]])
    assert hide(whole, mask).dtype == torch.float32
    assert hide(whole.double(), mask).dtype == torch.float64
    found = pv.data.hide(whole.double().numpy(), mask.numpy())
    assert isinstance(found, np.ndarray) and np.isnan(found[:, 1]).all() and (found[:, 0] == [1, 3]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcar((3, 2), 1.0), "fraction is of the entries, from 0 to below 1; got 1.0"),
        (
            lambda: mar(X, 0.3, drivers=[0, 1, 2, 3]),
            r"drivers are some of the columns 0..3, not all, got \[0, 1, 2, 3\]",
        ),
        (lambda: mar(X.flatten(), 0.3), r"expected complete rows \(N, D\), got shape \(16000,\)"),
        (lambda: mnar(X, 0.3, sign=2), "sign is 1, which hides large values, or -1, got 2"),
        (lambda: mnar(X, 0.3, columns=[4]), r"columns are some of 0..3, got \[4\]"),
        (lambda: hide(X, torch.ones(3).bool()), r"observed must have the shape of the data, \(4000, 4\), or \(4,\)"),
        (lambda: hide("x", torch.ones(3).bool()), "expected a tensor or an array"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
