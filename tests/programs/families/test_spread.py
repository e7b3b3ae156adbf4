"""Densities of families against SciPy's, in double at random parameters."""

import numpy as np
import pytest
import scipy.stats
import torch
from examples.families import parameters_of

from pyrovae.programs import families
from pyrovae.programs.families import positive

SIGMOID = torch.sigmoid
EXPECTED = {  # family -> parameters -> SciPy's distribution
    "laplace": (families.laplace, lambda loc, raw: scipy.stats.laplace(loc, positive(raw))),
    "logistic": (families.logistic, lambda loc, raw: scipy.stats.logistic(loc, positive(raw))),
    "student-t": (lambda: families.student_t(3.5), lambda loc, raw: scipy.stats.t(3.5, loc, positive(raw))),
    "log-normal": (families.log_normal, lambda loc, raw: scipy.stats.lognorm(positive(raw), scale=loc.exp())),
    "gamma": (
        families.gamma,
        lambda log_mean, raw: scipy.stats.gamma(positive(raw), scale=log_mean.exp() / positive(raw)),
    ),
    "beta": (
        families.beta,
        lambda logits, raw: scipy.stats.beta(2 * positive(raw) * SIGMOID(logits), 2 * positive(raw) * SIGMOID(-logits)),
    ),
    "negative-binomial": (
        families.negative_binomial,
        lambda log_mean, r: scipy.stats.nbinom(r.exp(), (r.exp() / (r.exp() + log_mean.exp()))),
    ),
    "beta-binomial": (
        lambda: families.beta_binomial(9),
        lambda logits, c: scipy.stats.betabinom(9, c.exp() * SIGMOID(logits), c.exp() * SIGMOID(-logits)),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_log_densities_are_scipys(name):
    make, expected = EXPECTED[name]
    torch.manual_seed(0)
    family = make()
    parameters = [parameter.detach() for parameter in parameters_of(family, (4,), (30,))]
    y = family.build(1, *parameters)
    x = y.sample((50,))
    theirs = expected(*parameters)
    log_density = theirs.logpmf if y.support.is_discrete else theirs.logpdf
    np.testing.assert_allclose(y.base_dist.log_prob(x), log_density(x.numpy()), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y.mean, theirs.mean(), rtol=1e-9)
    np.testing.assert_allclose(y.variance, theirs.var(), rtol=1e-9)
