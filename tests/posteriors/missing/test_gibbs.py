"""Chains of latents given what was observed: their stationary law, how many draws they keep, and what they refuse."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.posteriors.missing.gibbs import LEAST_STEPS, Chains


@pytest.mark.parametrize(("num_draws", "num_chains"), [(1, 4), (10, 4), (1000, 4), (1000, 1)])
def test_as_many_draws_as_asked_for_are_kept_of_steps_enough(num_draws, num_chains):
    chains = Chains(num_draws, num_chains, 10, 0)
    assert chains.num_kept * num_chains >= num_draws
    assert chains.num_steps >= LEAST_STEPS


def test_latents_have_the_posterior_of_what_was_observed(problem, by_chains):
    found, rows = by_chains, slice(2, 6)
    hidden = pv.hide(problem.x[rows], problem.observed[rows])
    posterior, ess = problem.oracle.posterior(hidden), found.mixing.ess.clamp(max=800)
    away = (found.values["z"].mean(0) - posterior.mean) / posterior.stddev * ess.sqrt()[:, None]
    assert away.abs().max() < 4.5  # standard errors of so many effective draws, of 8 means
    ratio = found.values["z"].var(0) / posterior.variance - 1
    assert (ratio.abs() < 4.5 * (2 / ess).sqrt()[:, None]).all()


def test_a_guide_with_auxiliary_draws_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 2), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(torch.zeros(len(x)), 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(u, 1.0))

    with pytest.raises(InputError, match="site 'u' is drawn by the guide and unknown to the model"):
        pv.conditional(model, guide, torch.zeros(2, 2), torch.tensor([True, False]), method="gibbs")
