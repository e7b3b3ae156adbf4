"""Models whose missing entries do not count: exact where an oracle is, fitted, compiled, and refused by name."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_vae

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.observed import MOMENTS, completing, observed_entries
from pyrovae.pairs.traces import GIVEN, sites_of
from pyrovae.training.objectives import DReG


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.missing_entries(6, 2, missing=0.4)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(60, seed=1)[0]


def test_the_evidence_is_that_of_what_was_observed(oracle, x):
    model = observed_entries(oracle.complete.model)
    report = pv.evaluate(model, oracle.guide, x, num_particles=50)
    torch.testing.assert_close(report.log_evidence, oracle.log_evidence(x))
    assert (report.pareto_k == -math.inf).all()


def test_a_low_rank_likelihood_is_integrated_over(oracle, x):
    """With the factors of the oracle inside of the likelihood, there is nothing left for the latent to say."""
    loadings, bias, scale = oracle.complete.loadings, oracle.complete.bias, oracle.complete.noise_scale

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
            pyro.sample("x", dist.LowRankMultivariateNormal(bias, loadings, scale**2), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))

    found = pv.log_terms(observed_entries(model), guide, x, num_particles=2)
    torch.testing.assert_close(found.log_likelihood[0], oracle.log_evidence(x))


MEASURES = {
    "gaps": lambda *pair: pv.gaps(*pair, num_steps=3, families=["own"]),
    "surgery": pv.surgery,
    "calibrate": lambda *pair: pv.calibrate(*pair, num_draws=20),
    "annealed": lambda *pair: pv.annealed_evidence(*pair, num_temperatures=10, num_chains=4),
    "bidirectional": lambda *pair: pv.bidirectional(*pair, num_data=4, num_temperatures=10, num_chains=4),
    "convergence": lambda *pair: pv.convergence(*pair, num_particles=100),
    "predictive check": pv.predictive_check,
    "reference": lambda model, guide, x: pv.reference_posterior(model, guide, x[:1]),
}


@pytest.mark.parametrize("name", MEASURES)
def test_every_measurement_takes_missing_entries(oracle, x, name):
    model = observed_entries(oracle.complete.model)
    assert MEASURES[name](model, oracle.guide, x[:20]).summary()


def test_data_without_a_mask_say_what_to_do(oracle, x):
    with pytest.raises(InputError, match=r"mask what is missing, by observed_entries\(model\) or as in"):
        pv.evaluate(oracle.complete.model, oracle.guide, x)


def counts_pair():
    vae = make_vae()
    return observed_entries(vae.model), lambda x: vae.guide(x.nan_to_num())


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2)


def images(num_data=48):
    x = torch.randint(0, 2, (num_data, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    return torch.where(gone, math.nan, x)


@pytest.mark.parametrize("objective", [None, DReG(3)], ids=["ELBO", "DReG"])
def test_a_fit_has_finite_gradients_and_climbs(objective):
    fitted = pv.fit(*counts_pair(), images(), epochs=15, batch_size=16, objective=objective, optimizer=adam)
    rows = [row["elbo"] for row in fitted.history]
    assert all(map(math.isfinite, rows))
    assert rows[-1] > rows[0]


@pytest.mark.global_params
def test_trials_of_an_event_keep_their_sum_and_leave_out_what_is_missing():
    vae, x = make_vae(), images(6)
    whole = x.nan_to_num()
    z = torch.randn(6, 2)
    run = sites_of(pyro.condition(observed_entries(vae.model), data={"z": z}), x)["x"]
    each = vae.decoder(z).base_dist.log_prob(whole)
    with torch.no_grad():
        found = run["fn"].log_prob(run["value"])
    torch.testing.assert_close(found, torch.where(x.isnan(), 0.0, each).sum((-1, -2)))
    assert type(run["fn"]).__name__ == "Event"
    assert run["infer"][GIVEN] is x


def test_what_is_missing_is_completed_beside_its_moments(oracle, x):
    sites = sites_of(completing(oracle.complete.model), x)
    value, (mean, variance) = sites["x"]["value"], sites["x"]["infer"][MOMENTS]
    seen = ~x.isnan()
    assert torch.equal(value[seen], x[seen])
    assert value.isfinite().all()
    torch.testing.assert_close(variance[~seen], oracle.complete.noise_scale.square().expand_as(x)[~seen])
    assert torch.equal(mean[seen], x[seen])


def test_a_part_of_a_count_of_words_is_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("words", pv.families.multinomial(5).build(1, z), obs=x)

    x = torch.tensor([[1.0, 2.0, 2.0], [1.0, math.nan, 4.0]])
    with pytest.raises(InputError, match="site 'words': Multinomial has no density of a part of an event, and in 1 of"):
        sites_of(observed_entries(model), x)


def test_whole_numbers_and_factors_are_left_as_they_are():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("f", -(z**2))
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    x = torch.arange(4)
    found = sites_of(observed_entries(model), x)
    assert found["x"]["value"] is x
    assert isinstance(found["x"]["fn"], torch.distributions.Poisson)


@pytest.mark.global_params
def test_the_gradient_is_finite_at_the_edge_of_a_support():
    x = torch.tensor([[1.0, math.nan], [math.nan, math.nan]])

    def model(x):
        shape = pyro.param("shape", torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Gamma(shape, 1.0).to_event(1), obs=x)

    sites_of(observed_entries(model), x)
    site = sites_of(observed_entries(model), x)["x"]
    site["fn"].log_prob(site["value"]).sum().backward()
    gradient = pyro.param("shape").unconstrained().grad
    assert gradient.isfinite().all()
    assert gradient[1] == 0


@pytest.mark.parametrize("name", ["low rank", "event"])
def test_a_model_that_is_handled_twice_is_as_handled_once(name):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            if name == "event":
                fn = pv.families.bernoulli().build(1, z)
            else:
                fn = dist.LowRankMultivariateNormal(z, torch.ones(2, 1), torch.ones(2))
            pyro.sample("x", fn, obs=x)

    x, z = torch.tensor([[1.0, math.nan], [math.nan, 0.0]]), torch.ones(2, 2)
    programs = [observed_entries(model), observed_entries(observed_entries(model))]
    once, twice = (sites_of(pyro.condition(one, data={"z": z}), x)["x"] for one in programs)
    with torch.no_grad():
        assert torch.equal(once["fn"].log_prob(once["value"]), twice["fn"].log_prob(twice["value"]))
    whole = sites_of(completing(observed_entries(model)), x)["x"]["value"]
    assert whole.isfinite().all() and whole[0, 0] == 1 and whole[1, 1] == 0
