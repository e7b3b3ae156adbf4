"""Free bits by hand, for each kind of group; and that a group below its floor gives no gradient."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.bounds import BETA, NO_CLOSED_FORM, assert_same, bound_and_table, built, evaluated, trained, trained_guide
from examples.zoo import A, K, N, X, Z, linear_table

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.pairs.handlers import tempered
from pyrovae.training.objectives.elbo import AnalyticKLELBO
from pyrovae.training.objectives.penalized.free_bits import PER, FreeBits

KL = ((X @ A) ** 2 + 0.7**2 - 1) / 2 - math.log(0.7)  # of the trained pair, (N, Z), exact
FLOORED = {
    "coordinate": lambda nats: N * KL.mean(0).clamp(min=nats).sum(),
    "site": lambda nats: N * KL.sum(-1).mean().clamp(min=nats),
    "datum": lambda nats: KL.sum(-1).clamp(min=nats).sum(),
}


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("nats", [0.0, 0.2, 0.35, 0.6, 5.0])
@pytest.mark.parametrize("per", PER)
def test_the_loss_by_hand(per, nats, vectorize):
    objective = FreeBits(nats, per, K, vectorize_particles=vectorize)
    bound, table = bound_and_table(objective, built("trained")._replace(table=linear_table))
    expected = FLOORED[per](nats) - table[0].mean(0).sum()
    assert bound.loss.item() == pytest.approx(expected.item(), rel=1e-10)
    assert bound.kl_prior.item() == pytest.approx(KL.sum().item(), rel=1e-10)
    assert bound.reconstruction.item() == pytest.approx(table[0].mean(0).sum().item(), rel=1e-10)


def test_the_groups_differ():
    values = [FLOORED[per](0.35).item() for per in PER]
    assert len({round(value, 6) for value in values}) == 3 and min(values) >= KL.sum() - 1e-9


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("name", ["trained", "trained-tempered", "trained-on-a-part", "trained-masked", "chain"])
def test_no_nats_make_it_the_elbo(name, per):
    if name == "chain":  # whose last latent's KL is sampled, and below zero at times
        free, elbo = evaluated(FreeBits(0, per, 200), built(name)), evaluated(AnalyticKLELBO(200), built(name))
        assert free["loss"] >= elbo["loss"] - 1e-9
        return
    assert_same(evaluated(FreeBits(0, per, K), built(name)), evaluated(AnalyticKLELBO(K), built(name)))


def test_scales_multiply_what_is_left():
    tempered_pair = trained(lambda program: tempered(program, BETA))
    free, bare = (evaluated(FreeBits(0.35, "datum"), case)["loss"] for case in (tempered_pair, trained()))
    torch.testing.assert_close(free - bare, (BETA - 1) * FLOORED["datum"](0.35))
    part, whole = (evaluated(FreeBits(0.35), built(name)) for name in ("trained-on-a-part", "trained"))
    assert_same(part, whole, 1000 / N)


@pytest.mark.parametrize("per", PER)
def test_below_the_floor_there_is_no_gradient_of_the_kl(per):
    with own_scope(trained().model, trained_guide, fresh=True):
        losses = []
        for nats in (50.0, 60.0):
            objective = FreeBits(nats, per)
            objective.prepare(trained().model, trained_guide, X)
            torch.manual_seed(0)
            loss = objective.differentiable_loss(trained().model, trained_guide, X)
            named = [p for _, p in pyro.get_param_store().named_parameters()]
            losses.append(torch.autograd.grad(loss, named))
    for a, b in zip(*losses, strict=True):
        torch.testing.assert_close(a, b)


def test_an_inner_plate_has_a_group_for_each_part():
    case = built("latents-in-an-inner-plate")
    with own_scope(case.model, case.guide):
        objective = FreeBits(0.5, plate="data")
        torch.manual_seed(0)
        bound = objective.bound(case.model, case.guide, *case.args)
    x = case.args[0]
    kl = (x**2 + 0.7**2 - 1) / 2 - math.log(0.7)
    expected = N * kl.mean(0).clamp(min=0.5).sum()
    assert (bound.loss + bound.reconstruction).item() == pytest.approx(expected.item(), rel=1e-10)
    assert kl.mean(0).max() > 0.5


def correlated(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(x @ A, torch.eye(Z).double()))


def test_dependent_coordinates_have_no_floors_of_their_own():
    with own_scope(trained().model, correlated):
        with pytest.raises(InputError, match=r"site 'z': MultivariateNormal has no density for each coordinate"):
            FreeBits().loss(trained().model, correlated, X)
        assert FreeBits(per="site").loss(trained().model, correlated, X) > 0


@pytest.mark.parametrize("name", NO_CLOSED_FORM)
def test_what_has_no_closed_form_is_refused(name):
    case, message = built(name), NO_CLOSED_FORM[name].replace("AnalyticKLELBO", "FreeBits")
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=message):
        FreeBits(plate=case.plate).bound(case.model, case.guide, *case.args)


def test_weights_of_data_are_refused():
    case = built("trained-weighted")
    with own_scope(case.model, case.guide), pytest.raises(InputError, match="site 'z' has another scale"):
        FreeBits().loss(case.model, case.guide, X)


@pytest.mark.parametrize(("given", "message"), [((-1.0,), "nats must be a number"), ((0.5, "sites"), "did you mean")])
def test_what_is_no_floor(given, message):
    with pytest.raises(InputError, match=message):
        FreeBits(*given)
