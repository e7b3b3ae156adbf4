"""Gaps against closed forms: each part within four Monte-Carlo standard errors of the mean over data (6e-5)."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae

import pyrovae as pv
from pyrovae.base.errors import InputError, Interrupted
from pyrovae.diagnostics import gaps as report_module
from pyrovae.diagnostics.gaps import Gaps, gaps
from pyrovae.pairs.latents import Latents

N = 60
ORACLE = pv.oracles.ppca(20, 3)
X, _ = ORACLE.draw(N, seed=1)


def measure(model, guide, data, **settings):
    return gaps(model, guide, data, **{"num_particles": 300, "num_steps": 300, "progress": False, **settings})


def deviation(values, se, exact):
    """Error of a mean over data, in its Monte-Carlo standard errors."""
    return float((values - exact).mean() / (se.square().sum().sqrt() / len(values)))


@pytest.fixture(scope="module")
def poor():
    return measure(ORACLE.model, ORACLE.mean_field_guide(scale=1.5, shift=0.5), X)


def test_both_gaps_of_a_poor_encoder(poor):
    best, all_of_it = ORACLE.kl_mean_field(), ORACLE.kl_mean_field(1.5, 0.5)
    assert abs(deviation(poor.approximation, poor.mc_se_approximation, best)) < 4
    assert abs(deviation(poor.amortization, poor.mc_se_amortization, all_of_it - best)) < 4
    assert abs(deviation(poor.gap["guide"], poor.mc_se_gap["guide"], all_of_it)) < 4
    assert best > 20 * poor.mc_se_approximation.square().sum().sqrt() / N  # the errors could show a wrong number


def test_an_optimal_encoder_has_no_amortization_gap():
    found = measure(ORACLE.model, ORACLE.mean_field_guide(), X, families=["own"])
    assert abs(deviation(found.approximation, found.mc_se_approximation, ORACLE.kl_mean_field())) < 4
    assert abs(deviation(found.amortization, found.mc_se_amortization, 0.0)) < 4
    assert (found.mc_se_amortization > 0).all()


def test_full_covariances_hold_the_posterior(poor):
    assert abs(deviation(poor.gap["full covariance"], poor.mc_se_gap["full covariance"], 0.0)) < 4
    assert float(poor.gap["full covariance"].mean()) < 0.01
    assert poor.fraction_unreliable < 0.05


def test_evidence_within_its_error(poor):
    assert abs(deviation(poor.log_evidence, poor.mc_se_log_evidence, ORACLE.log_evidence(X))) < 4
    assert float(poor.mc_se_log_evidence.max()) < 0.02


def test_the_parts_add_up(poor):
    torch.testing.assert_close(poor.gap["guide"], poor.approximation + poor.amortization, rtol=1e-12, atol=1e-12)
    for name, elbo in poor.elbo.items():
        torch.testing.assert_close(poor.gap[name], poor.log_evidence - elbo, rtol=1e-12, atol=1e-12)
    assert all(column.dtype == torch.float64 and column.shape == (N,) for column in poor.table().values())


# ------------------------------------------------------------------------------------------- other programs


def squared_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z.square(), 0.1), obs=x)


def squared_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.sqrt(), 0.1))


def test_a_mixture_buys_the_second_mode():
    # z and -z give the same x: one Gaussian lacks log 2 nats, whatever its width.
    x = torch.linspace(0.5, 2.0, 10, dtype=torch.float64)
    found = measure(squared_model, squared_guide, x)
    z = torch.linspace(-6, 6, 20001, dtype=torch.float64)[:, None]
    exact = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z.square(), 0.1).log_prob(x)).exp()
    exact = torch.trapezoid(exact, z, dim=0).log()
    assert abs(deviation(found.log_evidence, found.mc_se_log_evidence, exact)) < 4
    for name in ("own", "full covariance"):
        assert (found.gap[name] > math.log(2) - 4 * found.mc_se_gap[name]).all()
    assert (found.gap["mixture"] < 0.1).all()
    gain, se = found.gain("mixture", over="own")
    assert (gain > 0.6 - 4 * se).all()


def counts_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Gamma(2 * torch.ones(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Poisson(z).to_event(1), obs=x)


def counts_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Gamma(1 + x / 2, 1.0).to_event(1))


def test_latents_with_a_constrained_support():
    # The posterior Gamma(2 + x, 2) is in the guide's family: its gap is amortization alone, known in closed form.
    x = torch.poisson(torch.full((40, 2), 4.0).double(), generator=torch.Generator().manual_seed(0))
    found = measure(counts_model, counts_guide, x)
    exact = torch.distributions.kl_divergence(dist.Gamma(1 + x / 2, 1.0), dist.Gamma(2 + x, 2.0)).sum(-1)
    assert abs(deviation(found.approximation, found.mc_se_approximation, 0.0)) < 4
    assert float(found.approximation.mean()) < 0.01
    assert abs(deviation(found.amortization, found.mc_se_amortization, exact)) < 4
    evidence = dist.NegativeBinomial(2 * torch.ones(2).double(), torch.tensor(0.5)).log_prob(x).sum(-1)
    assert abs(deviation(found.log_evidence, found.mc_se_log_evidence, evidence)) < 4


def log_normal_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.LogNormal(x.new_tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z.log(), 0.5), obs=x)


def log_normal_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.LogNormal(x, 0.3))


def test_a_family_on_the_real_line_is_fitted_with_the_jacobian():
    # log z has a Gaussian posterior, of mean 0.8 x and variance 0.2: both families hold it.
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    found = measure(log_normal_model, log_normal_guide, x, families=["own", "full covariance"])
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(x)
    for name in ("own", "full covariance"):
        assert ((found.elbo[name] - exact).abs() < 1e-3).all()
    kl = torch.distributions.kl_divergence(dist.Normal(x, 0.3), dist.Normal(0.8 * x, 0.2**0.5))
    assert abs(deviation(found.amortization, found.mc_se_amortization, kl)) < 4


def plated_model(x):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", x.shape[1], dim=-1):
        z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def plated_guide(x):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", x.shape[1], dim=-1):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_plates_inside_a_datum():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = measure(plated_model, plated_guide, x, num_particles=8000)  # an error of 0.003 nat for each datum
    exact = torch.distributions.kl_divergence(dist.Normal(x, 1.0), dist.Normal(x / 2, 0.5**0.5)).sum(-1)
    assert abs(deviation(found.amortization, found.mc_se_amortization, exact)) < 4
    assert float(found.approximation.abs().max()) < 0.02  # the posterior is in the family, datum by datum


def heavy_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def heavy_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.StudentT(x.new_tensor(3.0), x / 2, 0.6))


def test_errors_that_heavy_tails_make_too_small_are_told():
    # z^2 of Student's 3 degrees of freedom has no variance, so an ELBO no standard error; the evidence has one.
    x = torch.full((200,), 0.5, dtype=torch.float64)
    found = measure(heavy_model, heavy_guide, x, num_particles=1000, families=[])
    assert found.skewed["elbo_guide"] > 0.9 and found.skewed["gap_guide"] > 0.9
    assert found.skewed["log_evidence"] < 0.05
    assert "MC SE may be too small" in found.summary() and "elbo_guide (" in found.summary()


def test_a_vae():
    vae, x = make_vae(), make_data(20)
    found = measure(vae.model, vae.guide, x, batch_size=12, num_steps=50)
    assert deviation(found.amortization, found.mc_se_amortization, 0.0) > -4
    assert deviation(found.approximation, found.mc_se_approximation, 0.0) > -4
    assert deviation(*found.gain("full covariance", over="own"), 0.0) > -4
    report = pv.evaluate(vae.model, vae.guide, x, num_particles=1000)
    together = torch.hypot(report.mc_se_log_evidence, found.mc_se_log_evidence)
    assert abs(deviation(report.log_evidence - found.log_evidence, together, 0.0)) < 4
    together = torch.hypot(report.mc_se_elbo, found.mc_se_elbo["guide"])
    assert abs(deviation(report.elbo - found.elbo["guide"], together, 0.0)) < 4


# ------------------------------------------------------------------------------------------------ the record


def test_nothing_is_left_behind():
    vae, x = make_vae().train(), make_data(10)
    before, random = {name: value.clone() for name, value in vae.state_dict().items()}, torch.get_rng_state()
    first, again = (measure(vae.model, vae.guide, x, num_steps=3, num_particles=30) for _ in range(2))
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and vae.training and torch.is_grad_enabled()
    assert all(torch.equal(a, b) for a, b in zip(first.table().values(), again.table().values(), strict=True))


def test_account(poor, tmp_path):
    account = poor.to_dict()
    assert account["num_data"] == N and account["families"] == ["own", "full covariance", "mixture"]
    parts = account["approximation"]["mean"] + account["amortization"]["mean"]
    assert abs(account["gap"]["mean"] - parts) < 1e-10
    assert account["gain_mixture"]["mean"] == pytest.approx(float((poor.elbo["mixture"] - poor.elbo["own"]).mean()))
    assert json.loads(poor.to_json()) == account
    poor.save(tmp_path / "gaps.json")
    rows = (tmp_path / "gaps.csv").read_text().splitlines()
    assert len(rows) == N + 1 and rows[0].split(",")[:2] == ["log_evidence", "elbo_guide"]
    with pytest.raises(InputError, match=r"give the record another, such as gaps\.json"):
        poor.save(tmp_path / "gaps.csv")


def test_summary(poor):
    text = poor.summary()
    assert text == str(poor) and "approximation gap  log p(x) - L[q*]" in text
    assert "a full covariance would buy, at best" in text
    assert repr(poor).startswith("Gaps(N=60, log p(x) - L[q] 1.4")


def test_one_particle_has_no_errors():
    found = measure(ORACLE.model, ORACLE.guide, X[:3], num_particles=1, num_steps=1)
    assert found.mc_se_approximation.isnan().all() and "-" in found.summary()
    assert json.loads(found.to_json())["gap"]["mc_se"] is None


def test_without_its_own_family_the_gap_is_not_split():
    found = measure(ORACLE.model, ORACLE.mean_field_guide(), X[:5], families=["full covariance"], num_steps=50)
    assert list(found.elbo) == ["guide", "full covariance"] and "gap  log p(x) - L[q]" in found.summary()
    assert "approximation" not in found.to_dict()
    with pytest.raises(InputError, match="'own' was not among the families"):
        found.approximation


def test_an_interrupt_keeps_the_blocks_that_were_done(monkeypatch):
    from pyrovae.diagnostics import gaps as module

    whole, blocks = module.measure, []

    def interrupted(*args):
        if blocks:
            raise KeyboardInterrupt
        blocks.append(whole(*args))
        return blocks[0]

    monkeypatch.setattr(module, "measure", interrupted)
    with pytest.raises(Interrupted) as caught:
        measure(ORACLE.model, ORACLE.mean_field_guide(), X[:6], batch_size=4, num_steps=2, num_particles=2)
    assert isinstance(caught.value.partial, Gaps) and len(caught.value.partial) == 4


def test_an_interrupt_right_after_a_block_finds_all_of_its_record(monkeypatch):
    # Once a block is measured nothing more is asked of its latents: it is kept whole or not at all.
    measured = report_module.measure

    def interrupt(latents):
        raise KeyboardInterrupt

    def then_interrupting(latents, *rest):
        found = measured(latents, *rest)
        monkeypatch.setattr(Latents, "particles", property(interrupt), raising=False)
        return found

    monkeypatch.setattr(report_module, "measure", then_interrupting)
    assert measure(ORACLE.model, ORACLE.guide, X[:2], families=[]).strategy == "vectorized"


WRONG = {
    "no particles": ({"num_particles": 0}, "num_particles must be at least 1, got 0"),
    "no steps": ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
    "no draws": ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
    "no data at once": ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "a misspelt family": ({"families": ["mixtur"]}, "got 'mixtur'; did you mean \"mixture\"?"),
    "no such family": ({"families": ["xyzzy"]}, "got 'xyzzy'$"),
}


@pytest.mark.parametrize(("settings", "message"), WRONG.values(), ids=WRONG)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        measure(ORACLE.model, ORACLE.guide, X[:2], **settings)


def test_evidence_that_nothing_vouches_for_is_warned_of():
    oracle = pv.oracles.ppca(4, 1)
    x, _ = oracle.draw(2, seed=0)
    with pytest.warns(pv.UntrustedEvidence, match=r"k-hat of all proposals together is above .* for 100% of 2 data"):
        pv.gaps(oracle.model, oracle.mean_field_guide(shift=0.5), x, num_particles=5, num_steps=1, families=["own"])
