"""A datum of probabilistic PCA and chains on its posterior, drawn once."""

import pyro
import pytest
from examples.posteriors import datum

import pyrovae as pv
from pyrovae.posteriors.reference import reference_posterior


@pytest.fixture(scope="session")
def ppca():
    oracle = pv.oracles.ppca(20, 3)
    return oracle, datum(oracle)


@pytest.fixture(scope="session")
def chains(ppca):
    oracle, x = ppca
    guide = pv.widened(oracle.guide, 0.5, shift=1.0)
    with pyro.get_param_store().scope():
        return reference_posterior(
            oracle.model, guide, x, num_draws=500, num_chains=2, num_warmup=100, seed=1, progress=False
        )
