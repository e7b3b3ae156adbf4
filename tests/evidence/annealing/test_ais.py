"""Annealed log p(x) against importance sampling and closed forms, for programs of every style."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae
from examples.zoo import ZOO

import pyrovae as pv
from pyrovae.base.errors import EdgeOfSupport, InputError, Interrupted, UntrustedEvidence
from pyrovae.evidence.annealing.ais import annealed_evidence
from pyrovae.evidence.annealing.bdmc import bidirectional
from pyrovae.evidence.annealing.paths import from_prior

N = 100


def test_one_temperature_is_importance_sampling():
    oracle = pv.oracles.ppca(20, 3)
    x, _ = oracle.draw(200, seed=1)
    guide = pv.widened(oracle.guide, 1.3, shift=0.3)
    annealed = annealed_evidence(oracle.model, guide, x, num_temperatures=1, num_chains=1000)
    plain = pv.evaluate(oracle.model, guide, x, seed=1)
    difference = annealed.log_evidence - plain.log_evidence
    expected = (annealed.mc_se_log_evidence.square() + plain.mc_se_log_evidence.square()).sqrt()
    assert abs((difference / expected).mean()) < 4 / math.sqrt(200)
    assert 0.85 < (difference / expected).std() < 1.15
    torch.testing.assert_close(annealed.ess.mean(), plain.ess.mean(), rtol=0.02, atol=0)


def test_annealing_reaches_what_importance_sampling_does_not():
    oracle = pv.oracles.ppca(20, 3, collinearity=0.9)  # the weights of the mean-field guide have infinite variance
    x, _ = oracle.draw(N, seed=1)
    exact, guide = oracle.log_evidence(x), oracle.mean_field_guide()
    short = (exact - pv.evaluate(oracle.model, guide, x, method="importance").log_evidence).mean()
    annealed = annealed_evidence(oracle.model, guide, x, num_temperatures=100)
    assert short > 0.15
    assert abs((annealed.log_evidence - exact).mean()) < 0.03


@pytest.mark.parametrize(
    "name", ["hierarchical", "latents-in-an-inner-plate", "hard-wired", "convolution", "pixels-left"]
)
def test_programs_of_every_style(name):
    torch.manual_seed(0)
    case = ZOO[name]()
    annealed = annealed_evidence(
        case.model, case.guide, case.args, num_temperatures=3, num_chains=2, start=from_prior, plate=case.plate
    )
    assert annealed.log_evidence.isfinite().all()
    assert annealed.start == "prior" and annealed.num_leapfrog == 5


def test_nothing_is_left_behind():
    vae, x = make_vae(), make_data(6)
    vae.train()
    state = torch.get_rng_state()
    annealed_evidence(vae.model, vae.guide, x, num_temperatures=3, num_chains=2)
    assert torch.equal(state, torch.get_rng_state()) and vae.training
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_summary_says_what_the_numbers_are():
    vae, x = make_vae(), make_data(12)
    annealed = annealed_evidence(vae.model, vae.guide, x, num_temperatures=5, num_chains=4, batch_size=5)
    assert len(annealed) == 12
    assert "annealed importance sampling from the guide: 5 temperatures, 4 chains" in annealed.summary()
    assert annealed.to_dict()["log_evidence"]["mean"] == pytest.approx(annealed.log_evidence.mean().item())
    bounds = bidirectional(vae.model, vae.guide, x, num_data=7, num_temperatures=5, num_chains=4, batch_size=4)
    assert len(bounds) == 7 and bounds.data[0].shape == (7, 4, 4)
    assert "certifies the error on data simulated from the model" in bounds.summary()
    assert set(bounds.data[0].unique().tolist()) == {0.0, 1.0}


class Stops:
    """A model that is interrupted when the data of a certain block come."""

    def __init__(self, model, row):
        self.model, self.row = model, row

    def __call__(self, x):
        if torch.equal(x[0], self.row):
            raise KeyboardInterrupt
        self.model(x)


def test_an_interrupt_keeps_the_blocks_that_are_done():
    vae, x = make_vae(), make_data(9)
    whole = annealed_evidence(vae.model, vae.guide, x, num_temperatures=3, num_chains=2, batch_size=3)
    with pytest.raises(Interrupted) as caught:
        annealed_evidence(Stops(vae.model, x[6]), vae.guide, x, num_temperatures=3, num_chains=2, batch_size=3)
    assert torch.equal(caught.value.partial.log_evidence, whole.log_evidence[:6])
    assert caught.value.partial.protocol.num_data == 6
    with pytest.raises(KeyboardInterrupt) as nothing:
        annealed_evidence(Stops(vae.model, x[0]), vae.guide, x, num_temperatures=3, num_chains=2, batch_size=3)
    assert not isinstance(nothing.value, Interrupted)


def test_discrete_latents_are_refused_by_name():
    oracle = pv.oracles.EXAMPLES["bernoulli mixture"]()
    x, _ = oracle.draw(4, seed=0)
    with pytest.raises(InputError, match=r"site 'k' is discrete \(Categorical\).*Use evaluate"):
        annealed_evidence(oracle.model, oracle.guide, x)


def test_auxiliary_draws_that_are_moved_are_a_start():
    """Pyro's AutoNormal and the prior lead to one log p(x), within 4 standard errors of each datum."""
    torch.manual_seed(0)
    case, sizes = ZOO["auto-normal"](), {"num_temperatures": 100, "num_chains": 64}
    a = annealed_evidence(case.model, case.guide, case.args, **sizes)
    b = annealed_evidence(case.model, case.guide, case.args, **sizes, start=from_prior)
    error = (a.mc_se_log_evidence.square() + b.mc_se_log_evidence.square()).sqrt()
    assert ((a.log_evidence - b.log_evidence).abs() < 4 * error).all()


@pytest.mark.parametrize("name", ["num_temperatures", "num_chains", "num_leapfrog", "batch_size"])
def test_numbers_below_one(name):
    vae, x = make_vae(), make_data(3)
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        annealed_evidence(vae.model, vae.guide, x, **{name: 0})


def test_a_density_that_is_nan_is_an_error():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 1.0))
            pyro.sample("x", dist.Normal(z.log(), 1.0), obs=x)

    with pytest.raises(FloatingPointError, match=r"site 'x': log density in the model is nan .*loc of Normal is nan"):
        annealed_evidence(model, guide, torch.zeros(3, dtype=torch.float64), num_temperatures=4)


def test_angles_are_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(0 * x, 1.0))
            pyro.sample("x", dist.Normal(z.cos(), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(0 * x, 0.7))

    x = torch.tensor([0.5, -1.0])
    for tool in (annealed_evidence, bidirectional, pv.gaps):
        with pytest.raises(InputError, match=r"site 'z' has no bijection with unconstrained space \(VonMises\)"):
            tool(model, guide, x)
    assert pv.evaluate(model, guide, x, num_particles=50).log_evidence.isfinite().all()


def test_a_datum_that_all_chains_lose_is_told():
    """Of a uniform guide's draws those below x alone are possible, one in fifty."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0 * x, 1.0))
            pyro.sample("x", dist.Pareto(z, 2.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(0 * x, 1.0))

    with pytest.warns(pv.UntrustedEvidence, match=r"all 2 chains end where the model has no density for 1 of 2 data"):
        annealed = annealed_evidence(model, guide, torch.tensor([0.02, 2.0]), num_temperatures=2, num_chains=2)
    assert annealed.fraction_unreliable == 0.5


def test_chains_that_carry_nothing_are_told():
    oracle = pv.oracles.ppca(20, 3, collinearity=0.9)
    x, _ = oracle.draw(20, seed=0)
    with pytest.warns(pv.UntrustedEvidence, match=r"rests on less than a quarter of their 16 chains"):
        annealed = annealed_evidence(oracle.model, oracle.mean_field_guide(), x, num_temperatures=1)
    assert "or far worse" in annealed.summary() and "few chains carry the weight" in annealed.summary()
    assert (
        annealed.skewed > 0.05 and "MC SE may be too small, as terms are too skewed for 16 chains" in annealed.summary()
    )
    assert annealed.to_dict()["acceptance"]["mean"] is None  # no transition was made


def test_a_start_that_is_no_function_says_what_to_give():
    vae, x = make_vae(), make_data(3)
    with pytest.raises(InputError, match=r"start must be a function such as from_guide, got 'prior'"):
        annealed_evidence(vae.model, vae.guide, x, start="prior")


@pytest.mark.parametrize("tool", [annealed_evidence, bidirectional])
def test_discrete_latents_are_refused_by_both(tool):
    oracle = pv.oracles.EXAMPLES["gaussian mixture"]()
    x, _ = oracle.draw(4, seed=0)
    with pytest.raises(InputError, match=r"site 'k' is discrete"):
        tool(oracle.model, oracle.guide, x)


def copied_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def wide_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2 + 0.3, 0.9))


def test_errors_of_sixteen_chains_cover():
    """400 copies of one datum, a guide too wide and beside: 95 +- 2 %, plus twice the own error of such a coverage."""
    x = torch.full((400,), 0.8, dtype=torch.float64)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x)
    found = annealed_evidence(copied_model, wide_guide, x, num_temperatures=20, num_leapfrog=3, batch_size=400)
    inside = (found.log_evidence - exact).abs() <= 1.96 * found.mc_se_log_evidence
    assert found.skewed < 0.05 and "MC SE may be too small" not in found.summary()
    assert abs(inside.double().mean() - 0.95) < 0.02 + 0.022


def on_the_edge(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Beta(torch.full((1,), 0.2).to(x), 0.2).to_event(1))
        pyro.sample("x", dist.Binomial(30, z, validate_args=False).to_event(1), obs=x)


def its_posterior(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Beta(x + 0.5, 30.5 - x).to_event(1))


@pytest.mark.parametrize("measure", [pv.annealed_evidence, pv.bidirectional, pv.reference_posterior])
def test_posteriors_that_reach_the_end_of_float32_are_told(measure):
    """A proportion so near to one that float32 holds it for one."""
    x = torch.full((1 if measure is pv.reference_posterior else 20, 1), 30.0)
    with pytest.warns(EdgeOfSupport, match="reach the edge of a support, where numbers of float32 end"):
        measure(on_the_edge, its_posterior, x)


def test_in_double_they_are_right():
    x = torch.full((20, 1), 30.0, dtype=torch.float64)
    exact = math.lgamma(30.2) + math.lgamma(0.4) - math.lgamma(0.2) - math.lgamma(30.4)  # B(30.2, 0.2) / B(0.2, 0.2)
    found = pv.reference_posterior(on_the_edge, its_posterior, x[:1])
    assert abs(found.log_evidence.value - exact) < 2e-3  # 0.0014 of the mass is beyond the last double below one
    annealed = pv.annealed_evidence(on_the_edge, its_posterior, x)
    assert (
        abs(annealed.log_evidence.mean() - exact)
        < 5 * annealed.mc_se_log_evidence.square().sum().sqrt() / len(x) + 0.01
    )


def test_a_mode_that_chains_miss_is_told_by_a_few_draws_of_the_prior():
    """Half of the prior at -8 and half at 8, data that tell little, and chains that start on the one side."""

    def model(x):
        with pyro.plate("data", len(x)):
            places = dist.Normal(torch.tensor([-8.0, 8.0]).expand(len(x), 2), 1.0)
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.ones(len(x), 2)), places))
            pyro.sample("x", dist.Normal(z, 20.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((8 + x / 400) / (1 + 1 / 400), 1.0))

    x = torch.linspace(-10, 10, 20)
    exact = dist.Normal(torch.tensor([[-8.0], [8.0]]), 401**0.5).log_prob(x).double().logsumexp(0) - math.log(2)
    with pytest.warns(UntrustedEvidence, match="draws of guide and prior find more"):
        found = annealed_evidence(model, guide, x, num_temperatures=50)
    assert found.fraction_missed > 0.9 and (found.log_evidence < exact - 0.2).all()
    assert "chains miss a mode" in found.summary()
    both = annealed_evidence(model, guide, x, num_temperatures=50, start=from_prior)
    assert both.fraction_missed == 0
    error = (both.log_evidence - exact).sum() / both.mc_se_log_evidence.square().sum().sqrt()
    assert abs(error) < 4
