"""What is shared by bounds of several particles."""

import math

import torch
from examples.bounds import WEIGHTS, built, evaluated
from examples.zoo import K, X, doubles

from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE
from pyrovae.training.objectives.many_particles.weighing import log_mean_exp


def test_the_log_of_a_mean():
    log_weight = doubles(6, 4, seed=1)
    torch.testing.assert_close(log_mean_exp(log_weight), log_weight.exp().mean(0).log())
    assert log_mean_exp(torch.full((3, 1), -math.inf)).item() == -math.inf


def test_the_table_of_powers_and_the_scale_outside():
    case = built("trained-tempered")
    with own_scope(case.model, case.guide):
        weighed = IWAE(K).weighed(case.model, case.guide, case.args)
        assert weighed.log_weight.shape == (K, len(X)) and weighed.scale == 1
        torch.testing.assert_close(weighed.log_guide, 0.3 * weighed.log_density)
    case = built("trained-weighted")
    with own_scope(case.model, case.guide):
        weighed = IWAE(K).weighed(case.model, case.guide, case.args)
        torch.testing.assert_close(weighed.scale, WEIGHTS)
        torch.testing.assert_close(weighed.log_guide, weighed.log_density)
    assert evaluated(IWAE(K), built("trained"))["loss"].dtype == torch.float64
