"""Discrete latents summed out: sums over all values by hand, with plates inside a datum and with continuous ones."""

import math

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.evidence.ladder.summed import Summed
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

X = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.7, 0.1]], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)


def classes(x):
    """A class for each of two measurements, and a coin for the datum."""
    with pyro.plate("data", len(x), dim=-2):
        coin = pyro.sample("coin", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)).expand([len(x), 1]))
        with pyro.plate("entries", 2, dim=-1):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)))
            pyro.sample("x", dist.Normal(MEANS[k.long()] + coin, 1.0), obs=x)


def guess(x):
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("coin", dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)).expand([len(x), 1]))
        with pyro.plate("entries", 2, dim=-1):
            pyro.sample("k", dist.Categorical(torch.ones(len(x), 2, 3, dtype=torch.float64)))


def exact():
    each = dist.Normal(MEANS[:, None] + torch.tensor([0.0, 1.0]), 1.0).log_prob(X[..., None, None])  # (3, 2, k, coin)
    of_entries = (each + torch.tensor([0.2, 0.5, 0.3]).log()[:, None]).logsumexp(-2).sum(1)
    return (of_entries + torch.tensor([0.7, 0.3]).log()).logsumexp(-1)


def test_log_evidence_is_the_sum():
    report = pv.evaluate(classes, guess, X, num_particles=30, progress=False)
    torch.testing.assert_close(report.log_evidence, exact(), rtol=1e-6, atol=1e-6)
    assert set(report.route) == {"summed"} and (report.mc_se_log_evidence == 0).all()
    assert (report.pareto_k == -math.inf).all() and report.fraction_unreliable == 0


def mixed(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
        z = pyro.sample("z", dist.Normal(3 * MEANS[k.long()].float(), 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def poor(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(len(x), 3)))
        pyro.sample("z", dist.Normal(x + 0.1 * k, 0.2))


def test_continuous_latents_beside_them_are_those_of_the_marginal():
    x = X.flatten().float()
    log_evidence = (
        dist.Normal(3 * MEANS, 1.25**0.5).log_prob(x[:, None].double()) + torch.tensor([0.2, 0.5, 0.3]).log()
    ).logsumexp(-1)
    report = pv.evaluate(mixed, poor, x, num_particles=1000, progress=False)
    error = (report.log_evidence - log_evidence).abs()
    assert (error < 4 * report.mc_se_log_evidence + 1e-5).all() and report.fraction_unreliable == 0
    assert "encoder" not in report.route
    with isolated(mixed, poor) as (model, guide, _):
        torch.manual_seed(0)
        latents = Summed(Latents(model, guide, (x,)))
        values = latents.draw(4)
        by_hand = torch.stack(
            [dist.Normal(x + 0.1 * k, 0.2).log_prob(values["z"]) - math.log(3) for k in range(3)]
        ).logsumexp(0)
        torch.testing.assert_close(latents.log_guide(values), by_hand)
        assert list(latents.sites) == ["z"] and latents.num_dims == 1


def counts(x):
    with pyro.plate("data", len(x)):
        n = pyro.sample("n", dist.Poisson(torch.full((len(x),), 3.0)))
        pyro.sample("x", dist.Normal(n, 1.0), obs=x)


def counted(x):
    with pyro.plate("data", len(x)):
        pyro.sample("n", dist.Poisson(x.clamp_min(0.5)))


def test_what_cannot_be_summed_stays_at_the_encoder():
    report = pv.evaluate(counts, counted, torch.tensor([2.0, 4.0]), num_particles=50, progress=False)
    assert set(report.route) == {"encoder"}
    assert "all data stay at the encoder: site 'n' (Poisson) has no finite number of values" in report.summary()
