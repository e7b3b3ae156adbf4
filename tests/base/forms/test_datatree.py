"""Every record as ArviZ takes it: names of groups and dimensions, and what ArviZ makes of draws of a known model."""

import functools
import math

import arviz_base
import arviz_stats
import numpy as np
import pytest
import torch
from arviz_stats.base.array import array_stats
from examples.records import every_record

import pyrovae as pv
from pyrovae.base.forms import datatree

EVERY = every_record()
pytestmark = [
    pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior"),
    pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedEvidence"),
]
OF_DRAWS = {
    "posterior on a grid": {"posterior": ("chain", "draw", "latent")},
    "posterior by NUTS": {"posterior": ("chain", "draw", "latent"), "guide": ("chain", "draw", "latent")},
    "completion": {
        "posterior": ("chain", "draw", "datum", "latent"),
        "posterior_predictive": ("chain", "draw", "datum", "x_dim_0"),
        "observed_data": ("datum", "x_dim_0"),
    },
    "predictive check": {"posterior_predictive": ("chain", "draw"), "prior_predictive": ("chain", "draw")},
    "draws": {
        "posterior": ("chain", "draw", "datum", "latent"),
        "log_likelihood": ("chain", "draw", "datum"),
        "log_prior": ("chain", "draw", "datum"),
        "sample_stats": ("chain", "draw", "datum"),
    },
}


@functools.cache
def tree_of(name):
    return EVERY[name]().to_datatree()


@pytest.mark.parametrize("name", OF_DRAWS)
def test_groups_and_dimensions_are_those_of_the_schema(name):
    tree = tree_of(name)
    for group, dims in OF_DRAWS[name].items():
        assert {variable.dims for variable in tree[group].dataset.data_vars.values()} == {dims}, group


@pytest.mark.parametrize("name", OF_DRAWS)
def test_arviz_gives_back_what_it_takes(name):
    tree = tree_of(name)
    assert arviz_base.convert_to_datatree(tree).identical(tree)
    again = type(tree).from_dict(dict(tree.to_dict()))
    again.attrs = tree.attrs
    assert again.identical(tree)


def test_a_report_says_where_each_datum_s_number_comes_from():
    found = tree_of("report")["constant_data"].dataset
    assert set(found["route"].values) <= {"encoder", "Laplace", "Newton", "moments", "mixture", "annealed", "summed"}
    assert {"pareto_k", "ess", "log_evidence"} <= set(found.data_vars) and found["ess"].dims == ("datum",)


# --------------------------------------------------------------------------------- what ArviZ makes of them


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(5, 2, noise=6.0)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(20, seed=0)[0]


def test_leave_one_out_is_the_evidence(oracle, x):
    """With weights fixed, data are independent, so that p(x_i | the others) = p(x_i) = 1 / E[1 / p(x_i|z) | x_i].

    ArviZ's PSIS-LOO of 1,000 draws of the exact posterior against log p(x) in closed form: each in 5 standard errors of
    a mean of these weights.
    """
    tree = pv.posterior(oracle.model, oracle.guide, x, num_draws=1000).to_datatree()
    found, exact = arviz_stats.loo(tree, pointwise=True), oracle.log_evidence(x).numpy()
    weight = np.exp(exact - tree["log_likelihood"]["x"].values[0])
    se = weight.std(0) / math.sqrt(1000)
    assert (np.asarray(found.pareto_k) < 0.67).all() and (se < 0.05).all()
    assert (np.abs(np.asarray(found.elpd_i) - exact) < 5 * se).all()
    assert abs(float(found.elpd) - exact.sum()) < 5 * np.sqrt((se**2).sum())


def test_weights_and_their_k_hat_are_the_report_s(oracle, x):
    """The mean weight of one draw after the other against log p(x) in closed form, in 5 of its standard errors."""
    guide = pv.widened(oracle.guide, 1.3)
    tree = pv.posterior(oracle.model, guide, x, num_draws=1000).to_datatree()
    log_weight = tree["sample_stats"]["log_weight"].values[0]
    weight = np.exp(log_weight - oracle.log_evidence(x).numpy())
    assert (np.abs(weight.mean(0) - 1) < 5 * weight.std(0) / math.sqrt(1000)).all()
    stats = tree["sample_stats"].dataset
    np.testing.assert_allclose(stats["log_p"] - stats["log_q"], stats["log_weight"])
    k = array_stats.psislw(-log_weight.T, axis=-1)[1]
    assert np.max(k) < 0.5  # wider than the posterior: light tails


def test_draws_of_the_model_are_prior_and_prior_predictive(oracle, x):
    tree = pv.sample(oracle.model, x, num_samples=6).to_datatree()
    assert tree["prior"]["z"].dims == ("chain", "draw", "latent") and tree["prior"]["z"].shape == (1, 6, 2)
    assert tree["prior_predictive"]["x"].shape == (1, 6, 5)
    seen = pv.reconstruct(oracle.model, oracle.guide, x, num_draws=2).to_datatree()
    np.testing.assert_array_equal(seen["observed_data"]["x"].values, x.numpy())
    decoded = pv.decode(oracle.model, x, {"z": torch.zeros(3, 2).to(x)}).to_datatree()
    assert decoded["predictions"]["x"].shape == (1, 3, 5)


def test_names_of_several_latents():
    found = datatree.draws({"a": torch.zeros(1, 3), "b": torch.zeros(1, 3, 2, 4)})
    assert found["b"].dims == ("chain", "draw", "b_dim_0", "b_dim_1")
