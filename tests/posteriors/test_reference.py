"""The posterior of one datum: the record, its method, and calls that leave nothing behind."""

import logging
import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.posteriors import MIXTURES, datum, exact_moments, gold
from examples.small import make_data, make_vae
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.posteriors.methods import Evidence
from pyrovae.posteriors.reference import reference_posterior


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


# ------------------------------------------------------------------------------------------------ the record


def test_a_narrow_guide_is_seen():
    # 2,000 draws give a standard deviation to 1.6%, a mean to 0.022 sd.
    oracle = pv.oracles.ppca(20, 2)
    x = datum(oracle)
    found = reference_posterior(oracle.model, pv.widened(oracle.guide, 0.71, shift=0.5), x, progress=False)
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

    tree = chains.to_datatree()
    assert tree["posterior"]["z"].shape == (2, 500, 3) and tree["guide"]["z"].shape == (1, 500, 3)
    torch.testing.assert_close(torch.from_numpy(tree["posterior"]["z"].values), chains.values["z"])
    rhat, ess = arviz_stats.rhat(tree)["z"].values, arviz_stats.ess(tree)["z"].values
    # ArviZ ranks and folds before it compares chains, so its numbers are close to Pyro's, not equal.
    assert abs(rhat - chains.diagnostics.rhat["z"].numpy()).max() < 0.02
    assert abs(ess / chains.diagnostics.ess["z"].numpy() - 1).max() < 0.25
    assert list(arviz_stats.summary(tree).index) == chains.names
    assert len(arviz_stats.summary(tree, group="guide")) == 3


def test_without_arviz_the_error_says_how_to_get_it(chains, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r'pip install "pyrovae\[arviz\]"'):
        chains.to_datatree()


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
    found = reference_posterior(model, guide, (x, shift), progress=False)
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
