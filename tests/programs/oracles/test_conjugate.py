"""Conjugate programs against SciPy's compound distributions, quadrature and sums over all data."""

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from examples.exact import close

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.widened import widened
from pyrovae.programs.oracles.conjugate import BetaBinomial, GammaPoisson, beta_binomial, gamma_poisson

CONJUGATE = {"gamma-poisson": lambda: gamma_poisson(3), "beta-binomial": lambda: beta_binomial(3)}
POINTS = {  # a grid over the support on which the trapezoid rule is exact to rounding, and its weights
    "gamma-poisson": np.linspace(-40, 7, 20001),
    "beta-binomial": np.linspace(-45, 45, 20001),
}


@pytest.fixture(params=CONJUGATE)
def name(request):
    return request.param


@pytest.fixture
def oracle(name):
    return CONJUGATE[name]()


def test_gamma_poisson_is_negative_binomial():
    oracle = gamma_poisson(3)
    x, _ = oracle.draw(50, seed=0)
    rate = oracle.rate.numpy()
    mass = scipy.stats.nbinom.logpmf(x.numpy(), oracle.concentration.numpy(), rate / (1 + rate))
    close(oracle.log_evidence(x), torch.from_numpy(mass.sum(1)))


def test_beta_binomial_is_what_scipy_says():
    oracle = beta_binomial(3, num_trials=7)
    x, _ = oracle.draw(50, seed=0)
    mass = scipy.stats.betabinom.logpmf(x.numpy(), 7, oracle.concentration1.numpy(), oracle.concentration0.numpy())
    close(oracle.log_evidence(x), torch.from_numpy(mass.sum(1)))


def test_evidence_and_posterior_by_quadrature(name, oracle):
    # The trapezoid rule on the real line: z = exp(u) or 1 / (1 + exp(-u)), with the Jacobian of each.
    x, _ = oracle.draw(4, seed=0)
    u = torch.from_numpy(POINTS[name])
    z, jacobian = (u.exp(), u.exp()) if name == "gamma-poisson" else (u.sigmoid(), u.sigmoid() * (-u).sigmoid())
    z, jacobian = z[:, None, None], jacobian[:, None, None]
    joint = (oracle.prior().base_dist.log_prob(z) + oracle.likelihood(z).base_dist.log_prob(x)).exp() * jacobian
    evidence = torch.trapezoid(joint, u, dim=0)
    close(oracle.log_evidence(x), evidence.log().sum(1))
    close(oracle.posterior(x).mean, torch.trapezoid(joint * z, u, dim=0) / evidence)


def test_evidence_sums_to_one(oracle):
    # Each feature by itself, as the evidence is a product.
    counts = torch.arange(1000 if isinstance(oracle, GammaPoisson) else oracle.num_trials + 1).double()
    mass = oracle.evidence().base_dist.log_prob(counts[:, None]).exp().sum(0)
    close(mass, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(("scale", "shift", "finite"), [(1.3, 0.3, True), (0.6, 0.0, False)])
def test_where_the_weights_have_a_second_moment(name, oracle, scale, shift, finite):
    # E_q[w^2] is the integral of z^(2a - a' - 1) e^-((2b - b') z), or of z^(2a - a' - 1) (1 - z)^(2b - b' - 1).
    x, _ = oracle.draw(1000, seed=0)
    with pyro.get_param_store().scope():
        guide = pyro.poutine.trace(widened(oracle.guide, scale, shift=shift)).get_trace(x).nodes["z"]["fn"].base_dist
    posterior = oracle.posterior(x).base_dist
    names = ("concentration", "rate") if name == "gamma-poisson" else ("concentration1", "concentration0")
    assert all((getattr(guide, n) < 2 * getattr(posterior, n)).all() == finite for n in names)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GammaPoisson(torch.zeros(2), torch.ones(2)), "concentration must be positive everywhere; got 0"),
        (lambda: GammaPoisson(torch.ones(2), -torch.ones(2)), "rate must be positive everywhere; got -1"),
        (lambda: GammaPoisson(torch.ones(2), torch.ones(3)), r"rate of shape \(2,\); got \(3,\)"),
        (lambda: BetaBinomial(torch.ones(2), torch.zeros(2), 3), "concentration0 must be positive"),
        (lambda: BetaBinomial(torch.ones(2), torch.ones(3), 3), r"concentration0 of shape \(2,\)"),
        (lambda: BetaBinomial(torch.ones(2), torch.ones(2), 0), "num_trials must be at least 1, got 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()
