"""Awake it is the sampled ELBO with no gradient for the model; in between it is the mean of both ends."""

import re

import pytest
import torch
from examples.bounds import EXACT, NOT_VECTORIZED, built, evaluated
from examples.zoo import K

import pyrovae as pv
from pyrovae.base.errors import InputError

AWAKE = ["trained", "trained-on-a-part", "trained-masked", "chain", "discrete", "module"]


@pytest.mark.parametrize("particles", [1, K])
@pytest.mark.parametrize("name", AWAKE)
def test_awake_it_is_the_sampled_elbo(name, particles):
    case = built(name)
    elbo, awake = (
        evaluated(make(num_particles=particles, vectorize_particles=name not in NOT_VECTORIZED), case)
        for make in (pv.objectives.SampledELBO, lambda **given: pv.objectives.HalfAsleep(0.0, **given))
    )
    torch.testing.assert_close(awake["loss"], elbo["loss"], **EXACT)
    parameters = elbo.keys() - {"loss", "data"}
    of_model = {name for name in parameters if re.search("loadings|prior|means|decoder", name)}
    of_guide = parameters - of_model
    assert of_guide and of_model
    for name in of_guide:
        torch.testing.assert_close(awake[name], elbo[name], **EXACT)
    assert all(awake[name] is None and elbo[name] is not None for name in of_model)


def test_it_is_linear_in_its_fraction():
    asleep, half, awake = (evaluated(pv.objectives.HalfAsleep(f), built("trained"))["loss"] for f in (1, 0.5, 0))
    torch.testing.assert_close(half, (asleep + awake) / 2, **EXACT)
    assert abs(asleep - awake) > 1


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_fraction_is_between_zero_and_one(fraction):
    with pytest.raises(InputError, match="fraction must be between 0"):
        pv.objectives.HalfAsleep(fraction)
