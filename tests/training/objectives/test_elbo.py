"""The ELBO of every pair in the zoo against Pyro's own at the same noise."""

import pyro
import pytest
import torch
from examples.bounds import (
    DEPTH,
    EXACT,
    NO_CLOSED_FORM,
    NOT_VECTORIZED,
    PAIRS,
    assert_same,
    built,
    evaluated,
    tolerance_of,
    trained_guide,
    trained_model,
)
from examples.zoo import (
    K,
    X,
)
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO


@pytest.mark.parametrize("name", PAIRS)
def test_sampled_elbo_is_that_of_pyro(name):
    case = built(name)
    assert_same(evaluated(SampledELBO(plate=case.plate), case), evaluated(Trace_ELBO(), case), **tolerance_of(name))


@pytest.mark.parametrize("vectorize", [True, False], ids=["vectorized", "looped"])
@pytest.mark.parametrize("name", sorted(PAIRS.keys() - NOT_VECTORIZED))
def test_sampled_elbo_of_several_particles_is_that_of_pyro(name, vectorize):
    case = built(name)
    ours = SampledELBO(K, vectorize_particles=vectorize, plate=case.plate)
    theirs = Trace_ELBO(K, vectorize_particles=vectorize, max_plate_nesting=DEPTH.get(name, 1))
    assert_same(evaluated(ours, case), evaluated(theirs, case), **tolerance_of(name))


@pytest.mark.parametrize("num_particles", [1, K])
@pytest.mark.parametrize("name", sorted(PAIRS.keys() - NO_CLOSED_FORM.keys() - {"deterministic", "auto-normal"}))
def test_closed_form_elbo_is_that_of_pyro(name, num_particles):
    case = built(name)
    ours = AnalyticKLELBO(num_particles, vectorize_particles=name not in NOT_VECTORIZED, plate=case.plate)
    vectorized = {"vectorize_particles": name not in NOT_VECTORIZED, "max_plate_nesting": DEPTH.get(name, 1)}
    assert_same(
        evaluated(ours, case), evaluated(TraceMeanField_ELBO(num_particles, **vectorized), case), **tolerance_of(name)
    )


def test_closed_form_elbo_takes_an_automatic_guide_at_its_draws():
    """AutoNormal's latents have no closed form: log q - log p of each draw, as the sampled ELBO has it."""
    case = built("auto-normal")
    sampled, closed = (evaluated(objective, case)["loss"] for objective in (SampledELBO(), AnalyticKLELBO()))
    torch.testing.assert_close(closed, sampled, **EXACT)


def test_closed_form_elbo_ignores_named_values():  # Pyro's own takes them for latents and fails
    expected, actual = (evaluated(AnalyticKLELBO(), built(name)) for name in ("functions", "deterministic"))
    assert_same(actual, expected)


@pytest.mark.parametrize("name", NO_CLOSED_FORM)
def test_closed_form_elbo_is_refused_where_it_would_be_wrong(name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=NO_CLOSED_FORM[name]):
        AnalyticKLELBO(plate=case.plate).bound(case.model, case.guide, *case.args)


def test_steps_of_svi_are_those_of_pyros_own():
    def losses(objective):
        torch.manual_seed(0)
        with own_scope(trained_model, trained_guide, fresh=True):
            svi = SVI(trained_model, trained_guide, pyro.optim.Adam({"lr": 0.01}), objective)
            steps = [svi.step(x) for x in (X, X[:2], X)]
            return [*steps, svi.evaluate_loss(X)]

    ours = losses(SampledELBO())
    assert all(isinstance(loss, float) for loss in ours)
    assert ours == pytest.approx(losses(Trace_ELBO()), rel=1e-10)
