"""Rényi's bounds against loops, against the bounds between which they lie, and by quadrature."""

import math

import pytest
import torch
from examples.bounds import WITH_TABLE, assert_same, bound_and_table, built, evaluated
from examples.gradients import PAIRS, assert_unbiased, estimates, exact
from examples.zoo import K, N

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.widened import widened
from pyrovae.programs.oracles import ppca
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE
from pyrovae.training.objectives.many_particles.renyi import Renyi

UNSCALED = sorted(set(WITH_TABLE) - {"subsample-given", "scaled-model", "scaled-guide", "scaled-by-data"})


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 2.0])
@pytest.mark.parametrize("name", UNSCALED)
def test_it_is_a_loop_over_data_and_particles(name, alpha):
    case = built(name)
    bound, table = bound_and_table(Renyi(alpha, K, plate=case.plate), case)
    factor = 8 if name == "convolution-on-a-part" else 1
    weight = (table[0] + table[1] - table[2]).exp().tolist()
    each = [math.log(sum(weight[k][n] ** (1 - alpha) for k in range(K)) / K) / (1 - alpha) for n in range(N)]
    assert bound.loss.item() == pytest.approx(-factor * sum(each), rel=1e-8)


@pytest.mark.parametrize("name", ["trained", "chain", "trained-tempered", "trained-on-a-part"])
def test_zero_and_one_are_iwae_and_the_elbo(name):
    assert_same(evaluated(Renyi(0, K), built(name)), evaluated(IWAE(K), built(name)))
    elbo = evaluated(SampledELBO(K), built(name))
    assert_same(evaluated(Renyi(1, K), built(name)), {**elbo, "loss": elbo["loss"].double()})


@pytest.mark.parametrize("name", PAIRS)
def test_the_mean_gradient_is_exact(name):
    pair = PAIRS[name]()

    def per_datum(p, z):
        return ((0.5 * pair.log_weight(p, z)).logsumexp(1) - math.log(2)) / 0.5

    assert_unbiased(estimates(Renyi(0.5, 2), pair), exact(pair, per_datum, 2))


def test_bounds_fall_as_alpha_rises():
    oracle = ppca(8, 2)
    x, _ = oracle.draw(50, seed=0)
    guide, losses = widened(oracle.guide, 1.4, shift=0.3), []
    for alpha in (-2, 0, 0.5, 1, 2):
        torch.manual_seed(0)  # the same draws
        losses.append(Renyi(alpha, 20).loss(oracle.model, guide, x))
    assert losses == sorted(losses) and losses[-1] > losses[0] + 1


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_what_is_no_number_is_refused(alpha):
    with pytest.raises(InputError, match="alpha must be a finite number"):
        Renyi(alpha)
