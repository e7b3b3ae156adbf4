"""Annealing and the bounds from both sides against every continuous oracle, and against the definition of unbiased."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae
from examples.zoo import ZOO

import pyrovae as pv
from pyrovae.base.errors import InputError, Interrupted
from pyrovae.evidence.annealing.ais import annealed_evidence
from pyrovae.evidence.annealing.bdmc import bidirectional
from pyrovae.evidence.annealing.chains import Route, backward, forward
from pyrovae.evidence.annealing.paths import from_guide, from_prior, state_at
from pyrovae.evidence.annealing.tuning import tune
from pyrovae.pairs.context import undisturbed
from pyrovae.pairs.latents import Latents

CONTINUOUS = [name for name in pv.oracles.EXAMPLES if name not in ("bernoulli mixture", "gaussian mixture")]
N = 100


def mean_and_se(values):
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


FROM = [(name, from_prior) for name in CONTINUOUS if name != "mixture prior"]
FROM += [(name, from_guide) for name in ("ppca", "gamma-poisson", "mixture prior")]


@pytest.mark.parametrize(("name", "start"), FROM, ids=[f"{name}, {start.__name__}" for name, start in FROM])
def test_both_bounds_hold_and_are_tight(name, start):
    """Lower at most exact + 3 SE, upper at least exact - 3 SE (one side, 0.1 % each), both within 0.05 nat."""
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(2, seed=0)
    many = start is from_prior and name in ("ppca", "factor analysis")
    settings = {"num_chains": 64 if name == "mixture prior" else 16}  # chains do not cross from mode to mode
    settings |= {
        "num_temperatures": 400 if many else 100,
        "num_leapfrog": 3,
        "num_particles": 10,
        "start": start,
        "seed": 1,
    }
    bounds = bidirectional(oracle.model, pv.widened(oracle.guide, 1.3, shift=0.3), x, num_data=N, **settings)
    exact = oracle.log_evidence(bounds.data[0])
    (below, below_se), (above, above_se) = (mean_and_se(bound - exact) for bound in (bounds.lower, bounds.upper))
    assert below <= 3 * below_se and abs(below) < 0.05
    assert above >= -3 * above_se and abs(above) < 0.05


def test_the_width_tells_chains_that_do_not_cross_between_modes():
    """From a prior of three far modes the bounds still hold, and their width says that they are not to be trusted."""
    oracle = pv.oracles.EXAMPLES["mixture prior"]()
    x, _ = oracle.draw(2, seed=0)
    bounds = bidirectional(oracle.model, oracle.guide, x, num_temperatures=100, start=from_prior, num_particles=10)
    exact = oracle.log_evidence(bounds.data[0])
    (below, below_se), (above, above_se) = (mean_and_se(bound - exact) for bound in (bounds.lower, bounds.upper))
    assert below <= 3 * below_se and above >= -3 * above_se
    assert bounds.width.mean() > 0.2


LIGHT = [("ppca", from_prior), ("gamma-poisson", from_prior), ("ppca", from_guide), ("mixture prior", from_guide)]


@pytest.mark.parametrize(("name", "start"), LIGHT, ids=[f"{name}, {start.__name__}" for name, start in LIGHT])
def test_weights_are_unbiased_both_ways(name, start):
    """E[w] / p(x) = 1 forward and E[1/w] p(x) = 1 backward, over 2,000 chains each, within 4 SE of each datum."""
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(3, seed=3)
    exact = oracle.log_evidence(x)
    with undisturbed(oracle.model, pv.widened(oracle.guide, 1.2, shift=0.2)) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        torch.manual_seed(0)
        tuning = tune(start(latents), num_temperatures=40, num_leapfrog=3)
        route = Route(start(latents), tuning, tuning.schedule(40 if start is from_prior else 4))
        ratio = (forward(route, 2000).log_weight - exact).exp()
        truth = Latents(model, oracle.guide, (x,))
        u = truth.to_real(truth.draw(2000))
        inverse = (backward(route, u).log_weight + exact).exp()
    for values in (ratio, inverse):
        assert ((values.mean(0) - 1).abs() < 4 * values.std(0) / math.sqrt(2000)).all()
        assert (values.std(0) < 12).all()  # or the standard error would say nothing


def test_a_kernel_that_adapts_is_seen(monkeypatch):
    """The check of unbiasedness has power: chains that keep every proposal fail it."""
    monkeypatch.setattr("pyrovae.evidence.annealing.paths._where", lambda accepted, new, old: new)
    with pytest.raises((AssertionError, FloatingPointError)):
        test_weights_are_unbiased_both_ways("ppca", from_prior)


def test_the_width_shrinks_with_the_number_of_temperatures():
    oracle = pv.oracles.ppca(20, 3, collinearity=0.9)
    x, _ = oracle.draw(2, seed=0)
    widths = [
        bidirectional(
            oracle.model, oracle.mean_field_guide(), x, num_temperatures=t, start=from_prior, num_particles=10
        ).width.mean()
        for t in (4, 16, 64)
    ]
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


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
    short = (exact - pv.evaluate(oracle.model, guide, x).log_evidence).mean()
    annealed = annealed_evidence(oracle.model, guide, x, num_temperatures=100)
    assert short > 0.15
    assert abs((annealed.log_evidence - exact).mean()) < 0.03


def test_the_pilot_is_apart_from_the_measured_chains():
    """Frozen: the chains that are weighed never touch the kernels, and the same key gives the same bits."""
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(5, seed=0)
    with undisturbed(oracle.model, oracle.mean_field_guide()) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        torch.manual_seed(0)
        tuning = tune(from_prior(latents), num_temperatures=20, num_leapfrog=3)
        before = [part.clone() for part in (tuning.step, tuning.scale)]
        forward(Route(from_prior(latents), tuning, tuning.schedule(20)), 4)
    assert torch.equal(before[0], tuning.step) and torch.equal(before[1], tuning.scale)
    runs = [annealed_evidence(oracle.model, oracle.mean_field_guide(), x, num_temperatures=20) for _ in range(2)]
    assert torch.equal(runs[0].log_evidence, runs[1].log_evidence)


def test_schedules_go_from_zero_to_one_and_spend_steps_where_the_ratio_varies():
    oracle = pv.oracles.ppca(20, 3)
    x, _ = oracle.draw(5, seed=0)
    with undisturbed(oracle.model, oracle.mean_field_guide()) as (model, guide, _):
        torch.manual_seed(0)
        tuning = tune(from_prior(Latents(model, guide, (x,))), num_temperatures=40, num_leapfrog=3)
    for num_temperatures in (1, 2, 7, 100):
        schedule = torch.tensor(tuning.schedule(num_temperatures), dtype=torch.float64)
        assert len(schedule) == num_temperatures + 1 and schedule[0] == 0 and schedule[-1] == 1
        assert (schedule.diff() > 0).all()
    assert (schedule < 0.1).sum() > 30  # evenly spaced, 10 would be


def test_gradients_on_the_path_are_those_of_the_formula():
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(4, seed=0)
    with undisturbed(oracle.model, oracle.guide) as (model, guide, _):
        u = torch.randn(3, 4, 2, dtype=torch.float64)
        state = state_at(from_prior(Latents(model, guide, (x,))), u)
    torch.testing.assert_close(state.slope_start, -u)
    residual = x - oracle.bias - u @ oracle.loadings.T
    torch.testing.assert_close(state.slope(0.3), -u + 0.3 * residual / oracle.noise_scale**2 @ oracle.loadings)


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


def test_auxiliary_guides_are_refused_from_the_guide_alone():
    torch.manual_seed(0)
    case = ZOO["auto-normal"]()
    with pytest.raises(InputError, match="of the guide is auxiliary"):
        annealed_evidence(case.model, case.guide, case.args, num_temperatures=2)
    annealed = annealed_evidence(case.model, case.guide, case.args, num_temperatures=2, start=from_prior)
    assert annealed.log_evidence.isfinite().all()


@pytest.mark.parametrize("name", ["num_temperatures", "num_chains", "num_leapfrog", "batch_size"])
def test_numbers_below_one(name):
    vae, x = make_vae(), make_data(3)
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        annealed_evidence(vae.model, vae.guide, x, **{name: 0})


def test_a_trajectory_that_leaves_all_bounds_is_rejected():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(z**3, 0.01), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))

    annealed = annealed_evidence(model, guide, torch.tensor([0.5, 20.0]).double(), num_temperatures=50)
    assert annealed.log_evidence.isfinite().all()


def gated(guide_loc):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x, 1.0))
            pyro.factor("gate", torch.where(z > 0, 0.0, -math.inf))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + guide_loc, 1.0))

    return model, guide


@pytest.mark.parametrize("start", [from_guide, from_prior], ids=lambda start: start.__name__)
def test_a_region_without_density_is_no_breakdown(start):
    """p(x) = N(x; 0, 2) P(z > 0 | x), with z | x ~ N(x / 2, 1 / 2): within 4 Monte-Carlo errors for each datum."""
    x = torch.tensor([0.5, -0.5, 2.0], dtype=torch.float64)
    model, guide = gated(0.0)
    annealed = annealed_evidence(model, guide, x, num_temperatures=20, num_chains=2000, start=start)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x) + dist.Normal(0.0, 1.0).cdf(x / 2**0.5).log()
    assert ((annealed.log_evidence - exact).abs() < 4 * annealed.mc_se_log_evidence).all()


def test_a_density_that_is_nan_is_an_error():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 1.0))
            pyro.sample("x", dist.Normal(z.log(), 1.0), obs=x)

    with pytest.raises(FloatingPointError, match="annealed weights of 3 of 3 data are NaN"):
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
        with pytest.raises(InputError, match=r"site 'z' has no bijection with the real line \(VonMises\)"):
            tool(model, guide, x)
    assert pv.evaluate(model, guide, x, num_particles=50).log_evidence.isfinite().all()


def test_chains_that_carry_nothing_are_told():
    oracle = pv.oracles.ppca(20, 3, collinearity=0.9)
    x, _ = oracle.draw(20, seed=0)
    with pytest.warns(pv.UntrustedEvidence, match=r"rests on less than a quarter of their 16 chains"):
        annealed = annealed_evidence(oracle.model, oracle.mean_field_guide(), x, num_temperatures=1)
    assert "or far worse" in annealed.summary() and "few chains carry the weight" in annealed.summary()
    assert annealed.to_dict()["acceptance"]["mean"] is None  # no transition was made


def test_a_start_that_is_no_function_says_what_to_give():
    vae, x = make_vae(), make_data(3)
    with pytest.raises(InputError, match=r"start must be pyrovae.from_guide or pyrovae.from_prior, got 'prior'"):
        annealed_evidence(vae.model, vae.guide, x, start="prior")


@pytest.mark.parametrize("tool", [annealed_evidence, bidirectional])
def test_discrete_latents_are_refused_by_both(tool):
    oracle = pv.oracles.EXAMPLES["gaussian mixture"]()
    x, _ = oracle.draw(4, seed=0)
    with pytest.raises(InputError, match=r"site 'k' is discrete"):
        tool(oracle.model, oracle.guide, x)
