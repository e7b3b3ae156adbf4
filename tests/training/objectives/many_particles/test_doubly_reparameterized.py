"""The doubly reparameterized gradient: that of the importance-weighted bound in expectation, its signal not lost."""

import pytest
import torch
from examples.bounds import CONTINUOUS, NO_GRADIENT, assert_same, built, evaluated, tolerance_of, trained
from examples.gradients import PAIRS, SCALE, assert_unbiased, estimates, exact, on_a_part, one_latent
from examples.zoo import K, X
from pyro.poutine.messenger import Messenger

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.pairs.handlers import tempered
from pyrovae.training.objectives.many_particles.doubly_reparameterized import DReG
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE
from pyrovae.training.objectives.many_particles.weighing import log_mean_exp
from pyrovae.training.objectives.sticking_the_landing import StickingTheLanding


def iwae(pair):
    return lambda p, z: log_mean_exp(pair.log_weight(p, z), 1)


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_mean_gradient_is_that_of_iwae(name, vectorize):
    pair = PAIRS[name]()
    assert_unbiased(estimates(DReG(2, vectorize_particles=vectorize), pair), exact(pair, iwae(pair), 2))


def test_rows_of_a_part_of_the_data_stand_for_others():
    pair = on_a_part()
    assert_unbiased(estimates(DReG(2), pair), exact(pair, iwae(pair), 2), SCALE)


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_value_and_the_models_gradient_are_those_of_iwae_at_the_same_noise(name, vectorize):
    case = built(name)
    settings = {"plate": case.plate, "vectorize_particles": vectorize}
    found, expected = (evaluated(make(K, **settings), case) for make in (DReG, IWAE))
    names = ["loss", *(name for name in ("loadings", "prior", "scale", "module$$$decoder.weight") if name in found)]
    for each in names:
        torch.testing.assert_close(found[each], expected[each], **tolerance_of(name), msg=each)


@pytest.mark.parametrize("name", ["trained", "chain", "trained-on-a-part"])
def test_one_particle_makes_it_sticking_the_landing(name):
    found, expected = (evaluated(make(), built(name)) for make in (lambda: DReG(1), StickingTheLanding))
    for each in found.keys() - {"data"}:
        torch.testing.assert_close(found[each], expected[each], check_dtype=False, msg=each)


def signal_to_noise(objective):
    """Of the guide's gradients, the mean over parameters; each row an estimate."""
    found = estimates(objective, one_latent(raw=-0.2))  # wide: its weights have all the moments that rates are made of
    return sum(abs(found[name].mean() / found[name].std()).item() for name in ("loc", "raw")) / 2


def test_its_signal_rises_with_particles_where_that_of_iwae_falls():
    """By the square root of K at least and at most, a factor of four each; half of it is asked for."""
    assert signal_to_noise(DReG(64)) > 2 * signal_to_noise(DReG(4))
    assert signal_to_noise(IWAE(64)) < signal_to_noise(IWAE(4)) / 2


def test_the_power_is_that_of_the_step():
    """A KL warm-up that began at one: its gradients are those of the weight that it has now."""
    beta = torch.ones((), dtype=torch.float64)
    case, objective = trained(lambda program: tempered(program, beta)), DReG(K)
    with own_scope(case.model, case.guide):
        objective.prepare(case.model, case.guide, X)
    beta.fill_(0.3)
    assert_same(evaluated(objective, case), evaluated(DReG(K), built("trained-tempered")))


@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_draws_without_gradients_are_refused(name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=r"cannot be reparameterized.*DReG"):
        DReG(K).bound(case.model, case.guide, *case.args)


def test_latents_of_several_scales_in_the_guide_are_refused():
    case = built("chain")

    class OneSite(Messenger):
        def _pyro_sample(self, msg):
            if msg["name"] == "a":
                msg["scale"] = msg["scale"] * 0.5

    model, guide = (OneSite()(program) for program in (case.model, case.guide))
    with own_scope(model, guide), pytest.raises(InputError, match=r"site 'b' has another scale than 'a'.*DReG"):
        DReG(K).bound(model, guide, X)
