"""Numbers of rows: against what is known, alone or among others, annealed where nothing else vouches for them."""

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.apps.sklearn import programs, rows, scores
from pyrovae.apps.sklearn.estimator import VAE
from pyrovae.base.errors import UntrustedEvidence

PLAN = scores.plan_of(200, 3, "auto")


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(5, 2)


@pytest.fixture(scope="module")
def x(oracle):
    return pv.data.as_split(oracle.draw(30, seed=0)[0])


class Widened:
    """A pair whose guide is not the posterior."""

    def __init__(self, oracle, factor, shift=0.0):
        self.model, self.guide = oracle.model, pv.widened(oracle.guide, factor, shift=shift)


def test_a_guide_that_is_exact_needs_no_draws(oracle, x):
    torch.testing.assert_close(scores.log_evidence(oracle, x, PLAN), oracle.log_evidence(x.x), rtol=0, atol=1e-8)


def test_one_that_is_not_is_repaired(oracle, x):
    # The posterior is a Gaussian, which Laplace's approximation finds.
    found = scores.log_evidence(Widened(oracle, 0.3, shift=1.0), x, PLAN)
    torch.testing.assert_close(found, oracle.log_evidence(x.x), rtol=0, atol=1e-5)


def test_the_elbo_is_below_by_the_kl(oracle, x):
    """5 standard errors: KL of a Gaussian half as wide in two dimensions, the same for every row."""
    pair = Widened(oracle, 0.5)
    kl = oracle.log_evidence(x.x) - scores.elbo(pair, x, scores.plan_of(4000, 0, "importance"))
    expected = 2 * (-torch.tensor(0.5).log() + (0.25 - 1) / 2)
    assert (kl - expected).abs().max() < 5 * 0.75 * 2**-0.5 * 2**0.5 / 4000**0.5


@pytest.mark.parametrize("method", ["auto", "importance", "annealed"])
def test_a_row_depends_on_itself_alone(oracle, x, method):
    pair, plan = Widened(oracle, 0.6, shift=0.4), scores.plan_of(50, 0, method)
    few = x[:2] if method == "annealed" else x
    whole = scores.log_evidence(pair, few, plan)
    torch.testing.assert_close(scores.log_evidence(pair, few[1:2], plan), whole[1:2], rtol=0, atol=1e-9)
    if method != "annealed":  # which takes row by row anyway
        order = torch.arange(len(few)).flip(0)
        torch.testing.assert_close(scores.log_evidence(pair, few[order], plan), whole[order], rtol=0, atol=1e-9)


def test_what_nothing_vouches_for_is_said(oracle, x):
    with pytest.warns(UntrustedEvidence, match="of 30 rows, .* evidence\\(X\\) says more"):
        scores.log_evidence(Widened(oracle, 0.05), x, scores.plan_of(100, 0, "importance"))


OTHERS = [
    ("gamma", "gamma"),
    ("dirichlet", "dirichlet"),
    ("sphere", "power-spherical"),
    ("bernoulli", "bernoulli"),
    ("one-hot:3", "one-hot"),
    ("mixture:3", "iaf"),
    ("two-levels", "top-down"),
]


@pytest.mark.parametrize(("prior", "guide"), OTHERS)
def test_so_it_is_for_latents_of_every_space(prior, guide):
    """Rejection samplers, classes that are summed out, flows: by guides that were never fitted."""
    values = np.random.default_rng(0).normal(size=(6, 3))
    parts = {name: np.arange(6) for name in ("train", "valid", "test")}
    table = rows.table_of(values, None)
    data = rows.dataset_of(table, parts, likelihood=None, columns=None, standardize=None)
    record = programs.record_of({**VAE(prior=prior, guide=guide, hidden_layer_sizes=(6,)).get_params()}, seed=0)
    vae, plan = programs.build(record, data)[0], scores.plan_of(50, 0, "adaptive")
    x = data.train
    whole, order = scores.log_evidence(vae, x, plan), torch.arange(6).flip(0)
    assert whole.isfinite().all()
    torch.testing.assert_close(scores.log_evidence(vae, x[order], plan), whole[order], rtol=0, atol=1e-8)
    torch.testing.assert_close(scores.log_evidence(vae, x[4:5], plan), whole[4:5], rtol=0, atol=1e-8)
