"""What scales do to a bound: those of plates, of data and of a KL warm-up."""

import math

import pyro.poutine as poutine
import pytest
import torch
from examples.bounds import BETA, WEIGHTS, assert_same, bound_and_table, built, evaluated, trained
from examples.zoo import (
    ZOO,
    K,
    N,
    X,
    linear_table,
)

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.pairs.handlers import tempered
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE


@pytest.mark.parametrize("objective", [SampledELBO, AnalyticKLELBO, IWAE])
@pytest.mark.parametrize(("name", "factor"), [("trained-on-a-part", 1000 / N), ("trained-scaled", 0.37)])
def test_a_scale_around_both_programs_multiplies_loss_and_gradient(name, factor, objective):
    assert_same(evaluated(objective(K), built(name)), evaluated(objective(K), trained()), factor)


def test_weights_of_data_multiply_their_importance_weighted_bounds():
    bound, table = bound_and_table(IWAE(K), built("trained-weighted")._replace(table=linear_table))
    each = (table[0] + table[1] - table[2]).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(WEIGHTS * each).sum().item(), rel=1e-10)


def test_weights_of_data_lie_along_their_plate():
    case = ZOO["pixels-right"]()
    model, guide = (poutine.scale(program, scale=WEIGHTS[:, None]) for program in (case.model, case.guide))
    bound, table = bound_and_table(IWAE(K), case._replace(model=model, guide=guide))
    each = (table[0] + table[1] - table[2]).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(WEIGHTS * each).sum().item(), rel=1e-10)


@pytest.mark.parametrize("size", [None, 1000], ids=["all", "a part"])
def test_tempering_is_a_power_within_the_weights(size):
    case = trained(lambda program: tempered(program, BETA), size=size)._replace(table=linear_table)
    bound, table = bound_and_table(IWAE(K), case)
    each = (table[0] + BETA * (table[1] - table[2])).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(size or N) / N * each.sum().item(), rel=1e-10)


def test_a_rescaled_loss_stays_one_while_the_kl_warms_up():
    beta = torch.ones((), dtype=torch.float64)
    both = trained(lambda program: tempered(poutine.scale(program, scale=0.01), beta))
    objective = IWAE(K)
    with own_scope(both.model, both.guide):
        objective.prepare(both.model, both.guide, X)
    beta.fill_(0.3)
    expected = evaluated(IWAE(K), built("trained-tempered"))
    assert_same(evaluated(objective, both), expected, 0.01)
    assert_same(
        evaluated(objective, both._replace(args=(X[:2],))),
        evaluated(IWAE(K), built("trained-tempered")._replace(args=(X[:2],))),
        0.01,
    )
    with own_scope(both.model, both.guide), pytest.raises(InputError, match="site 'x' has one scale and the latents"):
        IWAE(K).prepare(both.model, both.guide, X)


def test_a_scale_for_each_row_is_looped_over_where_it_cannot_be_tiled():
    case = built("convolution")
    model, guide = (poutine.scale(program, scale=WEIGHTS) for program in (case.model, case.guide))
    scaled = case._replace(model=model, guide=guide)
    bound, table = bound_and_table(IWAE(K), scaled)
    each = (table[0] + table[1] - table[2]).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(WEIGHTS * each).sum().item(), rel=1e-10)
