"""The record of log terms: its precision, its gradient, and sums over the sites of each role."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.recorded import Recorded
from examples.zoo import ONE, ZERO, K, W, X, linear_guide

from pyrovae.pairs.table import log_terms
from pyrovae.pairs.terms import LogTerms, SiteTerms, check_finite, sum_by_role
from pyrovae.programs.oracles import ppca


def test_float32_is_near_float64():
    oracle = ppca(20, 3)
    x, _ = oracle.draw(200, seed=1)
    exact = oracle.log_evidence(x)
    terms = log_terms(oracle.float().model, oracle.guide, x.float(), num_particles=K)
    assert terms.log_prior.dtype == torch.float32 and terms.log_weight.dtype == torch.float64
    assert (terms.log_weight - exact).abs().max() < 1e-3
    assert ((terms.log_weight.amax(0) - terms.log_weight.amin(0)) < terms.resolution).all()


def test_gradients_flow():
    """The score of the evidence, by hand: d log w / dW = (x - W z) z' for a guide that does not depend on W."""
    loadings = W.clone().requires_grad_()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ loadings.T, ONE).to_event(1), obs=x)

    guide = Recorded(linear_guide)
    log_terms(model, guide, X, num_particles=K).log_weight.sum().backward()
    z = guide.values[-1]["z"]
    expected = torch.einsum("knd,knz->dz", X - z @ W.T, z)
    torch.testing.assert_close(loadings.grad, expected, rtol=1e-10, atol=1e-10)


def test_sum_by_role():
    one = torch.ones(2, 3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            sum_by_role(SiteTerms({"x": one, "y": 2 * one}, {"z": 3 * one}, {})),
            LogTerms(3 * one, 3 * one, 0 * one),
            strict=True,
        )
    )


def test_what_the_guide_draws_is_blamed_before_what_the_model_makes_of_it():
    lost = torch.tensor([[0.0, torch.nan]])
    with pytest.raises(FloatingPointError, match="site 'z': log density in the guide is nan for 1 of 2 data"):
        check_finite(SiteTerms({"x": lost}, {"z": lost}, {"z": lost}))
    with pytest.raises(FloatingPointError, match="site 'z': log density in the model is nan for 1 of 2 data"):
        check_finite(SiteTerms({"x": lost}, {"z": lost}, {"z": torch.zeros(1, 2)}))


def test_what_the_likelihood_or_the_prior_rules_out_weighs_nothing():
    """Whatever the other densities are there."""
    zero, nan = torch.tensor([[0.0]]), torch.tensor([[math.nan]])
    for terms in (
        LogTerms(zero - math.inf, zero, nan),
        LogTerms(nan, zero - math.inf, zero),
        LogTerms(zero - math.inf, zero, zero - math.inf),
    ):
        assert terms.log_weight.item() == -math.inf
    assert LogTerms(nan, zero, zero).log_weight.isnan()
