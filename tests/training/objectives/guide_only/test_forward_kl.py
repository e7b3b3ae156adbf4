"""The forward KL against the entropy of exact posteriors, and on data that miss entries or have covariates."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.learned_guides import PAIRS
from examples.zoo import ZOO

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope


@pytest.mark.parametrize("particles", [1, 3])
def test_of_the_posterior_it_is_the_entropy_within_4_se(particles):
    oracle = pv.oracles.ppca(5, 2)
    x, _ = oracle.draw(4000, seed=0)
    torch.manual_seed(0)
    mean = pv.objectives.ForwardKL(particles).loss(oracle.model, oracle.guide, x) / len(x)
    se = math.sqrt(0.5 * 2 / (particles * len(x)))  # -log q is half a chi-squared of 2 degrees, but for a constant
    assert abs(mean - oracle.posterior(x[:1]).entropy().item()) < 4 * se


@pytest.mark.parametrize("name", PAIRS)
def test_above_the_entropy_it_is_the_forward_kl_within_4_se(name):
    pair = PAIRS[name]()
    x, z = pair.oracle.draw(4000, seed=3)
    torch.manual_seed(0)
    with own_scope(pair.oracle.model, pair.learned.guide):
        mean = pv.objectives.ForwardKL().loss(pair.oracle.model, pair.learned.guide, x) / len(x)
    expected = -pair.learned(x).log_prob(z).detach()
    assert abs(mean - expected.mean()) < 4 * expected.std() * math.sqrt(2 / len(x))


def test_missing_entries_and_a_mask_stay():
    oracle = pv.oracles.missing_entries(8, 2)
    x, _ = oracle.draw(500, seed=0)
    assert x.isnan().any()
    torch.manual_seed(0)
    losses = [pv.objectives.ForwardKL().loss(oracle.model, oracle.guide, x) / len(x) for _ in range(20)]
    entropy = oracle.posterior(x).entropy()
    assert abs(sum(losses) / 20 - entropy.mean().item()) < 4 * math.sqrt(0.5 * 2 / (20 * len(x)))


def test_covariates_are_those_of_the_batch():
    seen = []

    def model(y, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(100.0 * y, 1.0))
            pyro.sample("x", dist.Normal(z, 1e-3), obs=x)

    def guide(y, x):
        seen.append((y, x))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * pyro.param("slope", torch.tensor(1.0)), 1.0))

    objective, y = pv.objectives.ForwardKL(), torch.tensor([1.0, 3.0])
    with own_scope(model, guide, fresh=True):
        objective.prepare(model, guide, y, torch.zeros(2))
        for labels in (y, y.flip(0)):
            seen.clear()
            objective.bound(model, guide, labels, torch.zeros(2))
            assert torch.equal(seen[0][0], labels) and ((seen[0][1] - 100 * labels).abs() < 6).all()


def test_a_model_that_cannot_be_simulated_from_is_refused():
    case = ZOO["factor"]()
    with own_scope(case.model, case.guide), pytest.raises(InputError, match="a factor"):
        pv.objectives.ForwardKL().loss(case.model, case.guide, *case.args)
