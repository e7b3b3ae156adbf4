"""Distributions from natural parameters against torch's, against their integrals and against their own draws."""

import math

import pyro
import pytest
import torch

from pyrovae.programs.distributions.exponential import Bernoulli, Binomial, ContinuousBernoulli, Poisson, stirling

NATURAL = {
    "binomial": lambda parameter: Binomial(9, parameter),
    "poisson": Poisson,
    "continuous_bernoulli": ContinuousBernoulli,
}
ODDS = torch.cat([torch.linspace(-30, 30, 41), torch.linspace(-0.004, 0.004, 60)]).double()  # 101, |p - 1/2| < 1e-3


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=NATURAL.values(), ids=NATURAL.keys())
def natural(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_continuous_bernoulli_integrates_to_one(dtype):
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    density = ContinuousBernoulli(ODDS.to(dtype)).log_prob(x.to(dtype)).double().exp()
    integral = torch.trapezoid(density, x, dim=0)
    torch.testing.assert_close(integral, torch.ones(101).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("logit", "x"), [(120.0, 0.0), (-120.0, 1.0)])
def test_the_continuous_bernoulli_too(logit, x, dtype):
    # log p = -|l| (1 - x or x) + log |l| - log(1 - e^-|l|)
    log_prob = ContinuousBernoulli(torch.tensor(logit, dtype=dtype)).log_prob(torch.tensor(x, dtype=dtype))
    assert log_prob.item() == pytest.approx(-120 + math.log(120), abs=1e-4)


class TestNaturalFamilies:
    """Binomial, Poisson and ContinuousBernoulli: A, A' and A'' fit together and to the draws."""

    eta = torch.cat([torch.linspace(-4, 4, 33), torch.tensor([-0.25, 0.2499, 1e-8, 0.01, -0.0099])]).double()

    def test_moments_are_the_derivatives_of_the_log_normalizer(self, natural):
        eta = self.eta.clone().requires_grad_()
        (mean,) = torch.autograd.grad(natural(eta).log_normalizer().sum(), eta, create_graph=True)
        (variance,) = torch.autograd.grad(mean.sum(), eta)
        torch.testing.assert_close(mean, natural(self.eta).mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(variance, natural(self.eta).variance, rtol=1e-11, atol=1e-12)

    def test_draws_have_these_moments(self, natural):
        y = natural(self.eta)
        x = y.sample((50_000,))
        # 5 standard errors of a mean, and of a variance by the draws' own fourth moment.
        assert ((x.mean(0) - y.mean).abs() < 5 * (y.variance / 50_000).sqrt()).all()
        squares = (x - y.mean).square()
        assert ((squares.mean(0) - y.variance).abs() < 5 * squares.std(0) / math.sqrt(50_000)).all()

    def test_expanding_keeps_type_and_validation(self, natural):
        y = natural(torch.zeros(3))
        for on in (True, False):
            y._validate_args = on
            expanded = y.expand((4, 3))
            assert type(expanded) is type(y) and expanded._validate_args is on
        assert expanded.log_prob(expanded.sample((2,))).shape == (2, 4, 3)

    def test_parameters_that_are_not_numbers_are_refused(self, natural):
        with pyro.validation_enabled(), pytest.raises(ValueError, match="natural"):
            natural(torch.tensor(math.nan))

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
    def test_binomial_agrees_with_torch(self, dtype, tolerance):
        logits, counts = torch.randn(50, 17, dtype=dtype), torch.arange(17, dtype=dtype)
        ours, theirs = Binomial(16, logits), torch.distributions.Binomial(16, logits=logits)
        scale = {"rtol": 8 * tolerance, "atol": 8 * tolerance}  # a log mass is a sum of terms of up to 30 nats
        torch.testing.assert_close(ours.log_prob(counts), theirs.log_prob(counts), **scale)
        torch.testing.assert_close(ours.log_prob(counts).exp(), theirs.log_prob(counts).exp(), rtol=0, atol=tolerance)
        torch.testing.assert_close((ours.mean, ours.variance), (theirs.mean, theirs.variance), **scale)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-14)], ids=str)
    def test_bernoulli_agrees_with_torch(self, dtype, tolerance):
        logits, bits = torch.linspace(-45, 45, 181, dtype=dtype), torch.tensor([[0.0], [1.0]], dtype=dtype)
        ours, theirs = Bernoulli(logits=logits), torch.distributions.Bernoulli(logits=logits)
        torch.testing.assert_close(ours.log_prob(bits), theirs.log_prob(bits), rtol=1e-6, atol=tolerance)

    def test_bernoulli_is_still_torchs(self):
        # What Pyro and torch know of a Bernoulli: its closed-form KL, its expansion and its two values.
        ours, theirs = Bernoulli(logits=torch.randn(4)), torch.distributions.Bernoulli(logits=torch.randn(4))
        kl = torch.distributions.kl_divergence
        assert torch.equal(kl(ours, theirs), kl(torch.distributions.Bernoulli(logits=ours.logits), theirs))
        assert type(ours.expand((3, 4))) is Bernoulli
        assert ours.enumerate_support().shape == (2, 4)

    def test_binomial_frequencies(self):
        y = Binomial(6, torch.tensor([-1.0, 0.0, 2.0]).double())
        x = y.sample((100_000,))
        for count in range(7):
            share = y.log_prob(torch.full((3,), float(count))).exp()
            error = (share * (1 - share) / 100_000).sqrt()
            assert (((x == count).double().mean(0) - share).abs() < 5 * error).all()  # 5 standard errors

    def test_poisson_agrees_with_torch(self):
        log_rate, counts = torch.randn(50, 30).double(), torch.arange(30).double()
        theirs = torch.distributions.Poisson(log_rate.exp()).log_prob(counts)
        torch.testing.assert_close(Poisson(log_rate).log_prob(counts), theirs, rtol=1e-12, atol=1e-12)

    def test_continuous_bernoulli_agrees_with_torch_where_that_is_exact(self):
        logits = torch.tensor([-9.0, -2.0, -0.3, 0.1, 1.0, 8.0]).double()
        x = torch.linspace(0, 1, 11).double()[:, None]
        theirs = torch.distributions.ContinuousBernoulli(logits=logits)
        torch.testing.assert_close(ContinuousBernoulli(logits).log_prob(x), theirs.log_prob(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ContinuousBernoulli(logits).mean, theirs.mean, rtol=1e-9, atol=1e-9)

    def test_continuous_bernoulli_draws_have_its_distribution_function(self):
        # Kolmogorov's statistic, whose 1e-4 quantile is 2.23 / sqrt(n), at each of seven slopes.
        slopes = torch.tensor([-200.0, -5.0, -0.02, 0.0, 0.005, 0.5, 60.0]).double()
        x = ContinuousBernoulli(slopes).sample((20_000,)).sort(0).values
        grid = slopes.where(slopes != 0, 1e-9)
        cdf = torch.expm1(grid * x) / torch.expm1(grid)
        steps = torch.arange(1, 20_001).double()[:, None] / 20_000
        assert ((cdf - steps).abs().amax(0) < 2.23 / math.sqrt(20_000)).all()

    @pytest.mark.parametrize("side", [-1, 1])
    def test_continuous_bernoulli_draws_do_not_jump_where_the_series_ends(self, side):
        draws = []
        for logit in (0.01 - 1e-9, 0.01 + 1e-9):
            pyro.set_rng_seed(0)
            draws.append(ContinuousBernoulli(torch.tensor(side * logit, dtype=torch.float64)).sample((1000,)))
        torch.testing.assert_close(*draws, rtol=0, atol=1e-9)

    def test_continuous_bernoulli_draws_carry_the_gradient_of_the_mean(self):
        logits = torch.tensor([-200.0, -5.0, -0.02, 0.0, 0.005, 0.5, 60.0]).double().requires_grad_()
        y = ContinuousBernoulli(logits)
        blocks = [torch.autograd.grad(y.rsample((500,)).mean(0).sum(), logits)[0] for _ in range(100)]
        gradient, error = torch.stack(blocks).mean(0), torch.stack(blocks).std(0) / 10
        assert ((gradient - y.variance).abs() < 5 * error).all()  # 5 standard errors


LARGE = torch.tensor([0.0, 1.0, 900.0, 59_000.0, 60_000.0])[:, None]


@pytest.mark.parametrize("make", [Poisson, lambda eta: Binomial(60_000, eta - 10.0)], ids=["poisson", "binomial"])
def test_large_counts_lose_no_digit_in_float32(make):
    """600,000 nats cancel in it: written as x eta - A(eta) + h(x), 0.05 nats would be lost."""
    eta = torch.tensor([-5.0, 0.0, 4.0, 9.9, 10.8, 11.0, 13.0])
    found, expected = (make(eta.to(dtype)).log_prob(LARGE.to(dtype)) for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(found.double(), expected, rtol=3e-5, atol=3e-4)
    parted = make(eta.double())  # by natural parameter, normalizer and base, which is exact enough in double
    whole = LARGE.double() * parted.natural - parted.log_normalizer() + parted.log_base(LARGE.double())
    torch.testing.assert_close(expected, whole, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("make", [Poisson, lambda eta: Binomial(2000, eta)], ids=["poisson", "binomial"])
def test_large_counts_have_right_gradients(make):
    eta, x = torch.tensor([-1.0, 2.0, 6.0]).double().requires_grad_(), torch.tensor([0.0, 1.0, 7.0, 600.0]).double()
    assert torch.autograd.gradcheck(lambda eta: make(eta).log_prob(x[:, None]), eta)
    assert torch.autograd.gradgradcheck(lambda eta: make(eta).log_prob(x[:, None]), eta)


def test_a_poisson_has_no_mass_below_zero():
    assert Poisson(torch.zeros(2), validate_args=False).log_prob(torch.tensor([-1.0, -3.0])).eq(-math.inf).all()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 5e-7), (torch.float64, 1e-13)], ids=str)
def test_stirlings_remainder(dtype, error):
    a = torch.logspace(-6, 3, 60, dtype=torch.float64).to(dtype)
    wide = a.double()
    expected = torch.lgamma(wide) - (wide - 0.5) * wide.log() + wide - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(stirling(a).double(), expected, rtol=error, atol=max(error, 2e-12))
    assert stirling(torch.tensor(1e6).double()).item() == pytest.approx(1 / 12e6, rel=1e-4)
