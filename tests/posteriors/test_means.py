"""Posterior means by closed forms, and their vectors."""

import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.data.split import as_split
from pyrovae.posteriors.means import ROWS_AT_ONCE, as_latents, as_vectors, posterior_means


def test_they_are_those_of_the_guide_in_blocks():
    oracle = pv.oracles.ppca(5, 2)
    x, _ = oracle.draw(ROWS_AT_ONCE + 20, seed=0)
    found = posterior_means(oracle.model, oracle.guide, as_split(x), 0)
    torch.testing.assert_close(found, {"z": oracle.posterior(x).mean})


def test_classes_have_none():
    oracle = pv.oracles.bernoulli_mixture(6, 3)
    with pytest.raises(InputError, match="site 'k' holds whole numbers, which have no posterior mean"):
        posterior_means(oracle.model, oracle.guide, as_split(oracle.draw(4, seed=0)[0]), 0)


def test_vectors_are_sites_side_by_side():
    sites = {"a": torch.randn(4, 2, 3), "b": torch.randn(4).double()}
    vectors = as_vectors({name: value.double() for name, value in sites.items()})
    assert vectors.shape == (4, 7)
    back = as_latents(vectors, sites)
    assert back["a"].dtype == torch.float32
    torch.testing.assert_close(back, sites)
