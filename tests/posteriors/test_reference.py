"""The posterior of one datum against closed forms: the grid to rounding, chains and weights within their errors."""

import logging
import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import scipy.integrate
import torch
from examples.small import make_data, make_vae
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError, UntrustedPosterior
from pyrovae.pairs.context import undisturbed
from pyrovae.pairs.latents import Latents
from pyrovae.posteriors.methods import Evidence
from pyrovae.posteriors.nuts import Chains
from pyrovae.posteriors.reference import exact_posterior
from pyrovae.posteriors.sir import Weights
from pyrovae.posteriors.unconstrained import RealLine

ZERO = torch.tensor(0.0, dtype=torch.float64)


def datum(oracle, seed=0):
    return oracle.draw(1, seed=seed)[0]


def gold(pair, x, **options):
    return exact_posterior(pair.model, pair.guide, x, progress=False, **options)


def exact_moments(oracle, x):
    """Site -> (mean, sd) of the posterior, by the oracle."""
    found = oracle.posterior(x)
    found = found if isinstance(found, dict) else {"z": found}
    return {name: (p.mean.flatten(), p.variance.sqrt().flatten()) for name, p in found.items()}


def pair_of(prior, likelihood, guide):
    """A pair with one latent site, from functions that give distributions."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def drawn(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide())

    return model, drawn


# ------------------------------------------------------------------------------------------------- the grid

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
    found = exact_posterior(oracle.model, pv.widened(oracle.guide, 0.5, shift=shift), x, num_draws=2000, progress=False)
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


SQUARED = pair_of(
    lambda: dist.Normal(ZERO, 1.0),
    lambda z: dist.Normal(z.square(), 0.1),
    lambda: dist.Normal(ZERO + 1, 0.2),  # knows one of two modes
)


def test_a_grid_holds_both_modes():
    x = torch.tensor([2.0], dtype=torch.float64)

    def density(z, power):
        log_prob = dist.Normal(ZERO, 1.0).log_prob(z) + dist.Normal(z.square(), 0.1).log_prob(x[0])
        return log_prob.exp().item() * z.item() ** power

    def moment(power):
        return 2 * scipy.integrate.quad(lambda z: density(ZERO + z, power), 0, 3, epsabs=1e-13, limit=200)[0]

    found = exact_posterior(*SQUARED, x, progress=False)
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
    found = exact_posterior(*pair_of(*programs), x, method="grid", progress=False)
    assert abs(found.log_evidence.value - exact(x).item()) < 1e-6


def test_a_mode_between_the_nodes_is_not_lost_if_a_draw_has_seen_it():
    def guide():
        centres = torch.tensor([0.1, 500.1], dtype=torch.float64)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(centres, 0.1))

    model, guide = pair_of(lambda: dist.Normal(ZERO, 1e3), lambda z: dist.Normal((z - 250.1).abs(), 0.1), guide)
    found = exact_posterior(model, guide, torch.full((1,), 250.0, dtype=torch.float64), progress=False)
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
    found = exact_posterior(model, guide, x, num_draws=2000, progress=False)
    assert abs(found.log_evidence.value - dist.Normal(ZERO, 1.0).log_prob(x).item()) < 1e-6
    assert abs(torch.corrcoef(found.values["z"][0].T)[0, 1] - 0.99) < 4 * (1 - 0.99**2) / math.sqrt(2000)


def test_a_grid_too_coarse_says_so():
    model, guide = pair_of(
        lambda: dist.Cauchy(ZERO, 1.0), lambda z: dist.Normal(0.0 * z, 1.0), lambda: dist.Normal(ZERO, 1.0)
    )
    with pytest.warns(UntrustedPosterior, match=r"finest grid leaves an error of at least .* method='nuts'"):
        exact_posterior(model, guide, torch.zeros(1, dtype=torch.float64), progress=False)


BROKEN = {
    "NaN": (lambda z: dist.Normal(z * math.nan, 1.0), r"log p\(x, z\) is nan with site 'z' at "),
    "zero": (lambda z: dist.Poisson(0 * z), r"log p\(x, z\) is -inf at every latent tried"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_density_that_no_grid_holds(name):
    likelihood, seen = BROKEN[name]
    model, guide = pair_of(lambda: dist.Normal(ZERO, 1.0), likelihood, lambda: dist.Normal(ZERO, 1.0))
    with pytest.raises(FloatingPointError, match=seen):
        exact_posterior(model, guide, torch.ones(1, dtype=torch.float64), progress=False)


def test_a_chain_that_cannot_start():
    model, guide = pair_of(lambda: dist.Normal(ZERO, 1.0), BROKEN["zero"][0], lambda: dist.Normal(ZERO, 1.0))
    with pytest.raises(FloatingPointError, match=r"a chain cannot start: log p\(x, z\) is -inf with site 'z' at "):
        exact_posterior(model, guide, torch.ones(1, dtype=torch.float64), method="nuts", progress=False)


# --------------------------------------------------------------------------------------------------- chains


@pytest.fixture(scope="module")
def ppca():
    oracle = pv.oracles.ppca(20, 3)
    return oracle, datum(oracle)


@pytest.fixture(scope="module")
def chains(ppca):
    oracle, x = ppca
    guide = pv.widened(oracle.guide, 0.5, shift=1.0)
    with pyro.get_param_store().scope():
        return exact_posterior(
            oracle.model, guide, x, num_draws=500, num_chains=2, num_warmup=100, seed=1, progress=False
        )


def test_chains_mix_and_hold_the_exact_mean(ppca, chains):
    # 4 standard errors; the standard deviation's is about sd / sqrt(2 ess).
    oracle, x = ppca
    assert chains.method == "nuts" and chains.values["z"].shape == (2, 500, 3)
    assert chains.diagnostics.worst_rhat < 1.01 and chains.diagnostics.least_ess > 400
    assert chains.log_evidence is None and chains.diagnostics.divergences == [0, 0]
    mean, sd = exact_moments(oracle, x)["z"]
    assert ((chains.moments.mean["z"] - mean).abs() < 4 * chains.mean_error["z"]).all()
    assert (chains.mean_error["z"] < chains.moments.sd["z"] / math.sqrt(400)).all()
    assert ((chains.moments.sd["z"] / sd - 1).abs() < 4 / (2 * chains.diagnostics.ess["z"]).sqrt()).all()


def test_chains_agree_with_weighted_particles(ppca, chains):
    oracle, x = ppca
    weighted = exact_posterior(
        oracle.model, pv.widened(oracle.guide, 1.3, shift=0.3), x, method="resampled", progress=False
    )
    error = (chains.mean_error["z"].square() + weighted.mean_error["z"].square()).sqrt()
    assert ((chains.moments.mean["z"] - weighted.moments.mean["z"]).abs() < 4 * error).all()


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")  # so few draws
def test_chains_of_positive_latents():
    # 4 standard errors.
    oracle = pv.oracles.gamma_poisson(3)
    x = datum(oracle)
    found = gold(oracle, x, method="nuts", num_draws=100, num_chains=1, num_warmup=80)
    mean, _ = exact_moments(oracle, x)["z"]
    assert (found.values["z"] > 0).all()
    assert ((found.moments.mean["z"] - mean).abs() < 4 * found.mean_error["z"]).all()


class Counting:
    """A kernel whose state is where it started and 10,000 more for each of its steps."""

    def __init__(self, potential_fn):
        self.step = 0

    def setup(self, num_warmup):
        self.start = self.initial_params["u"]

    def sample(self, state):
        self.step += 1
        return {"u": self.start + 1e4 * self.step}

    def diagnostics(self):
        return {"divergences": [1, 3]}


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")
def test_chains_start_from_guide_and_prior_and_drop_their_warm_up(ppca, monkeypatch):
    monkeypatch.setattr("pyrovae.posteriors.nuts.NUTS", Counting)
    oracle, x = ppca
    far = pv.widened(oracle.guide, 1.0, shift=1000.0)
    found = exact_posterior(oracle.model, far, x, num_draws=5, num_warmup=7, num_chains=3, progress=False)
    steps = (found.values["z"] / 1e4).round()
    starts = found.values["z"] - 1e4 * steps
    assert steps[0, :, 0].tolist() == [8, 9, 10, 11, 12]
    assert (steps == steps[:1, :, :1]).all()
    assert (starts[:, 0] > 100).all(1).tolist() == [True, False, True]
    assert len(starts[:, 0].unique(dim=0)) == 3
    assert found.diagnostics.divergences == [2, 2, 2]


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")
def test_a_site_in_a_plate_keeps_its_shape():
    oracle = pv.oracles.hierarchy(3)
    found = gold(oracle, datum(oracle), num_draws=4, num_chains=2, num_warmup=2)
    assert found.values["theta"].shape == (2, 4, 3) and found.guide_values["theta"].shape == (4, 3)
    assert found.diagnostics.rhat["theta"].shape == (3,)
    assert found.names == ["mu", "theta[0]", "theta[1]", "theta[2]"]


def test_chains_in_unlike_modes_are_told():
    x = torch.tensor([9.0], dtype=torch.float64)
    with pytest.warns(UntrustedPosterior, match=r"R-hat is up to .* the chains disagree"):
        exact_posterior(*SQUARED, x, method="nuts", num_draws=30, num_chains=4, num_warmup=30, progress=False)


def test_what_speaks_against_chains():
    one = torch.ones(1)
    assert Chains({"z": one}, {"z": 500 * one}, [0, 0]).doubts() == []
    assert "3 transitions diverged" in Chains({"z": one}, {"z": 500 * one}, [0, 3]).doubts()[0]
    assert "R-hat is up to 1.020" in Chains({"a": one, "z": 1.02 * one}, {"z": 500 * one}, [0]).doubts()[0]
    assert "resampled" not in Chains({"z": 1.02 * one}, {"z": 500 * one}, [0]).doubts()[0]
    assert "R-hat is up to nan" in Chains({"z": math.nan * one}, {"z": 500 * one}, [0]).doubts()[0]


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")  # so few draws
def test_programs_in_single_precision():
    # 4 standard errors.
    vae, x = make_vae(latent=2), make_data(1)
    exact, weighted = gold(vae, x, num_draws=4), gold(vae, x, method="resampled")
    found = gold(vae, x, method="nuts", num_draws=100, num_chains=1, num_warmup=80)
    assert abs(exact.log_evidence.value - weighted.log_evidence.value) < 4 * weighted.log_evidence.error
    for one in (weighted, found):
        assert ((one.moments.mean["z"] - exact.moments.mean["z"]).abs() < 4 * one.mean_error["z"]).all()
        assert one.values["z"].dtype == torch.float32 and one.moments.mean["z"].dtype == torch.float64


def test_the_potential_is_in_double_precision():
    vae, x = make_vae(latent=2), make_data(1)
    u = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    with undisturbed(vae.model, vae.guide) as (model, guide, _):
        with torch.enable_grad():
            log_density = RealLine(Latents(model, guide, (x,))).score(u).log_density
    (slope,) = torch.autograd.grad(log_density.sum(), u)
    assert log_density.dtype == slope.dtype == torch.float64


# ------------------------------------------------------------------------------------------------ particles

MIXTURES = {
    "bernoulli": lambda: pv.oracles.bernoulli_mixture(10, 3),
    "gaussian": lambda: pv.oracles.gaussian_mixture(3, 3),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_discrete_latents_are_resampled(name):
    # 4.5 standard errors: of the evidence as stated, of a share sqrt(p (1 - p) (1 / S + 1 / ess)).
    oracle = MIXTURES[name]()
    x = datum(oracle, seed=2)
    found = exact_posterior(oracle.model, pv.widened(oracle.guide, 2.0, shift=0.2), x, num_draws=4000, progress=False)
    assert found.method == "resampled" and math.isnan(found.diagnostics.pareto_k)
    assert abs(found.log_evidence.value - oracle.log_evidence(x).item()) < 4.5 * found.log_evidence.error
    (site,) = found.values
    probs = oracle.posterior(x).probs[0]
    shares = torch.bincount(found.values[site].flatten().long(), minlength=len(probs)) / 4000
    se = (probs * (1 - probs) * (1 / 4000 + 1 / found.diagnostics.ess)).sqrt()
    assert ((shares - probs).abs() <= 4.5 * se).all()


def test_moments_of_weighted_particles(ppca):
    # 4 standard errors.
    oracle, x = ppca
    found = exact_posterior(
        oracle.model, pv.widened(oracle.guide, 1.3, shift=0.5), x, method="resampled", progress=False
    )
    mean, sd = exact_moments(oracle, x)["z"]
    assert ((found.moments.mean["z"] - mean).abs() < 4 * found.mean_error["z"]).all()
    assert ((found.moments.sd["z"] / sd - 1).abs() < 4 / math.sqrt(found.diagnostics.ess)).all()
    assert abs(found.log_evidence.value - oracle.log_evidence(x).item()) < 4 * found.log_evidence.error
    draws = found.values["z"][0]
    assert ((draws.mean(0) - mean).abs() < 4 * sd * math.sqrt(1 / 2000 + 1 / found.diagnostics.ess)).all()


def test_equal_draws_stand_side_by_side(ppca):
    oracle, x = ppca
    guide = pv.widened(oracle.guide, 1.5, shift=1.0)
    draws = exact_posterior(oracle.model, guide, x, method="resampled", num_particles=500, progress=False).values["z"][
        0
    ]
    runs = 1 + (draws.diff(dim=0) != 0).any(1).sum()
    assert runs == len(draws.unique(dim=0)) < 2000


def test_an_exact_guide_is_told(ppca):
    oracle, x = ppca
    found = gold(oracle, x, method="resampled", num_particles=1000)
    assert found.diagnostics.pareto_k == -math.inf and "the guide is exact" in found.summary()
    assert abs(found.log_evidence.value - oracle.log_evidence(x).item()) < 1e-10
    torch.testing.assert_close(found.mean_error["z"], found.moments.sd["z"] / math.sqrt(1000))


def test_equal_draws_are_told_and_are_not_called_exact():
    pair = pair_of(
        lambda: dist.Bernoulli(0.5 + ZERO), lambda k: dist.Normal(5 * k, 1.0), lambda: dist.Bernoulli(1e-9 + ZERO)
    )
    with pytest.warns(UntrustedPosterior, match="all 100 draws of the guide are one and the same value"):
        found = exact_posterior(*pair, torch.full((1,), 5.0).double(), num_particles=100, progress=False)
    assert math.isnan(found.diagnostics.pareto_k) and "the guide is exact" not in found.summary()


def test_a_guide_that_misses_the_posterior_is_told(ppca):
    oracle, x = ppca
    with pytest.warns(UntrustedPosterior, match=r"the Pareto k-hat .* the guide misses a part"):
        found = exact_posterior(oracle.model, pv.widened(oracle.guide, 0.3), x, method="resampled", progress=False)
    assert found.diagnostics.doubts()[0] in found.summary()
    assert Weights(10.0, math.nan, 10).doubts() == Weights(10.0, -math.inf, 10).doubts() == []
    assert Weights(10.0, math.inf, 1000).doubts()


def test_weights_that_are_not_finite():
    model, guide = pair_of(
        lambda: dist.Normal(ZERO, 1.0), lambda z: dist.Normal(z * math.nan, 1.0), lambda: dist.Normal(ZERO, 1.0)
    )
    with pytest.raises(FloatingPointError, match="site 'x': log density in the model is nan"):
        exact_posterior(model, guide, torch.zeros(1).double(), method="resampled", progress=False)


# ------------------------------------------------------------------------------------------------ the record


def test_a_narrow_guide_is_seen():
    # 2,000 draws give a standard deviation to 1.6%, a mean to 0.022 sd.
    oracle = pv.oracles.ppca(20, 2)
    x = datum(oracle)
    found = exact_posterior(oracle.model, pv.widened(oracle.guide, 0.71, shift=0.5), x, progress=False)
    table = found.table()
    assert ((table["ratio"] - 0.71).abs() < 0.05).all() and ((table["shift"] - 0.5).abs() < 0.1).all()
    assert found.verdict.startswith("the guide's sd is 0.7")
    assert found.verdict in found.summary() and str(found) == found.summary()
    assert f"{found.log_evidence.value:.6f}" in found.summary()
    assert "PosteriorDraws(grid, 2 coordinates, the guide's sd is 0.7" in repr(found)
    assert list(table) == ["mean", "mean_error", "sd", "guide_mean", "guide_sd", "shift", "ratio"]


def test_the_guide_s_draws_are_its_own(ppca, chains):
    # 4.5 standard errors.
    oracle, x = ppca
    mean, sd = exact_moments(oracle, x)["z"]
    draws = chains.guide_values["z"]
    assert draws.shape == (500, 3)
    assert ((draws.mean(0) - (mean + sd)).abs() < 4.5 * 0.5 * sd / math.sqrt(500)).all()
    torch.testing.assert_close(chains.guide_moments.sd["z"], draws.std(0, correction=0))


def test_arviz_takes_the_draws(chains):
    import arviz_stats

    tree = chains.to_arviz()
    assert tree["posterior"]["z"].shape == (2, 500, 3) and tree["guide"]["z"].shape == (1, 500, 3)
    torch.testing.assert_close(torch.from_numpy(tree["posterior"]["z"].values), chains.values["z"])
    rhat, ess = arviz_stats.rhat(tree)["z"].values, arviz_stats.ess(tree)["z"].values
    # ArviZ ranks and folds before it compares chains, so its numbers are close to Pyro's, not equal.
    assert abs(rhat - chains.diagnostics.rhat["z"].numpy()).max() < 0.02
    assert abs(ess / chains.diagnostics.ess["z"].numpy() - 1).max() < 0.25
    assert list(arviz_stats.summary(tree).index) == chains.names
    assert len(arviz_stats.summary(tree, group="guide")) == 3


def test_without_arviz_the_error_says_how_to_get_it(chains, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(InputError, match=r'pip install "pyrovae\[arviz\]"'):
        chains.to_arviz()


# ---------------------------------------------------------------------------------------------------- calls


class Noisy(nn.Module):
    """Dropout, and weights that Pyro knows."""

    def __init__(self, latent):
        super().__init__()
        self.latent = latent
        self.decoder = nn.Sequential(nn.Linear(latent, 4), nn.Dropout(0.5), nn.Linear(4, 4))

    def model(self, x):
        pyro.module("noisy", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latent), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[..., : self.latent], 1.0).to_event(1))


FEW = {"num_draws": 8, "num_particles": 50, "num_warmup": 5, "num_chains": 1}


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")
@pytest.mark.parametrize("method", ["grid", "nuts", "resampled"])
def test_nothing_is_left_behind(method):
    torch.manual_seed(0)
    pair, x = Noisy(1), torch.randn(1, 4)
    pyro.param("mine", torch.tensor(2.0))
    rng, handlers = torch.get_rng_state(), list(logging.getLogger("pyro.infer.mcmc").handlers)
    first = gold(pair, x, method=method, **FEW)
    assert torch.equal(torch.get_rng_state(), rng) and torch.is_grad_enabled()
    assert torch.distributions.Distribution._validate_args
    assert all(part.training for part in pair.modules()) and all(p.grad is None for p in pair.parameters())
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert logging.getLogger("pyro.infer.mcmc").handlers == handlers
    assert not any(value.requires_grad for value in first.values.values())
    again, other = gold(pair, x, method=method, **FEW), gold(pair, x, method=method, seed=1, **FEW)
    for draws in ("values", "guide_values"):
        assert torch.equal(getattr(first, draws)["z"], getattr(again, draws)["z"])
        assert not torch.equal(getattr(first, draws)["z"], getattr(other, draws)["z"])
    pyro.clear_param_store()


@pytest.mark.parametrize(
    ("oracle", "method"),
    {"one": ("ppca", "nuts"), "discrete": ("bernoulli mixture", "resampled")}.values(),
)
@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")
def test_the_method_is_chosen_by_the_latents(oracle, method):
    oracle = pv.oracles.EXAMPLES[oracle]()
    assert gold(oracle, datum(oracle), **FEW).method == method


def test_a_datum_of_two_tensors():
    def model(x, shift):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(shift, 1.0)), 1.0), obs=x)

    def guide(x, shift):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shift, 1.0))

    x, shift = torch.tensor([1.0], dtype=torch.float64), torch.tensor([5.0], dtype=torch.float64)
    found = exact_posterior(model, guide, (x, shift), progress=False)
    assert abs(found.moments.mean["z"] - 3) < 1e-9
    assert isinstance(found.log_evidence, Evidence)


REFUSED = {
    "two rows": (lambda: pv.oracles.ppca(5, 1), 2, {}, r"got 2 rows: index the one you mean, data\[i : i \+ 1\]"),
    "discrete on a grid": (MIXTURES["bernoulli"], 1, {"method": "grid"}, r"site '\w+' is discrete \(Categorical\)"),
    "discrete in chains": (MIXTURES["bernoulli"], 1, {"method": "nuts"}, r"Use method='resampled'"),
    "three coordinates": (lambda: pv.oracles.ppca(5, 3), 1, {"method": "grid"}, r"at most 2 real coordinates, .* 3"),
    "method": (lambda: pv.oracles.ppca(5, 1), 1, {"method": "nutz"}, r'did you mean "nuts"\?'),
    "draws": (lambda: pv.oracles.ppca(5, 1), 1, {"num_draws": 3}, "num_draws must be at least 4, got 3"),
    "particles": (lambda: pv.oracles.ppca(5, 1), 1, {"num_particles": 1}, "num_particles must be at least 2, got 1"),
    "warm-up": (lambda: pv.oracles.ppca(5, 1), 1, {"num_warmup": 0}, "num_warmup must be at least 1, got 0"),
    "chains": (lambda: pv.oracles.ppca(5, 1), 1, {"num_chains": 0}, "num_chains must be at least 1, got 0"),
    "seed": (lambda: pv.oracles.ppca(5, 1), 1, {"seed": -1}, "seed must not be negative"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, rows, options, message = REFUSED[name]
    oracle = make()
    with pytest.raises(InputError, match=message):
        gold(oracle, oracle.draw(rows, seed=0)[0], **options)
