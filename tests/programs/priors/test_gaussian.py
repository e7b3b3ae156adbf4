"""Gaussian priors against their formula."""

import math

import pyro
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs.priors.gaussian import StandardNormal


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


def test_standard_normal_is_one():
    z = torch.randn(50, 4).double()
    expected = -0.5 * z.square().sum(1) - 2 * math.log(2 * math.pi)
    torch.testing.assert_close(StandardNormal(4).double()().log_prob(z), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: StandardNormal(0), "num_latents must be at least 1, got 0"),
    ],
)
def test_bad_arguments(make_bad, message):
    with pytest.raises(InputError, match=message):
        make_bad()
