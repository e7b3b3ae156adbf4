"""Weights of chains against the definition of unbiased, both ways."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.annealing.chains import Route, backward, forward
from pyrovae.evidence.annealing.paths import from_guide, from_prior
from pyrovae.evidence.annealing.tuning import tune
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

LIGHT = [("ppca", from_prior), ("gamma-poisson", from_prior), ("ppca", from_guide), ("mixture prior", from_guide)]


@pytest.mark.parametrize(("name", "start"), LIGHT, ids=[f"{name}, {start.__name__}" for name, start in LIGHT])
def test_weights_are_unbiased_both_ways(name, start):
    """E[w] / p(x) = 1 forward and E[1/w] p(x) = 1 backward, over 2,000 chains each, within 4 SE of each datum."""
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(3, seed=3)
    exact = oracle.log_evidence(x)
    with isolated(oracle.model, pv.widened(oracle.guide, 1.2, shift=0.2)) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        torch.manual_seed(0)
        tuning = tune(start(latents), num_temperatures=40, num_leapfrog=3)
        route = Route(start(latents), tuning, tuning.schedule(40 if start is from_prior else 4))
        ratio = (forward(route, 2000).log_weight - exact).exp()
        truth = Latents(model, oracle.guide, (x,))
        u = truth.unconstrain(truth.draw(2000))
        inverse = (backward(route, u).log_weight + exact).exp()
    for values in (ratio, inverse):
        assert ((values.mean(0) - 1).abs() < 4 * values.std(0) / math.sqrt(2000)).all()
        assert (values.std(0) < 12).all()  # or the standard error would say nothing


def test_a_kernel_that_adapts_is_seen(monkeypatch):
    """The check of unbiasedness has power: chains that keep every proposal fail it."""
    monkeypatch.setattr("pyrovae.evidence.annealing.paths._where", lambda accepted, new, old: new)
    with pytest.raises((AssertionError, FloatingPointError)):
        test_weights_are_unbiased_both_ways("ppca", from_prior)
