"""What is shared by bounds of several particles."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.bounds import WEIGHTS, built, evaluated
from examples.zoo import K, X, doubles

import pyrovae as pv
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE
from pyrovae.training.objectives.many_particles.weighing import log_mean_exp, weighted


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


def test_what_weighs_nothing_adds_nothing():
    weight, log_density = torch.tensor([[0.25], [0.75], [0.0]]), torch.tensor([[-1.0], [-2.0], [-math.inf]])
    log_density.requires_grad_()
    found = weighted(weight, log_density)
    assert found.item() == pytest.approx(-1.75)
    assert torch.autograd.grad(found.sum(), log_density)[0].tolist() == [[0.25], [0.75], [0.0]]


def up_to(x):
    """x is uniform below a latent: draws below x are impossible, and weigh nothing."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Exponential(torch.ones(())))
        pyro.sample("x", dist.Uniform(torch.zeros(()), z), obs=x)


def exponential(x):
    rate = pyro.param("rate", torch.tensor(0.4), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Exponential(rate))


MANY = {
    "IWAE": pv.objectives.IWAE(50),
    "DReG": pv.objectives.DReG(50),
    "PIWAE": pv.objectives.PIWAE(1, 50),
    "CIWAE": pv.objectives.CIWAE(0.0, 50),
    "VIMCO": pv.objectives.VIMCO(50),
    "ReweightedWakeSleep": pv.objectives.ReweightedWakeSleep(50),
}


@pytest.mark.parametrize("name", MANY)
def test_impossible_draws_leave_the_bound_and_its_gradient_finite(name):
    x = torch.tensor([0.7, 1.1, 0.9])
    bounds = {}
    for objective in ("IWAE", name):
        with own_scope(up_to, exponential, fresh=True) as (model, guide, _):
            MANY[objective].prepare(model, guide, x)
            torch.manual_seed(3)
            bound = MANY[objective].bound(model, guide, x)
            (slope,) = torch.autograd.grad(bound.loss, list(pyro.get_param_store()._params.values()))
            assert slope.isfinite()
            bounds[objective] = bound.loss.item()
    assert bounds[name] == pytest.approx(bounds["IWAE"]) and math.isfinite(bounds[name])
