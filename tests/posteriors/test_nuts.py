"""Chains within their errors of closed forms, and what speaks against them."""

import math

import pyro.distributions as dist
import pytest
import torch
from examples.moving import EXACT, WIDE
from examples.moving import X as BOUNDS
from examples.posteriors import BROKEN, SQUARED, ZERO, datum, exact_moments, gold, pair_of

import pyrovae as pv
from pyrovae.base.errors import InputError, UntrustedPosterior
from pyrovae.posteriors.nuts import Chains
from pyrovae.posteriors.reference import reference_posterior


def test_a_chain_that_cannot_start():
    model, guide = pair_of(lambda: dist.Normal(ZERO, 1.0), BROKEN["zero"][0], lambda: dist.Normal(ZERO, 1.0))
    with pytest.raises(FloatingPointError, match=r"a chain cannot start: log p\(x, z\) is -inf with site 'z' at "):
        reference_posterior(model, guide, torch.ones(1, dtype=torch.float64), method="nuts", progress=False)


def test_chains_mix_and_hold_the_exact_mean(ppca, chains):
    # 4 standard errors; the standard deviation's is about sd / sqrt(2 ess).
    oracle, x = ppca
    assert chains.method == "nuts" and chains.values["z"].shape == (2, 500, 3)
    assert chains.diagnostics.worst_rhat < 1.01 and chains.diagnostics.least_ess > 400
    assert chains.log_evidence is None and chains.diagnostics.divergences == [0, 0]
    mean, sd = exact_moments(oracle, x)["z"]
    assert ((chains.moments.mean["z"] - mean).abs() < 4 * chains.mean_error["z"]).all()
    assert (chains.mean_error["z"] < chains.moments.sd["z"] / math.sqrt(400)).all()
    assert ((chains.moments.sd["z"] / sd - 1).abs() < 4 / (2 * chains.diagnostics.ess["z"]).sqrt()).all()


def test_chains_agree_with_weighted_particles(ppca, chains):
    oracle, x = ppca
    weighted = reference_posterior(
        oracle.model, pv.widened(oracle.guide, 1.3, shift=0.3), x, method="resampled", progress=False
    )
    error = (chains.mean_error["z"].square() + weighted.mean_error["z"].square()).sqrt()
    assert ((chains.moments.mean["z"] - weighted.moments.mean["z"]).abs() < 4 * error).all()


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")  # so few draws
def test_chains_of_positive_latents():
    # 4 standard errors.
    oracle = pv.oracles.gamma_poisson(3)
    x = datum(oracle)
    found = gold(oracle, x, method="nuts", num_draws=100, num_chains=1, num_warmup=80)
    mean, _ = exact_moments(oracle, x)["z"]
    assert (found.values["z"] > 0).all()
    assert ((found.moments.mean["z"] - mean).abs() < 4 * found.mean_error["z"]).all()


class Counting:
    """A kernel whose state is where it started and 10,000 more for each of its steps."""

    def __init__(self, potential_fn):
        self.step = 0

    def setup(self, num_warmup):
        self.start = self.initial_params["u"]

    def sample(self, state):
        self.step += 1
        return {"u": self.start + 1e4 * self.step}

    def diagnostics(self):
        return {"divergences": [1, 3]}


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")
def test_chains_start_from_guide_and_prior_and_drop_their_warm_up(ppca, monkeypatch):
    monkeypatch.setattr("pyrovae.posteriors.nuts.NUTS", Counting)
    oracle, x = ppca
    far = pv.widened(oracle.guide, 1.0, shift=1000.0)
    found = reference_posterior(oracle.model, far, x, num_draws=5, num_warmup=7, num_chains=3, progress=False)
    steps = (found.values["z"] / 1e4).round()
    starts = found.values["z"] - 1e4 * steps
    assert steps[0, :, 0].tolist() == [8, 9, 10, 11, 12]
    assert (steps == steps[:1, :, :1]).all()
    assert (starts[:, 0] > 100).all(1).tolist() == [True, False, True]
    assert len(starts[:, 0].unique(dim=0)) == 3
    assert found.diagnostics.divergences == [2, 2, 2]


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")
def test_a_site_in_a_plate_keeps_its_shape():
    oracle = pv.oracles.hierarchy(3)
    found = gold(oracle, datum(oracle), num_draws=4, num_chains=2, num_warmup=2)
    assert found.values["theta"].shape == (2, 4, 3) and found.guide_values["theta"].shape == (4, 3)
    assert found.diagnostics.rhat["theta"].shape == (3,)
    assert found.names == ["mu", "theta[0]", "theta[1]", "theta[2]"]


def test_chains_in_unlike_modes_are_told():
    x = torch.tensor([9.0], dtype=torch.float64)
    with pytest.warns(UntrustedPosterior, match=r"R-hat is up to .* the chains disagree"):
        reference_posterior(*SQUARED, x, method="nuts", num_draws=30, num_chains=4, num_warmup=30, progress=False)


def test_what_speaks_against_chains():
    one = torch.ones(1)
    assert Chains({"z": one}, {"z": 500 * one}, [0, 0]).doubts() == []
    assert "3 transitions diverged" in Chains({"z": one}, {"z": 500 * one}, [0, 3]).doubts()[0]
    assert "R-hat is up to 1.020" in Chains({"a": one, "z": 1.02 * one}, {"z": 500 * one}, [0]).doubts()[0]
    assert "resampled" not in Chains({"z": 1.02 * one}, {"z": 500 * one}, [0]).doubts()[0]
    assert "R-hat is up to nan" in Chains({"z": math.nan * one}, {"z": 500 * one}, [0]).doubts()[0]


def test_no_chain_is_sent_where_no_gradient_leads_back():
    """x ~ U(0, z): the likelihood is zero below x."""
    for pair in (EXACT, WIDE):
        with pytest.raises(InputError, match=r"site 'x': under .* of the draws of the .* method='resampled'"):
            reference_posterior(*pair, BOUNDS[:1], method="nuts", progress=False)
