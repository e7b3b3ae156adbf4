"""Combined bounds at the same noise as those that they are made of, and their mean gradients by quadrature."""

import pyro
import pytest
import torch
from examples.bounds import assert_same, built, evaluated, tolerance_of
from examples.gradients import PAIRS, SCALE, assert_unbiased, estimates, exact, on_a_part, one_latent
from examples.zoo import K

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.many_particles.combined import CIWAE, PIWAE
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE
from pyrovae.training.objectives.many_particles.weighing import log_mean_exp

TRAINED = ["trained", "chain", "trained-tempered", "trained-on-a-part", "convolution-on-a-part"]
OF_MODEL = ("loadings", "prior", "module$$$decoder")


def of_model(name):
    return name.startswith(OF_MODEL)


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("name", TRAINED)
def test_the_model_has_the_gradient_of_all_particles(name, vectorize):
    found, expected = (
        evaluated(objective, built(name))
        for objective in (PIWAE(2, 3, vectorize_particles=vectorize), IWAE(6, vectorize_particles=vectorize))
    )
    torch.testing.assert_close(found["loss"], expected["loss"])
    named = [each for each in found if of_model(each)]
    for each in named:
        torch.testing.assert_close(found[each], expected[each], msg=each, **tolerance_of(name))
    assert named


@pytest.mark.parametrize("name", TRAINED)
def test_the_guide_has_the_gradient_of_smaller_bounds(name):
    """Those of one particle each are the ELBO of them all, one bound of all is their IWAE."""
    for objective, whole in ((PIWAE(K, 1), SampledELBO(K)), (PIWAE(1, K), IWAE(K))):
        found, expected = (evaluated(each, built(name)) for each in (objective, whole))
        for each in found.keys() - {"loss", "data"}:
            if not of_model(each):
                torch.testing.assert_close(found[each], expected[each], msg=each, **tolerance_of(name))


def test_mean_gradients_are_exact():
    pair = one_latent()
    found = estimates(PIWAE(2, 2), pair)
    small = exact(pair, lambda p, z: log_mean_exp(pair.log_weight(p, z), 1), 2)
    large = exact(pair, lambda p, z: log_mean_exp(pair.log_weight(p, z), 1), 4)
    assert abs(small["loc"] - large["loc"]) > 0.02  # they can be told apart
    assert_unbiased(found, {**small, "weight": large["weight"]})


def test_rows_of_a_part_of_the_data_stand_for_others():
    pair = on_a_part()
    expected = exact(pair, lambda p, z: log_mean_exp(pair.log_weight(p, z), 1), 2)
    assert_unbiased(estimates(PIWAE(1, 2), pair), expected, SCALE)


@pytest.mark.parametrize("name", TRAINED)
def test_a_mixture_of_two_bounds(name):
    mixed, iwae, elbo = (evaluated(each, built(name)) for each in (CIWAE(0.3, K), IWAE(K), SampledELBO(K)))
    for each, value in mixed.items():
        torch.testing.assert_close(value, 0.7 * iwae[each] + 0.3 * elbo[each].double(), msg=each, **tolerance_of(name))


@pytest.mark.parametrize("name", PAIRS)
def test_the_mixture_has_its_mean_gradient(name):
    pair = PAIRS[name]()

    def per_datum(p, z):
        log_weight = pair.log_weight(p, z)
        return 0.3 * log_weight.mean(1) + 0.7 * log_mean_exp(log_weight, 1)

    assert_unbiased(estimates(CIWAE(0.3, 2), pair), exact(pair, per_datum, 2))


def test_a_parameter_of_both_programs_has_the_sum():
    """By the model's densities from all particles, by the guide's from smaller bounds."""

    def programs(theirs, ours):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(0 * x, 1.0))
                weight = pyro.param(theirs, torch.tensor(0.6).double())
                pyro.sample("x", pyro.distributions.Normal(weight * z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", pyro.distributions.Normal(pyro.param(ours, torch.tensor(0.6).double()) * x, 1.0))

        return model, guide

    x, found = torch.randn(6, generator=torch.Generator().manual_seed(0)).double(), []
    for names in (("w", "w"), ("w", "v")):
        pair = programs(*names)
        with own_scope(*pair, fresh=True):
            objective = PIWAE(2, 2)
            objective.prepare(*pair, x)
            torch.manual_seed(1)
            loss = objective.differentiable_loss(*pair, x)
            parameters = [p for _, p in pyro.get_param_store().named_parameters()]
            found.append(sum(torch.autograd.grad(loss, parameters)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_a_weight_outside_of_zero_and_one(beta):
    with pytest.raises(InputError, match="beta must be between 0"):
        CIWAE(beta)
    assert_same(evaluated(CIWAE(0, K), built("trained")), evaluated(IWAE(K), built("trained")))


@pytest.mark.parametrize("numbers", [(0, 2), (2, 0)])
def test_no_particles(numbers):
    with pytest.raises(InputError, match=r"num_(bounds|particles) must be at least 1"):
        PIWAE(*numbers)
