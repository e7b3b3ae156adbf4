"""The importance-weighted bound against Pyro's own, and against loops over data and particles."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.bounds import (
    CONTINUOUS,
    NO_GRADIENT,
    WITH_TABLE,
    assert_same,
    bound_and_table,
    built,
    evaluated,
    tolerance_of,
    trained,
)
from examples.zoo import (
    ONE,
    ZERO,
    K,
    Module,
    N,
    W,
    X,
)
from pyro.infer import RenyiELBO
from pyro.infer.autoguide import AutoNormal

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE


def iwae_and_renyi(case, num_particles=K):
    """Both as :func:`evaluated`, by parameters alone: Pyro's has no differentiable loss."""
    results = []
    for objective in (IWAE(num_particles), RenyiELBO(0, num_particles, 1, vectorize_particles=True)):
        with own_scope(case.model, case.guide, fresh=True), pyro.validation_enabled(False):
            torch.manual_seed(3)
            loss = objective.loss_and_grads(case.model, case.guide, *case.args)
            gradients = {name: p.grad for name, p in pyro.get_param_store().named_parameters()}
            results.append({"loss": torch.tensor(loss, dtype=torch.float64), **gradients})
    return results


@pytest.mark.parametrize("rows", [1, N], ids=["one datum", "a batch"])
@pytest.mark.parametrize("name", ["trained", "chain"])
def test_iwae_is_that_of_pyro_where_nothing_is_scaled(name, rows):
    case = built(name)
    assert_same(*iwae_and_renyi(case._replace(args=(X[:rows],))))


def test_pyros_own_takes_a_rescaled_plate_for_a_power_of_the_weights():
    ours, theirs = iwae_and_renyi(trained(size=1000))
    assert abs(ours["loss"] - theirs["loss"]) > 100


BY_HAND = {  # pair -> (factor of the loss, powers of likelihood, prior and guide within the weight)
    "subsample-given": (1000 / N, (1, 1, 1)),
    "scaled-model": (1, (3, 3, 1)),
    "scaled-guide": (1, (1, 1, 0.1)),
    "scaled-by-data": (1, (X[:, 0].exp(), X[:, 0].exp(), 1)),
    "convolution-on-a-part": (40 / N, (1, 1, 1)),
}


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("name", WITH_TABLE)
def test_iwae_is_a_loop_over_data_and_particles(name, vectorize):
    case = built(name)
    bound, table = bound_and_table(IWAE(K, vectorize_particles=vectorize, plate=case.plate), case)
    factor, powers = BY_HAND.get(name, (1, (1, 1, 1)))
    likelihood, prior, drawn = (power * term for power, term in zip(powers, table, strict=True))
    log_weight = (likelihood + prior - drawn).tolist()
    expected = -factor * sum(math.log(sum(math.exp(log_weight[k][n]) for k in range(K)) / K) for n in range(N))
    assert bound.loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_one_particle_makes_iwae_the_elbo(name):
    case = built(name)
    assert_same(
        {**evaluated(IWAE(1, plate=case.plate), case)},
        {n: v.double() if n == "loss" else v for n, v in evaluated(SampledELBO(plate=case.plate), case).items()},
        **tolerance_of(name),
    )


@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_iwae_over_draws_without_gradients_is_refused(name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=r"site '(k|on)' of the guide.*SampledELBO"):
        IWAE(K).bound(case.model, case.guide, *case.args)


def test_an_autoguide_is_a_guide():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1), obs=x)

    guide = AutoNormal(model)
    with own_scope(model, guide, fresh=True):
        assert math.isfinite(IWAE(K).loss_and_grads(model, guide, X))


def test_a_module_is_a_pair():
    module = Module()
    assert evaluated(IWAE(K), module.case(X))["data"].abs().max() > 0
