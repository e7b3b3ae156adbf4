"""Predictive checks: uniform where the model is right, extreme where it is not, whatever the likelihood."""

import json
import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import constraints

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.diagnostics import statistics as discrepancies
from pyrovae.diagnostics.predictive_check import predictive_check
from pyrovae.diagnostics.statistics import default_statistics, ks_band, ks_distance, ks_p_value, p_value, randomised_pit

STANDARD_ERRORS = 4
BY_CHANCE = 1e-3  # how often a right model's PIT may fail a test, by the seed chosen here


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(5, 2, seed=1)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(150, seed=0)[0]


def check(model, guide, data, **settings):
    return predictive_check(model, guide, data, progress=False, **settings)


def known(family):
    """A pair without latents: every datum is drawn from the family with these parameters."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", family.to_event(1), obs=x)

    return model, lambda x: None


# --------------------------------------------------------------------------------------- ranks and statistics

P_VALUES = {
    "above all": ([1.0, 2.0, 3.0], 4.0, 0.5 / 4),
    "below all": ([1.0, 2.0, 3.0], 0.0, 3.5 / 4),
    "two ties": ([1.0, 2.0, 2.0, 3.0, 3.0], 2.0, 3.5 / 6),
    "ties to rounding": ([0.1 + 0.2, 5.0], 0.3, 2.0 / 3),
    "not seen": ([1.0, 2.0], math.nan, math.nan),
}


@pytest.mark.parametrize("replicated, observed, expected", P_VALUES.values(), ids=P_VALUES.keys())
def test_p_value_counts_ties_half_and_the_observed_as_one(replicated, observed, expected):
    p = p_value(torch.tensor(replicated, dtype=torch.float64), torch.tensor(observed, dtype=torch.float64))
    assert p.item() == pytest.approx(expected, rel=1e-12, nan_ok=True)


EXCHANGEABLE = {
    "bernoulli": dist.Bernoulli(0.3),
    "geometric": dist.Geometric(0.4),
    "normal": dist.Normal(0.0, 1.0),
}


@pytest.mark.parametrize("family", EXCHANGEABLE.values(), ids=EXCHANGEABLE.keys())
def test_the_rank_is_uniform_already_with_two_replications(family):
    torch.manual_seed(0)
    observed, replicated = family.sample((100_000,)), family.sample((2, 100_000))
    u = randomised_pit((replicated < observed).sum(0), (replicated == observed).sum(0), 2)
    assert ks_distance(u).item() < ks_band(100_000, level=1 - 1e-4)  # 0.007; without v it would be 1 / 6 at least
    assert p_value(replicated, observed).mean().item() == pytest.approx(0.5, abs=STANDARD_ERRORS * 0.29 / 316)


def test_ks_distance_and_its_bound_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    u = torch.rand(80, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** torch.tensor([1, 1.2, 2])
    found = [stats.kstest(column.numpy(), "uniform") for column in u.unbind(1)]
    torch.testing.assert_close(ks_distance(u), torch.tensor([one.statistic for one in found]).double())
    bound, exact = ks_p_value(ks_distance(u), torch.tensor(80)), torch.tensor([one.pvalue for one in found])
    assert ((bound >= exact) & (bound < 1.2 * exact + 0.02)).all()


def test_ks_distance_leaves_out_what_is_not_seen(monkeypatch):
    u = torch.tensor([[0.25, 0.9, math.nan], [math.nan, 0.2, math.nan], [0.75, math.nan, math.nan]])
    expected = torch.tensor([0.25, 0.4, math.nan])
    torch.testing.assert_close(ks_distance(u), expected, equal_nan=True)
    monkeypatch.setattr(discrepancies, "_COLUMNS_AT_ONCE", 1)
    torch.testing.assert_close(ks_distance(u[:, :, None]), expected[:, None], equal_nan=True)


NAN = math.nan
STATISTICS = {
    "mean": [2.0, 3.0],
    "sd": [math.sqrt(2.0), 0.0],
    "square": [6.0, 9.0],
    "zeros": [0.25, 0.0],
    "smallest": [0.0, 3.0],
    "largest": [4.0, 3.0],
}


@pytest.mark.parametrize("name, expected", STATISTICS.items(), ids=STATISTICS.keys())
def test_statistics_leave_out_what_is_masked(name, expected):
    rows = torch.tensor([[[0.0, 2.0], [2.0, 4.0]], [[NAN, 3.0], [NAN, NAN]]], dtype=torch.float64)
    torch.testing.assert_close(getattr(discrepancies, name)(rows), torch.tensor(expected, dtype=torch.float64))


DEFAULTS = {
    "binary": (constraints.boolean, 9, ["mean"]),
    "counts": (constraints.nonnegative_integer, 9, ["mean", "sd", "zeros", "max"]),
    "bounded counts": (constraints.integer_interval(0, 4), 9, ["mean", "sd", "zeros", "max"]),
    "reals": (constraints.real, 9, ["mean", "sd", "min", "max"]),
    "unknown": (None, 9, ["mean", "sd", "min", "max"]),
    "one count": (constraints.nonnegative_integer, 1, ["mean", "square", "zeros"]),
    "one real": (constraints.real, 1, ["mean", "square"]),
}


@pytest.mark.parametrize("support, size, expected", DEFAULTS.values(), ids=DEFAULTS.keys())
def test_default_statistics_follow_the_support(support, size, expected):
    assert list(default_statistics(support, size)) == expected


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


def test_equal_data_in_two_blocks_have_replications_of_their_own(oracle, x):
    found = check(oracle.model, oracle.guide, x[:10].repeat(2, 1), num_draws=20, batch_size=10)
    for kind in (found.statistics["mean"].prior, found.statistics["mean"].posterior):
        assert (kind.mean[:10] != kind.mean[10:]).all()
    assert (found.pit[:10] != found.pit[10:]).all()


def test_replications_come_in_parts_of_a_bounded_size(oracle, x, monkeypatch):
    monkeypatch.setattr("pyrovae.diagnostics.replications.ELEMENTS_AT_ONCE", 64 * len(x) * 7)
    found = check(oracle.model, oracle.guide, x, num_draws=20, batch_size=len(x))  # 7 + 7 + 6
    assert found.statistics["mean"].prior.data_set.shape == (20,)
    assert len(found.statistics["mean"].prior.data_set.unique()) == 20


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


# ------------------------------------------------------------------------------------------ any program, any way


def stubborn(oracle, way):
    """The oracle's programs, refusing particles as a user's own may."""

    def mean(x, z):
        if way != "vectorized":
            z = z.reshape(len(x), 2)
        if way == "looped":
            assert len(x) <= 150, "no more rows than there are data"
        return z @ oracle.loadings.T + oracle.bias

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(mean(x, z), oracle.noise_scale).to_event(1), obs=x)

    return model, oracle.guide


@pytest.mark.parametrize("way", ["vectorized", "tiled", "looped"])
def test_every_way_of_running_the_programs_gives_the_same_numbers(oracle, x, way):
    settings = {"num_draws": 400, "batch_size": len(x), "statistics": {"second": lambda rows: rows[:, 1]}}
    found = check(*stubborn(oracle, way), x, **settings)
    expected = check(oracle.model, oracle.guide, x, seed=1, **settings)
    for kind in ("prior", "posterior"):
        a, b = (getattr(one.statistics["second"], kind).p_value for one in (found, expected))
        assert ((a - b).abs() < STANDARD_ERRORS * 0.5 * (2 / 400) ** 0.5).all()
    assert found.statistics["second"].posterior.p_value.std() < 0.9 * found.statistics["second"].prior.p_value.std()


@pytest.mark.parametrize("dim", [-1, -2])
def test_a_plate_within_the_data_is_part_of_a_datum(dim):
    times = torch.tensor([0.0, 5.0, 10.0])

    def model(x):
        data, inner = pyro.plate("data", len(x), dim=dim), pyro.plate("time", 3, dim=-3 - dim)
        loc = times if dim == -2 else times[:, None]
        with data:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with inner:
                pyro.sample("x", dist.Normal(z + loc, 1.0), obs=x if dim == -2 else x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=dim):
            loc = (x - times).sum(1) / 4
            pyro.sample("z", dist.Normal(loc[:, None] if dim == -2 else loc, 0.5))

    torch.manual_seed(0)
    data = torch.randn(200, 1) + times + torch.randn(200, 3)
    found = check(model, guide, data, plate="data", num_draws=50)
    assert found.pit.shape == (200, 3)
    torch.testing.assert_close(found.table()["mean"], data.double().mean(1))
    assert found.to_dict()["pit"]["p_value"] > BY_CHANCE
    assert abs(found.statistics["mean"].posterior.data_set_p_value - 0.5) < 0.4


def test_a_built_in_vae_keeps_its_mode():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.bernoulli(), (4, 4), pv.networks.mlp(2, 8, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp((4, 4), 8, seed=1)),
    )
    found = check(vae.model, vae.guide, torch.bernoulli(torch.full((20, 4, 4), 0.1)), num_draws=10)
    assert found.pit.shape == (20, 4, 4) and list(found.statistics) == ["mean"]
    assert vae.training


def two_sites(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.sample("y", dist.Poisson(z.exp()), obs=y)


def two_guide(x, y):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def test_the_site_is_chosen_by_name():
    data = (torch.randn(30), torch.poisson(torch.ones(30)))
    found = check(two_sites, two_guide, data, site="y", num_draws=5)
    assert found.site == "y" and list(found.statistics) == ["mean", "square", "zeros"]
    assert torch.equal(found.table()["mean"], data[1].double())


# ------------------------------------------------------------------------------------------------------ errors


def with_factor(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        pyro.factor("extra", x)


def without_finite_draws(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(math.inf, 1.0), obs=x)


def nothing(*args):
    pass


ROWS = torch.zeros(6)
REFUSED = {
    "shape": ({"statistics": {"s": lambda rows: rows[:2]}}, r"statistic 's': .* shape \(6,\), got \(2,\)"),
    "not a tensor": ({"statistics": {"s": lambda rows: 1.0}}, "statistic 's': .* got float"),
    "nan": ({"statistics": {"s": lambda rows: (rows - 1).log()}}, "statistic 's' is nan for 6 of 6 data"),
    "infinite": ({"statistics": {"s": lambda rows: rows.abs().log()}}, "statistic 's' is -inf for 6 of 6 data"),
    "no draws": ({"num_draws": 0}, "num_draws=0"),
    "no block": ({"batch_size": 0}, "batch_size=0"),
    "other site": ({"site": "xx"}, "site 'xx' is none of the observed sites.*did you mean \"x\"?"),
}


def plain(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize("settings, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_used_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        check(plain, nothing, ROWS, **settings)


def test_models_that_cannot_be_replicated_are_refused():
    with pytest.raises(InputError, match="site 'extra' is a factor"):
        check(with_factor, nothing, ROWS)
    with pytest.raises(InputError, match=r"several sites, \['x', 'y'\]: choose one with site="):
        check(two_sites, two_guide, (ROWS, ROWS))
    with pytest.raises(FloatingPointError, match=r"site 'x': .* drawn from the prior predictive are not finite"):
        check(without_finite_draws, nothing, ROWS)
