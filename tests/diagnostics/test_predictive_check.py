"""Predictive checks: uniform where the model is right, extreme where it is not, whatever the likelihood."""

import json
import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from examples.checks import BY_CHANCE, STANDARD_ERRORS, check, known

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.diagnostics.statistics import ks_band, ks_distance


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(5, 2, seed=1)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(150, seed=0)[0]


NAN = math.nan


# ----------------------------------------------------------------------------------------- a right model passes


def test_a_right_model_passes_as_often_as_it_should(oracle):
    repeats, band = 200, []
    prior, posterior = torch.zeros(2, repeats, 4, dtype=torch.float64)
    for seed in range(repeats):
        found = check(oracle.model, oracle.guide, oracle.draw(30, seed=seed)[0], num_draws=39, seed=seed)
        prior[seed] = torch.tensor([one.prior.data_set_p_value for one in found.statistics.values()])
        posterior[seed] = torch.tensor([one.posterior.data_set_p_value for one in found.statistics.values()])
        band.append(found.ks.flatten() < ks_band(30))
    inside = torch.stack(band).double()
    # Mid-p values of 39 replications lie on a grid of 40, half a step of which is added to the distance.
    assert (ks_distance(prior) < ks_band(repeats, level=0.999) + 1 / 80).all()
    assert (posterior.var(0) < 0.75 * prior.var(0)).all()  # the posterior predictive uses x twice
    # The bound leaves 95.9 % inside at n = 30; the five coordinates of a repeat depend on each other.
    error = inside.mean(1).std().item() / math.sqrt(repeats)
    assert inside.mean().item() == pytest.approx(0.959, abs=STANDARD_ERRORS * error)
    assert error < 0.01


KNOWN = {
    "bernoulli": lambda d: pv.families.bernoulli().build(0, torch.linspace(-3, 3, d)),
    "binomial": lambda d: pv.families.binomial(16).build(0, torch.linspace(-3, 3, d)),
    "poisson": lambda d: pv.families.poisson().build(0, torch.linspace(-1, 3, d)),
    "categorical": lambda d: dist.Categorical(logits=torch.arange(4.0 * d).reshape(d, 4).sin()),
    "continuous bernoulli": lambda d: pv.families.continuous_bernoulli().build(0, torch.linspace(-3, 3, d)),
    "student": lambda d: dist.StudentT(2.0, torch.zeros(d), 1.0),
}


@pytest.mark.parametrize("make", KNOWN.values(), ids=KNOWN.keys())
def test_pit_is_uniform_for_every_family_at_known_parameters(make):
    torch.manual_seed(1)
    family, num_data = make(3), 4000
    found = check(*known(family), family.sample((num_data,)), num_draws=19, batch_size=num_data)
    assert found.pit.shape == (num_data, 3)
    assert (found.ks < ks_band(num_data, level=1 - 1e-4)).all(), found.ks  # 0.035
    assert found.to_dict()["pit"]["p_value"] > BY_CHANCE


def test_pit_of_each_row_is_under_its_own_covariates():
    def model(x, label):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + 10.0 * label, 1.0), obs=x)

    def guide(x, label):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - 10.0 * label) / 2, 0.5**0.5))

    torch.manual_seed(0)
    label = torch.arange(300.0) % 7
    data = 10 * label + 2**0.5 * torch.randn(300)
    found = check(model, guide, (data, label), num_draws=50)
    assert found.to_dict()["pit"]["p_value"] > BY_CHANCE
    assert check(model, guide, (data, label.flip(0)), num_draws=50).to_dict()["pit"]["p_value"] < 1e-6


# ---------------------------------------------------------------------------------------- a wrong model is caught


def fourth_power(rows):
    return rows.pow(4).nanmean(1)


def narrow(oracle):
    model = pv.oracles.LinearGaussian(oracle.loadings, oracle.bias, 0.7 * oracle.noise_scale)
    return model, oracle.draw(600, seed=2)[0]


def heavy_tails(oracle):
    torch.manual_seed(0)
    noise = dist.StudentT(2.5).sample((600, 5)).double() / 5**0.5  # of variance 1, as the oracle's
    return oracle, oracle.draw(600, seed=2)[1] @ oracle.loadings.T + oracle.bias + noise


WRONG = {"noise 0.7 times": (narrow, None, "sd"), "heavy tails": (heavy_tails, {"tails": fourth_power}, "tails")}


@pytest.mark.parametrize("make, statistics, caught", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_model_is_caught(oracle, make, statistics, caught):
    model, data = make(oracle)
    found = check(model.model, model.guide, data, statistics=statistics, num_draws=400)
    assert found.statistics[caught].prior.data_set_p_value < 0.005
    assert "*" in next(line for line in found.summary().splitlines() if line.startswith(caught))
    right = check(oracle.model, oracle.guide, oracle.draw(600, seed=2)[0], statistics=statistics, num_draws=400)
    assert abs(right.statistics[caught].prior.data_set_p_value - 0.5) < 0.495  # 1 in 100 by chance


def test_overdispersed_counts_under_a_poisson_are_caught():
    torch.manual_seed(0)
    rate = dist.Gamma(4.0, 1.0).sample((400, 3))
    model, guide = known(pv.families.poisson().build(0, torch.full((3,), math.log(4.0))))
    found = check(model, guide, torch.poisson(rate))
    assert found.statistics["sd"].prior.data_set_p_value < 0.01
    assert found.statistics["zeros"].prior.data_set_p_value < 0.01
    account = found.to_dict()["pit"]
    assert account["p_value"] < 1e-4 and account["sd"] > 0.32  # too narrow
    right = check(model, guide, torch.poisson(torch.full((400, 3), 4.0)))
    assert right.to_dict()["pit"]["p_value"] > BY_CHANCE


def test_a_wrong_guide_shows_in_the_posterior_predictive_alone(oracle, x):
    right = check(oracle.model, oracle.guide, x)
    wrong = check(oracle.model, oracle.mean_field_guide(scale=1.0, shift=4.0), x)
    assert torch.equal(right.pit, wrong.pit)
    for name, one in wrong.statistics.items():
        assert torch.equal(one.prior.p_value, right.statistics[name].prior.p_value)
    posterior = wrong.statistics["mean"].posterior.data_set_p_value
    assert abs(posterior - 0.5) > 0.49 > abs(right.statistics["mean"].posterior.data_set_p_value - 0.5)


# ------------------------------------------------------------------------------------- the record and its numbers


def test_numbers_are_those_of_the_definitions(oracle, x):
    found = check(oracle.model, oracle.guide, x, statistics={"first": lambda rows: rows[:, 0]}, num_draws=3000)
    one, exact = found.statistics["first"], oracle.posterior(x)
    assert torch.equal(one.observed, x[:, 0])
    mean, row = exact.mean @ oracle.loadings.T + oracle.bias, oracle.loadings[0]
    predictive = dist.Normal(mean[:, 0], (row @ exact.covariance_matrix @ row + oracle.noise_scale[0] ** 2).sqrt())
    tail = 1 - predictive.cdf(x[:, 0])
    assert ((one.posterior.p_value - tail).abs() < STANDARD_ERRORS * 0.5 / 3000**0.5 + 1 / 3000).all()
    assert ((one.posterior.mean - predictive.mean).abs() < STANDARD_ERRORS * predictive.stddev / 3000**0.5).all()
    marginal = dist.Normal(oracle.bias[0], (row @ row + oracle.noise_scale[0] ** 2).sqrt())
    tail = 1 - marginal.cdf(x[:, 0])
    assert ((one.prior.p_value - tail).abs() < STANDARD_ERRORS * 0.5 / 3000**0.5 + 1 / 3000).all()
    assert ((found.pit[:, 0] - (1 - tail)).abs() < STANDARD_ERRORS * 0.5 / 3000**0.5 + 1 / 3000).all()
    spread = one.prior.data_set.std().item()
    assert spread == pytest.approx(marginal.stddev.item() / len(x) ** 0.5, rel=STANDARD_ERRORS / 6000**0.5)


def test_shapes_table_and_json(oracle, x):
    found = check(oracle.model, oracle.guide, x, num_draws=20, batch_size=64)
    assert len(found) == len(x) and found.site == "x"
    assert found.pit.shape == x.shape and found.ks.shape == found.ks_p_value.shape == x.shape[1:]
    columns = found.table()
    assert list(columns)[:3] == ["mean", "mean_p_prior", "mean_p_posterior"] and len(columns) == 12
    tensors = [*columns.values(), found.pit, found.ks, found.ks_p_value, found.statistics["sd"].prior.data_set]
    assert all(tensor.dtype == torch.float64 for tensor in tensors)
    assert all(column.shape == (len(x),) for column in columns.values())
    account = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert account["num_draws"] == 20 and account["pit"]["num_coordinates"] == 5
    assert account["pit"]["p_value"] == pytest.approx(min(1, 5 * found.ks_p_value.min().item()))
    assert account["statistics"]["sd"]["observed"] == pytest.approx(x.std(1, correction=0).mean().item())
    assert "accuse the model" in str(found) and "S=20" in repr(found)


def test_one_replication_of_one_datum_is_enough_for_a_record(oracle, x):
    found = check(oracle.model, oracle.guide, x[:1], num_draws=1)
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.statistics["mean"].prior.data_set_p_value in (0.25, 0.75)


def test_seed_gives_the_bits_and_nothing_is_left_behind(oracle, x):
    state = torch.get_rng_state()
    first, again, other = (check(oracle.model, oracle.guide, x, num_draws=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.pit, again.pit) and not torch.equal(first.pit, other.pit)
    assert all(torch.equal(a, b) for a, b in zip(first.table().values(), again.table().values(), strict=True))


# ------------------------------------------------------------------------------------------------------- masks


def masked_pair(oracle, inside):
    """The oracle with entries unseen: the mask on the distribution, or around the site for whole rows."""

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            likelihood = dist.Normal(z @ oracle.loadings.T + oracle.bias, oracle.noise_scale)
            if inside:
                pyro.sample("x", likelihood.mask(seen).to_event(1), obs=x)
            else:
                with poutine.mask(mask=seen.all(1)):
                    pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2, dtype=x.dtype), 1.0).to_event(1))

    return model, guide


MASKS = {
    "entries": (True, lambda shape: torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.6),
    "rows": (False, lambda shape: (torch.arange(shape[0]) % 3 > 0)[:, None].expand(shape)),
}


class TestMasks:
    @pytest.mark.parametrize("inside, make", MASKS.values(), ids=MASKS.keys())
    @pytest.mark.parametrize("filler", [NAN, 1e6])
    def test_what_is_masked_is_not_compared(self, oracle, inside, make, filler):
        data = oracle.draw(300, seed=5)[0]
        seen = make(data.shape) & (torch.arange(300) != 3)[:, None]
        found = check(*masked_pair(oracle, inside), (data.where(seen, filler), seen), num_draws=400)
        assert torch.equal(~found.pit.isnan(), seen)
        columns, some = found.table(), seen.any(1)
        assert all(torch.equal(~column.isnan(), some) for column in columns.values())
        observed = torch.where(seen, data, 0.0).sum(1) / seen.sum(1)
        torch.testing.assert_close(columns["mean"], observed, equal_nan=True)
        account = found.to_dict()
        assert account["statistics"]["mean"]["observed"] == pytest.approx(observed[some].mean().item())
        assert account["pit"]["p_value"] > BY_CHANCE
        p = [one.prior.data_set_p_value for one in found.statistics.values()]
        assert max(p) < 0.995 and min(p) > 0.005  # 1 in 25 by chance: none of four, 1 in 100 each

    def test_a_coordinate_never_seen_has_no_distance(self, oracle, x):
        seen = torch.arange(5) != 2
        found = check(*masked_pair(oracle, True), (x, seen.expand(x.shape)), num_draws=50)
        assert torch.equal(~found.ks.isnan(), seen)
        assert found.to_dict()["pit"]["num_coordinates"] == 4

    def test_nothing_seen_is_an_error(self, oracle, x):
        with pytest.raises(InputError, match="site 'x': every value is masked"):
            check(*masked_pair(oracle, True), (x, torch.zeros(x.shape, dtype=torch.bool)))

    def test_statistics_that_forget_the_mask_are_told(self, oracle, x):
        seen = torch.ones(x.shape, dtype=torch.bool)
        seen[0, 0] = False
        with pytest.raises(InputError, match=r"statistic 'm' is nan for 1 of .* nanmean"):
            check(*masked_pair(oracle, True), (x, seen), statistics={"m": lambda rows: rows.mean(1)})


def test_a_built_in_vae_keeps_its_mode():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.bernoulli(), (4, 4), pv.networks.mlp(2, 8, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp((4, 4), 8, seed=1)),
    )
    found = check(vae.model, vae.guide, torch.bernoulli(torch.full((20, 4, 4), 0.1)), num_draws=10)
    assert found.pit.shape == (20, 4, 4) and list(found.statistics) == ["mean"]
    assert vae.training


def nothing(*args):
    pass


ROWS = torch.zeros(6)

REFUSED = {
    "shape": ({"statistics": {"s": lambda rows: rows[:2]}}, r"statistic 's': .* shape \(6,\), got \(2,\)"),
    "not a tensor": ({"statistics": {"s": lambda rows: 1.0}}, "statistic 's': .* got float"),
    "nan": ({"statistics": {"s": lambda rows: (rows - 1).log()}}, "statistic 's' is nan for 6 of 6 data"),
    "infinite": ({"statistics": {"s": lambda rows: rows.abs().log()}}, "statistic 's' is -inf for 6 of 6 data"),
    "no draws": ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
    "no block": ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "other site": ({"site": "xx"}, "site 'xx' is none of the observed sites.*did you mean \"x\"?"),
}


def plain(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize("settings, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_used_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        check(plain, nothing, ROWS, **settings)
