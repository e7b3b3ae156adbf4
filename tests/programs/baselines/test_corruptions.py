"""Corruptions by their rates and moments."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.corruptions import gaussian, masking, salt_and_pepper

X = torch.full((100, 20, 20), 5.0)
N = X.numel()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def within(fraction, rate):
    """To 4 standard errors of a proportion of N."""
    return abs(float(fraction) - rate) < 4 * (rate * (1 - rate) / N) ** 0.5


def test_masking_sets_a_fraction_to_zero_and_leaves_the_rest():
    y = masking(0.3)(X)
    assert within((y == 0).double().mean(), 0.3) and ((y == 0) | (y == 5)).all()


def test_gaussian_noise_has_its_scale():
    noise = gaussian(2.0)(X) - X
    assert abs(float(noise.mean())) < 4 * 2 / N**0.5
    assert abs(float(noise.std()) - 2) < 4 * 2 / (2 * N) ** 0.5


def test_salt_and_pepper_are_half_by_half():
    y = salt_and_pepper(0.2, 0.0, 16.0)(X)
    assert within((y == 0).double().mean(), 0.1) and within((y == 16).double().mean(), 0.1)
    assert ((y == 0) | (y == 16) | (y == 5)).all()


def test_each_use_is_another_draw():
    corruption = masking(0.5)
    assert not torch.equal(corruption(X), corruption(X))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masking(1.1), r"masking: the fraction of values must be in \[0, 1\], got 1.1"),
        (lambda: gaussian(-1.0), "gaussian: the scale must be a standard deviation, 0 or more, got -1.0"),
        (lambda: salt_and_pepper(-0.1), "salt and pepper: the fraction"),
        (lambda: salt_and_pepper(0.1, 1.0, 1.0), "expected low < high, got 1.0 and 1.0"),
    ],
)
def test_what_is_no_corruption(make, message):
    with pytest.raises(InputError, match=message):
        make()
