"""What a better prior would buy, where that is known; and where it has no meaning."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.diagnostics.factorization import Drawn
from pyrovae.diagnostics.priors.better import gains

QUIET = {"progress": False}


def pair(prior, posterior, observed=1.0):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), observed).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x))

    return model, guide


def normal(loc=0.0, scale=1.0, size=2):
    return dist.Normal(torch.full((size,), loc), torch.full((size,), scale)).to_event(1)


@pytest.fixture(scope="module")
def x():
    return torch.randn(400, 1, generator=torch.Generator().manual_seed(0))


def test_it_finds_what_the_best_prior_would_buy(x):
    """All codes are N(2, 1/4) twice: the best prior is that, and KL to the standard normal is known."""
    one = 0.5 * (0.25 + 4 - 1) - math.log(0.5)
    found = pv.surgery(*pair(normal, lambda x: normal(2.0, 0.5).expand([len(x)])), x, **QUIET).prior_gain
    assert found.mean == pytest.approx(2 * one, abs=4 * found.data_se + 0.05)  # and what 200 codes leave unknown
    assert 0 < found.mc_se < 0.2 and 0 < found.data_se < 0.2


def test_it_is_the_divergence_of_two_clusters(x):
    """A mixture sees codes at -4 and 4 with scale 1/2 as they are: within 0.1 nat of the marginal KL."""

    def posterior(x):
        return dist.Normal(torch.where(x > 0, 4.0, -4.0), 0.5).to_event(1)

    found = pv.surgery(*pair(lambda: normal(0.0, 4.0, 1), posterior), x, **QUIET)
    assert found.prior_gain.mean == pytest.approx(found.marginal_kl.mean, abs=0.1)


def test_the_right_prior_cannot_be_bettered():
    oracle = pv.oracles.ppca(6, 2)
    found = pv.surgery(oracle.model, oracle.guide, oracle.draw(400, seed=0)[0], **QUIET).prior_gain
    assert -0.1 < found.mean < 4 * found.data_se


def test_it_stays_below_where_the_marginal_kl_is_not_known():
    """Codes far narrower than their distances: mutual information is at its ceiling, the right prior is there."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(size=8))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.05).to_event(1))

    found = pv.surgery(model, guide, torch.randn(400, 8, generator=torch.Generator().manual_seed(1)), **QUIET)
    assert found.saturated and found.marginal_kl.mean > 5
    assert found.prior_gain.mean < 4 * found.prior_gain.data_se
    assert "a mixture" in found.summary()


def test_where_it_has_no_meaning(x):
    def beta(*args):
        return dist.Beta(torch.ones(2), torch.ones(2)).to_event(1)

    closed = pv.surgery(*pair(beta, lambda x: beta().expand([len(x)])), x, **QUIET)
    few = pv.surgery(*pair(normal, lambda x: normal().expand([len(x)])), x[:20], **QUIET)
    for found in (closed, few):
        assert math.isnan(found.prior_gain.mean) and "a mixture" not in found.summary()


def test_the_same_seed_gives_the_same():
    codes = torch.randn(2, 120, 3, generator=torch.Generator().manual_seed(2)).double()
    drawn = Drawn({"z": codes}, codes[..., 0], codes, codes, False, None)
    assert torch.equal(gains(drawn, seed=3), gains(drawn, seed=3))
    assert not torch.equal(gains(drawn, seed=3), gains(drawn, seed=4))
