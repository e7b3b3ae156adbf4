"""The posterior on a grid against closed forms, to rounding."""

import math
from typing import ClassVar

import pyro.distributions as dist
import pytest
import scipy.integrate
import torch
from examples.moving import EXACT, WIDE
from examples.moving import X as BOUNDS
from examples.posteriors import BROKEN, SQUARED, ZERO, datum, exact_moments, gold, pair_of

import pyrovae as pv
from pyrovae.base.errors import UntrustedPosterior
from pyrovae.posteriors.reference import reference_posterior

GRIDS = {
    "one latent": lambda: pv.oracles.ppca(20, 1),
    "two latents": lambda: pv.oracles.ppca(20, 2),
    "two sites, one in a plate": lambda: pv.oracles.hierarchy(1),
    "a positive latent": lambda: pv.oracles.gamma_poisson(1),
    "two positive latents": lambda: pv.oracles.gamma_poisson(2),
    "a latent between 0 and 1": lambda: pv.oracles.beta_binomial(1),
}


@pytest.mark.parametrize("shift", [0.0, 3.0], ids=["near guide", "far guide"])
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_exact(name, shift):
    oracle = GRIDS[name]()
    x = datum(oracle, seed=3)
    found = reference_posterior(
        oracle.model, pv.widened(oracle.guide, 0.5, shift=shift), x, num_draws=2000, progress=False
    )
    assert found.method == "grid"
    assert abs(found.log_evidence.value - oracle.log_evidence(x).item()) < 1e-6
    assert found.log_evidence.error < 1e-6
    for site, (mean, sd) in exact_moments(oracle, x).items():
        torch.testing.assert_close(found.moments.mean[site].flatten(), mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.moments.sd[site].flatten(), sd, rtol=1e-6, atol=1e-6)
        draws = found.values[site].reshape(2000, -1)
        # 4.5 standard errors, of the mean and (with a kurtosis of at most 9) of the standard deviation.
        assert ((draws.mean(0) - mean).abs() < 4.5 * sd / math.sqrt(2000)).all()
        assert ((draws.std(0) / sd - 1).abs() < 4.5 * math.sqrt(2.0 / 2000)).all()


def test_the_grid_of_the_record_is_the_density():
    oracle = pv.oracles.gamma_poisson(2)
    x = datum(oracle)
    grid = gold(oracle, x, num_draws=4).diagnostics
    size = len(grid.axes[0])
    assert grid.values["z"].shape == (size, size, 2) and grid.log_density.shape == (size, size)
    torch.testing.assert_close(grid.values["z"][:, 0, 0].log(), grid.axes[0])
    expected = oracle.posterior(x).log_prob(grid.values["z"])
    likely = expected > -30
    torch.testing.assert_close(grid.log_density[likely], expected[likely], rtol=1e-8, atol=1e-8)
    assert abs(grid.log_mass.exp().sum().item() - 1) < 1e-10


def test_draws_of_a_grid_follow_the_density():
    # Kolmogorov's distance of 5,000 independent draws is above 2 / sqrt(5000) with probability 7e-4.
    oracle = pv.oracles.gamma_poisson(1)
    x = datum(oracle)
    draws = gold(oracle, x, num_draws=5000).values["z"].flatten().sort().values
    expected = torch.distributions.Gamma(oracle.concentration + x[0], oracle.rate + 1).cdf(draws)
    assert (expected - (torch.arange(5000) + 0.5) / 5000).abs().max() < 2 / math.sqrt(5000)
    assert draws.unique().numel() == 5000


def test_a_grid_holds_both_modes():
    x = torch.tensor([2.0], dtype=torch.float64)

    def density(z, power):
        log_prob = dist.Normal(ZERO, 1.0).log_prob(z) + dist.Normal(z.square(), 0.1).log_prob(x[0])
        return log_prob.exp().item() * z.item() ** power

    def moment(power):
        return 2 * scipy.integrate.quad(lambda z: density(ZERO + z, power), 0, 3, epsabs=1e-13, limit=200)[0]

    found = reference_posterior(*SQUARED, x, progress=False)
    assert abs(found.log_evidence.value - math.log(moment(0))) < 1e-6
    assert abs(found.moments.mean["z"]) < 1e-6
    assert abs(found.moments.sd["z"] - math.sqrt(moment(2) / moment(0))) < 1e-6
    share = (found.values["z"] > 0).double().mean()
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(2000)  # 4 standard errors


HARD = {  # prior, likelihood, guide, datum, exact log p(x)
    "a millionth of the prior's width": (
        lambda: dist.Normal(ZERO, 1.0),
        lambda z: dist.Normal(z, 1e-6),
        lambda: dist.Normal(ZERO, 1.0),
        3.0,
        lambda x: dist.Normal(ZERO, math.sqrt(1 + 1e-12)).log_prob(x),
    ),
    "hundreds of e-foldings long": (
        lambda: dist.Gamma(ZERO + 0.05, 1.0),
        dist.Poisson,
        lambda: dist.Gamma(ZERO + 1.0, 1.0),
        0.0,
        lambda x: dist.GammaPoisson(ZERO + 0.05, ZERO + 1.0).log_prob(x),
    ),
    "heavy tails": (
        lambda: dist.StudentT(ZERO + 3.0, ZERO, 1.0),
        lambda z: dist.Normal(0.0 * z, 1.0),
        lambda: dist.Normal(ZERO, 0.1),
        0.0,
        lambda x: dist.Normal(ZERO, 1.0).log_prob(x),
    ),
    "the heaviest tails": (
        lambda: dist.Cauchy(ZERO, 1.0),
        lambda z: dist.Normal(0.0 * z, 1.0),
        lambda: dist.Normal(ZERO, 1.0),
        0.0,
        lambda x: dist.Normal(ZERO, 1.0).log_prob(x),
    ),
    "bounded": (
        lambda: dist.Uniform(ZERO, 1.0),
        lambda z: dist.Normal(0.0 * z, 1.0),
        lambda: dist.Beta(ZERO + 5.0, ZERO + 1.0),
        0.0,
        lambda x: dist.Normal(ZERO, 1.0).log_prob(x),
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_a_grid_finds_the_scale_by_itself(name):
    *programs, value, exact = HARD[name]
    x = torch.tensor([value], dtype=torch.float64)
    found = reference_posterior(*pair_of(*programs), x, method="grid", progress=False)
    assert abs(found.log_evidence.value - exact(x).item()) < 1e-6


def test_a_mode_between_the_nodes_is_not_lost_if_a_draw_has_seen_it():
    def guide():
        centres = torch.tensor([0.1, 500.1], dtype=torch.float64)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(centres, 0.1))

    model, guide = pair_of(lambda: dist.Normal(ZERO, 1e3), lambda z: dist.Normal((z - 250.1).abs(), 0.1), guide)
    found = reference_posterior(model, guide, torch.full((1,), 250.0, dtype=torch.float64), progress=False)
    prior = dist.Normal(ZERO, 1e3).log_prob(torch.tensor([0.1, 500.1], dtype=torch.float64))
    assert abs(found.log_evidence.value - prior.logsumexp(0)) < 1e-6  # each mode weighs what the prior says there
    assert (found.values["z"] > 250).any() and (found.values["z"] < 250).any()


def test_a_ridge_across_the_axes():
    covariance = torch.tensor([[1.0, 0.99], [0.99, 1.0]], dtype=torch.float64)
    prior = dist.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    model, guide = pair_of(
        lambda: prior,
        lambda z: dist.Normal(0.0 * z[..., 0], 1.0),
        lambda: dist.Normal(torch.zeros(2, dtype=torch.float64), 0.1).to_event(1),
    )
    x = torch.zeros(1, dtype=torch.float64)
    found = reference_posterior(model, guide, x, num_draws=2000, progress=False)
    assert abs(found.log_evidence.value - dist.Normal(ZERO, 1.0).log_prob(x).item()) < 1e-6
    assert abs(torch.corrcoef(found.values["z"][0].T)[0, 1] - 0.99) < 4 * (1 - 0.99**2) / math.sqrt(2000)


def test_a_grid_too_coarse_says_so():
    model, guide = pair_of(normal(sd=1e3), lambda z: Given(1e4 * (1e4 * z).sin()), normal(sd=1e3))
    with pytest.warns(UntrustedPosterior, match=r"finest grid leaves an error of at least .* method='nuts'"):
        reference_posterior(model, guide, torch.zeros(1, dtype=torch.float64), progress=False)


@pytest.mark.parametrize("name", BROKEN)
def test_a_density_that_no_grid_holds(name):
    likelihood, seen = BROKEN[name]
    model, guide = pair_of(lambda: dist.Normal(ZERO, 1.0), likelihood, lambda: dist.Normal(ZERO, 1.0))
    with pytest.raises(FloatingPointError, match=seen):
        reference_posterior(model, guide, torch.ones(1, dtype=torch.float64), progress=False)


def mixture(centres, widths, weights, *, base, move=lambda z: (z, 0.0)):
    """A prior, and a likelihood such that p(x, z) is a mixture of Gaussians (in ``move(z)``), of evidence 1."""
    centres, widths, weights = (torch.tensor(each, dtype=torch.float64) for each in (centres, widths, weights))
    event_dim = centres.dim() - 1

    def likelihood(z):
        u, log_slope = move(z)
        each = dist.Normal(centres, widths).log_prob(u[..., None] if event_dim == 0 else u[..., None, :])
        each = each if event_dim == 0 else each.sum(-1)
        return Given((each + weights.log()).logsumexp(-1) + log_slope - base().log_prob(z))

    return base, likelihood


class Given(dist.TorchDistribution):
    """A factor: its log density is what was given."""

    arg_constraints: ClassVar = {}
    support = dist.constraints.real

    def __init__(self, log_prob):
        self.given = log_prob
        super().__init__(log_prob.shape, torch.Size(), validate_args=False)

    def log_prob(self, value):
        return self.given + 0 * value

    def sample(self, sample_shape=()):
        return torch.zeros(torch.Size(sample_shape) + self.given.shape, dtype=torch.float64)

    def expand(self, batch_shape, _instance=None):
        return Given(self.given.expand(batch_shape))


def normal(mean=0.0, sd=1.0):
    return lambda: dist.Normal(ZERO + mean, sd)


def plane(mean=(0.0, 0.0), sd=1.0):
    return lambda: dist.Normal(torch.tensor(mean, dtype=torch.float64), sd).to_event(1)


SPIKED = {  # centres, widths, weights, prior, guide; the modes there are
    "two alike": ((-1.0, 1.0), (0.005, 0.005), (0.5, 0.5), normal(), normal(1.0, 0.01), 2),
    "unequal": ((-0.31, 2.7), (0.005, 0.05), (0.5, 0.5), normal(), normal(2.7, 0.1), 2),
    "near each other": ((0.1, 0.3), (0.005, 0.05), (0.3, 0.7), normal(), normal(0.1, 0.01), 2),
    "a millionth": ((-1.0, 1.0), (1e-6, 1e-5), (0.4, 0.6), normal(), normal(-1.0, 2e-6), 2),
    "three": ((-2.0, 0.5, 0.7), (0.001, 0.01, 0.005), (0.2, 0.3, 0.5), normal(), normal(0.5, 0.02), 3),
    "narrow within a wide": ((0.0, 0.3), (1.0, 0.005), (0.5, 0.5), normal(), normal(), 1),
    "two in a plane": (
        ((-1.0, 0.3), (1.2, 0.8)),
        ((0.005, 0.005), (0.01, 0.05)),
        (0.5, 0.5),
        plane(),
        plane((-1.0, 0.3), 0.01),
        2,
    ),
    "narrow within a wide plane": (
        ((0.0, 0.0), (0.2, 0.8)),
        ((1.0, 1.0), (0.005, 0.005)),
        (0.5, 0.5),
        plane(),
        plane((0.2, 0.8), 0.005),
        1,
    ),
}


@pytest.mark.parametrize("name", SPIKED)
def test_no_mode_is_missed(name):
    centres, widths, weights, prior, guide, num_modes = SPIKED[name]
    pair = pair_of(*mixture(centres, widths, weights, base=prior), guide)
    x = torch.zeros(1, dtype=torch.float64)
    found = reference_posterior(*pair, x, method="grid", num_draws=1000, progress=False)
    assert abs(found.log_evidence.value) < 1e-6
    assert found.diagnostics.num_modes == num_modes
    mean = (torch.tensor(weights, dtype=torch.float64) @ torch.tensor(centres, dtype=torch.float64)).reshape(-1)
    torch.testing.assert_close(found.moments.mean["z"].reshape(-1), mean, rtol=1e-6, atol=1e-6)
    spread = found.moments.sd["z"] / math.sqrt(1000)
    assert ((found.values["z"].mean((0, 1)) - mean).abs() < 4.5 * spread).all()  # 4.5 standard errors


def test_no_mode_is_missed_on_a_positive_support():
    def move(z):
        return z.log(), -z.log()

    base = lambda: dist.LogNormal(ZERO, 1.0)  # noqa: E731
    pair = pair_of(
        *mixture((-1.0, 1.5), (0.005, 0.02), (0.3, 0.7), base=base, move=move), lambda: dist.LogNormal(ZERO - 1, 0.02)
    )
    found = reference_posterior(*pair, torch.zeros(1, dtype=torch.float64), progress=False)
    assert abs(found.log_evidence.value) < 1e-6 and found.diagnostics.num_modes == 2
    assert "modes: 2; importance sampling from the guide gives" in found.diagnostics.lines()[1]


def test_what_importance_sampling_finds_and_the_grid_has_not_is_said(monkeypatch):
    oracle = pv.oracles.ppca(20, 1)
    monkeypatch.setattr("pyrovae.posteriors.grid.SCOUTS", 1000)
    found = gold(oracle, datum(oracle), num_draws=4).diagnostics
    assert not found.doubts() and abs(found.sampled.value - found.log_evidence) < 1e-9
    missed = found._replace(log_evidence=found.log_evidence - math.log(2))
    assert "0.69 nats below that of importance sampling from the guide: it has missed" in missed.doubts()[0]


@pytest.mark.parametrize("pair", [EXACT, WIDE], ids=["exact guide", "wide guide"])
def test_a_density_that_ends_within_the_grid(pair):
    """x ~ U(0, z), p(x) = exp(-x): where the density jumps, the rule is of first order, and says so."""
    found = reference_posterior(*pair, BOUNDS[1:2], method="grid", num_draws=2000, progress=False)
    assert abs(found.log_evidence.value + BOUNDS[1].item()) < 2 * found.log_evidence.error < 1e-3
    assert abs(found.moments.mean["z"].item() - 2) < 1e-3  # one more than x
    assert (found.values["z"] > BOUNDS[1] - 1e-3).all()
