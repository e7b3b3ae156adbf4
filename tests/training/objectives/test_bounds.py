"""The terms that are logged, by hand; and how the bounds of one pair are ordered."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.bounds import KEEP, TRAINED, WITH_TABLE, bound_and_table, built, evaluated
from examples.zoo import (
    ONE,
    ZERO,
    A,
    Case,
    K,
    N,
    W,
    X,
    Z,
)

from pyrovae.evidence.proposals.widened import widened
from pyrovae.pairs.context import own_scope
from pyrovae.programs.oracles import ppca
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.guide_only.half_asleep import HalfAsleep
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE


@pytest.mark.parametrize("objective", [SampledELBO, IWAE])
@pytest.mark.parametrize("name", WITH_TABLE)
def test_terms_are_sums_over_data_and_means_over_particles_without_scales(name, objective):
    case = built(name)
    bound, (log_likelihood, log_prior, log_guide) = bound_and_table(objective(K, plate=case.plate), case)
    assert bound.reconstruction.item() == pytest.approx(log_likelihood.mean(0).sum().item(), rel=1e-10)
    assert bound.kl_prior.item() == pytest.approx((log_guide - log_prior).mean(0).sum().item(), rel=1e-10)


@pytest.mark.parametrize("others", [True, False])
def test_a_draw_that_log_p_does_not_depend_on(others):
    """A flat latent that nothing reads: its gradient is that of the entropy alone, that of minus the ELBO."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1)) if others else ZERO
            pyro.sample("idle", dist.Uniform(-5 * ONE, 5.0))
            pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            if others:
                pyro.sample("z", dist.Normal(x @ pyro.param("slope", lambda: A.clone()), 0.7).to_event(1))
            pyro.sample("idle", dist.Normal(0.1 * x[:, 0], pyro.param("width", lambda: 0.5 * ONE)))

    case = Case(model, guide, (X,))
    elbo, apart = evaluated(SampledELBO(), case), evaluated(HalfAsleep(0.0), case)
    assert apart["width"].item() == pytest.approx(-N / 0.5)  # minus the slope of N log(width)
    for name in elbo.keys() - {"data"}:
        torch.testing.assert_close(apart[name], elbo[name])


@pytest.mark.parametrize("objective", [SampledELBO, AnalyticKLELBO, IWAE])
def test_terms_of_programs_in_float32_are_in_float64(objective):
    case = built("pyro-example")
    with own_scope(case.model, case.guide):
        bound = objective(K).bound(case.model, case.guide, *case.args)
    assert {term.dtype for term in bound[1:]} == {torch.float64}


@pytest.mark.parametrize("name", sorted(TRAINED.keys() - {"chain"}))
def test_the_closed_form_kl_is_logged_without_scales(name):
    case = built(name)
    with own_scope(case.model, case.guide):
        bound = AnalyticKLELBO(K).bound(case.model, case.guide, X)
    kl = ((X @ A) ** 2 + 0.7**2 - 1).sum(-1) / 2 - Z * math.log(0.7)
    expected = (kl * KEEP).sum() if name == "trained-masked" else kl.sum()
    assert bound.kl_prior.item() == pytest.approx(expected.item(), rel=1e-12)
    assert not any(term.requires_grad for term in bound[1:])


def test_bounds_are_ordered_below_the_exact_evidence():
    oracle = ppca(8, 2)
    x, _ = oracle.draw(50, seed=0)
    guide, evidence, repeats = widened(oracle.guide, 1.4, shift=0.3), oracle.log_evidence(x).sum(), 100
    objectives = [SampledELBO(), SampledELBO(5), AnalyticKLELBO(), IWAE(2), IWAE(10), IWAE(100)]
    torch.manual_seed(0)
    losses = [[objective.loss(oracle.model, guide, x) for _ in range(repeats)] for objective in objectives]
    bounds = -torch.tensor(losses, dtype=torch.float64)
    mean, se = bounds.mean(1), bounds.std(1) / math.sqrt(repeats)
    gap, noise = mean.diff(), (se[1:] ** 2 + se[:-1] ** 2).sqrt()
    assert (gap[:2].abs() < 4 * noise[:2]).all()  # three estimators of one ELBO
    assert (gap[2:] > 4 * noise[2:]).all()
    assert mean[-1] < evidence + 4 * se[-1]
    assert evidence - mean[-1] < 0.1 * (evidence - mean[0])
