"""Densities of families against SciPy's, in double at random parameters and in float32 at large ones."""

import numpy as np
import pytest
import scipy.stats
import torch
from examples.families import parameters_of

from pyrovae.programs import families
from pyrovae.programs.distributions.counts import BetaBinomial, NegativeBinomial, ZeroInflated
from pyrovae.programs.distributions.events import MixedColumns
from pyrovae.programs.distributions.exponential import Poisson
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


@pytest.mark.parametrize("dispersion", [1e-3, 1.0, 30.0, 1e6, 1e8])
def test_negative_binomials_in_float32_lose_no_digit(dispersion):
    mean, x = torch.tensor([0.1, 3.0, 80.0]), torch.tensor([0.0, 1.0, 7.0, 90.0])[:, None]
    found = NegativeBinomial(mean.log(), torch.tensor(dispersion).log()).log_prob(x)
    r, m = dispersion, mean.double().numpy()
    expected = scipy.stats.nbinom(r, r / (r + m)).logpmf(x.double().numpy())
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("concentration", [1e-3, 1.0, 30.0, 1e6, 1e8])
def test_beta_binomials_in_float32_lose_no_digit(concentration):
    logits, x = torch.tensor([-3.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 100.0, 255.0])[:, None]
    found = BetaBinomial(255, logits, torch.tensor(concentration).log()).log_prob(x)
    a, b = (concentration * p.double().sigmoid().numpy() for p in (logits, -logits))
    expected = scipy.stats.betabinom(255, a, b).logpmf(x.double().numpy())
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=1e-4)  # lgamma(256) is 1,168: 7e-5 in float32


def test_too_many_zeros_have_their_mass_and_a_gradient_far_out():
    gate, log_rate = (
        torch.tensor([-60.0, 0.0, 60.0], requires_grad=True),
        torch.tensor([5.0, 0.0, -60.0]).requires_grad_(),
    )
    y = ZeroInflated(Poisson(log_rate), gate)
    log_mass = y.log_prob(torch.tensor([[0.0], [2.0]]))
    with np.errstate(divide="ignore"):
        pi, p0 = gate.detach().double().sigmoid().numpy(), np.exp(-np.exp(log_rate.detach().double().numpy()))
        expected = np.log(pi + (1 - pi) * p0)
    np.testing.assert_allclose(log_mass[0].detach()[1:], expected[1:], rtol=1e-5, atol=1e-6)
    assert log_mass[0, 0].item() == pytest.approx(-60, abs=1e-4)  # Poisson's zero is e^-148
    assert all(each.isfinite().all() for each in torch.autograd.grad(log_mass.sum(), (gate, log_rate)))


def test_normals_of_low_rank_are_multivariate_normals():
    torch.manual_seed(0)
    loc, factor, raw = (each.detach() for each in parameters_of(families.low_rank_normal(2), (2, 2), (1,)))
    y = families.low_rank_normal(2).build(2, loc, factor, raw)
    covariance = factor[0] @ factor[0].T + positive(raw[0]).flatten().square().diag()
    theirs = scipy.stats.multivariate_normal(loc[0].flatten(), covariance)
    x = y.sample((20,))
    np.testing.assert_allclose(y.log_prob(x)[:, 0], theirs.logpdf(x.reshape(20, 4)), rtol=1e-9)
    np.testing.assert_allclose(y.variance[0].flatten(), np.diag(covariance), rtol=1e-9)


def test_documents_are_scored_by_their_own_totals():
    torch.manual_seed(0)
    (logits,) = (each.detach() for each in parameters_of(families.multinomial(7), (2, 3), (1,)))
    y = families.multinomial(7).build(2, logits)
    pi = logits.flatten().softmax(0).numpy()
    x = torch.cat([y.sample((5,)), torch.tensor([[[[0, 0, 0], [0, 1, 2.0]]], [[[0, 0, 0], [0, 0, 0]]]])]).double()
    expected = [scipy.stats.multinomial(int(row.sum()), pi).logpmf(row.flatten().numpy()) for row in x]
    np.testing.assert_allclose(y.log_prob(x)[:, 0], expected, rtol=1e-9, atol=1e-12)
    assert (x[:5].sum((-2, -1)) == 7).all()


class TestMixed:
    def columns(self):
        real, count, level = families.normal(), families.negative_binomial(), families.ordinal(4)
        return families.mixed([real, count, real, level])

    def test_columns_keep_their_places_and_their_densities(self):
        torch.manual_seed(0)
        family = self.columns()
        assert family.name == "mixed(normal x 2, negative_binomial x 1, ordinal(4) x 1)"
        parameters = [each.detach() for each in parameters_of(family, (4,), (6,))]
        loc, raw, log_mean, eta, dispersion, cuts = parameters
        y = family.build(1, *parameters)
        assert isinstance(y, MixedColumns) and (y.batch_shape, y.event_shape) == ((6,), (4,))
        x = y.sample((50,))
        parts = [
            families.normal().build(1, loc, raw).log_prob(x[..., [0, 2]]),
            families.negative_binomial().build(1, log_mean, dispersion).log_prob(x[..., [1]]),
            families.ordinal(4).build(1, eta, cuts).log_prob(x[..., [3]]),
        ]
        torch.testing.assert_close(y.log_prob(x), sum(parts))
        assert y.support.check(x).all() and (y.mean[:, [0, 2]] == loc).all()
        wrong = x.clone()
        wrong[..., 3] = 9
        assert not y.support.check(wrong).any()

    def test_rows_of_another_width_are_refused(self):
        with pytest.raises(Exception, match=r"mixed has 4 columns, but events have the shape \(5,\)"):
            self.columns().shapes(torch.Size([5]))
        with pytest.raises(Exception, match="a family for each column, got none"):
            families.mixed([])
