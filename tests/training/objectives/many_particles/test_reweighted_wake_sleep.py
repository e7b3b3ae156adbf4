"""Reweighted wake-sleep against its definition, exact sums and quadrature; and to the posterior."""

import pytest
import torch
from examples import classes
from examples.bounds import built, evaluated
from examples.gradients import PAIRS, SCALE, STANDARD_ERRORS, assert_unbiased, estimates, exact, on_a_part, one_latent
from examples.learned_guides import PAIRS as LEARNED
from examples.zoo import K

import pyrovae as pv
from pyrovae.apps import fit
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.programs.oracles import ppca
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE
from pyrovae.training.objectives.many_particles.reweighted_wake_sleep import ReweightedWakeSleep
from pyrovae.training.optimizers import adam

UNSCALED = [name for name in PAIRS if name != "warmed up"]


def wake(pair):
    """The surrogate of both phases at draws that are held."""

    def per_datum(p, z):
        z = [each.detach() for each in z]
        log_joint, log_guide = pair.log_joint(p, z), pair.log_guide(p, z)
        weight = (log_joint - log_guide).detach().softmax(1)
        return (weight * (log_joint + log_guide)).sum(1)

    return per_datum


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("name", UNSCALED)
def test_the_mean_gradient_is_exact(name, vectorize):
    pair = PAIRS[name]()
    objective = ReweightedWakeSleep(2, vectorize_particles=vectorize)
    assert_unbiased(estimates(objective, pair), exact(pair, wake(pair), 2))


def test_rows_of_a_part_of_the_data_stand_for_others():
    pair = on_a_part()
    assert_unbiased(estimates(ReweightedWakeSleep(2), pair), exact(pair, wake(pair), 2), SCALE)


def test_with_many_particles_the_guide_descends_the_forward_kl():
    """Of a class, whose posterior is a sum over three; what is left of the bias is below 0.003."""
    pair = one_latent()._replace(model=classes.model, guide=classes.guide)
    rows = estimates(ReweightedWakeSleep(200), pair, rows=4000)["logits"]
    log_joint, log_guide = classes.tables(classes.MEANS, classes.LOGITS)
    expected = log_joint.softmax(0) - log_guide.exp()  # minus the slope of KL(p || q) by the logits of q
    error = STANDARD_ERRORS * rows.std(0) / len(rows) ** 0.5 + 0.003
    assert (rows.mean(0) - expected).abs().lt(error).all()
    assert expected.abs().max() > 0.1


def test_the_model_has_the_gradient_of_iwae_at_the_same_noise():
    for name in ("trained", "chain", "trained-on-a-part"):
        found, expected = (evaluated(make(K), built(name)) for make in (ReweightedWakeSleep, IWAE))
        for each in [each for each in found if each in ("loss", "loadings", "prior")]:
            torch.testing.assert_close(found[each], expected[each], msg=each)


@pytest.mark.parametrize("name", ["factors, full rank", "gamma-Poisson", "classes"])
def test_the_guide_ends_at_the_posterior(name):
    """In batches of a part of the data; to 1e-3 nat, exact; the logits of classes have further to go."""
    pair = LEARNED[name]()
    x, _ = pair.oracle.draw(1000, seed=0)
    assert pair.kl(x).mean() > 1
    pv.fit(
        pair.oracle.model,
        pair.learned.guide,
        x,
        only="guide",
        objective=ReweightedWakeSleep(20),
        optimizer=adam(0.2),
        schedule=lambda fraction: (1 - fraction) ** 1.5,
        epochs=250 if name == "classes" else 160,
        batch_size=500,
        compile=False,
    )
    assert pair.kl(x).mean() < 1e-3


def test_another_scale_is_refused():
    case = built("trained-tempered")
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=r"site 'z' has another scale .* warm-up"):
        ReweightedWakeSleep(K).loss(case.model, case.guide, *case.args)


def test_one_particle_weighs_nothing():
    with pytest.raises(InputError, match="weighs draws against each other"):
        ReweightedWakeSleep(1)


def test_a_warm_up_is_refused_by_fit_and_not_asked_for_by_recipes():
    oracle = ppca(4, 2)
    x, _ = oracle.draw(20, seed=0)
    with pytest.raises(InputError, match="ReweightedWakeSleep would fit the guide to another posterior"):
        pv.fit(oracle.model, oracle.guide, x, objective=ReweightedWakeSleep(5), kl_warmup=3, epochs=1)
    assert fit.record(data="digits", objective="reweighted-wake-sleep")["kl_warmup"] == 0
    assert fit.record(data="digits")["kl_warmup"] > 0
