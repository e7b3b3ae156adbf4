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
    assert 0 < found.mc_se <= found.data_se < 0.2


def test_it_is_no_more_than_the_divergence_of_two_clusters(x):
    """A mixture sees clusters: log 2 nats beyond the best normal's, of codes at -4 and 4 with scale 1/2."""
    where = torch.where(x > 0, 4.0, -4.0)
    found = pv.surgery(
        *pair(lambda: normal(0.0, 4.0, 1), lambda x: dist.Normal(where[: len(x)], 0.5).to_event(1)), x, **QUIET
    )
    assert found.prior_gain.mean == pytest.approx(found.marginal_kl.mean, abs=0.1)


def test_the_right_prior_cannot_be_bettered():
    oracle = pv.oracles.ppca(6, 2)
    found = pv.surgery(oracle.model, oracle.guide, oracle.draw(400, seed=0)[0], **QUIET).prior_gain
    assert -0.1 < found.mean < 4 * found.data_se


def test_it_stays_below_where_the_marginal_kl_is_not_known(x):
    """Codes far narrower than their distances: mutual information is at its ceiling, the right prior is there."""

    def posterior(x):
        generator = torch.Generator().manual_seed(1)
        return dist.Normal(torch.randn(400, 8, generator=generator)[: len(x)], 0.01).to_event(1)

    found = pv.surgery(*pair(lambda: normal(size=8), posterior), x, **QUIET)
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


def test_the_same_seed_gives_the_same(x):
    codes = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(2))
    drawn = Drawn({"z": codes}, codes[..., 0], codes, codes, False, None)
    assert torch.equal(gains(drawn, seed=3), gains(drawn, seed=3))
    assert not torch.equal(gains(drawn, seed=3), gains(drawn, seed=4))
