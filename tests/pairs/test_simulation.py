"""Simulated data: written back into the arguments that the model observes, and drawn from the model."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from examples.zoo import ZOO

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.handlers import scorable
from pyrovae.pairs.simulation import Simulator, simulate

TWO = torch.arange(6.0).reshape(2, 3)


def steps(x):  # a site for each column, last column first
    with pyro.plate("data", len(x)):
        for i in (2, 1, 0):
            z = pyro.sample(f"z_{i}", dist.Normal(10.0 * i, 1.0))
            pyro.sample(f"x_{i}", dist.Normal(z, 1e-6), obs=x[:, i])


def turned(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.arange(3.0), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.flip(-1), 1e-6).to_event(1), obs=x.flip(1))


def labelled(y, x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.eye(4)[y.long(), :3], 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1e-6).to_event(1), obs=x)


CASES = {
    "columns": (steps, (TWO,), lambda z: torch.stack([z["z_0"], z["z_1"], z["z_2"]], 1)),
    "turned": (turned, (TWO,), lambda z: z["z"]),
    "second argument": (labelled, (torch.tensor([3.0, 1.0]), TWO), lambda z: z["z"]),
}


@pytest.mark.parametrize(("model", "template", "expected"), CASES.values(), ids=CASES)
def test_what_is_drawn_is_what_the_programs_will_see(model, template, expected):
    torch.manual_seed(0)
    drawn = simulate(model, template, slice(0, 5))
    torch.testing.assert_close(drawn.args[-1], expected(drawn.latents), rtol=0, atol=1e-4)
    if len(drawn.args) == 2:
        assert torch.equal(drawn.args[0], template[0][[0, 1, 0, 1, 0]])


def test_the_template_is_left_alone():
    template = TWO.clone()
    simulate(turned, (template,), slice(0, 2))
    assert torch.equal(template, TWO)


@pytest.mark.parametrize("name", pv.oracles.EXAMPLES)
def test_simulated_data_are_the_oracles(name):
    """The mean log p(x) of simulated data is that of the oracle's own draws, missing the same entries, within 4 SE."""
    oracle = pv.oracles.EXAMPLES[name]()
    own, _ = oracle.draw(2000, seed=1)
    torch.manual_seed(0)
    drawn = simulate(oracle.model, (own,), slice(0, 2000))
    assert torch.equal(drawn.args[0].isnan(), own.isnan())
    assert own.isnan().any() == (name == "missing entries")
    a, b = oracle.log_evidence(drawn.args[0]), oracle.log_evidence(own)
    assert abs(a.mean() - b.mean()) < 4 * ((a.var() + b.var()) / 2000).sqrt()


def test_missing_entries_stay_missing_where_the_template_is_repeated():
    oracle = pv.oracles.EXAMPLES["missing entries"]()
    template = torch.zeros(2, 8, dtype=torch.float64)
    template[0, 3] = template[1, 5:] = torch.nan
    drawn = simulate(oracle.model, (template,), slice(1, 4))
    assert torch.equal(drawn.args[0].isnan(), template[[1, 0, 1]].isnan())


def test_blocks_have_the_rows_of_one_run():
    covariate = torch.tensor([3.0, 1.0, 2.0])
    whole, *parts = (
        simulate(labelled, (covariate, torch.zeros(3, 3)), rows).args[0]
        for rows in (slice(0, 8), slice(0, 2), slice(2, 7), slice(7, 8))
    )
    assert torch.equal(torch.cat(parts), whole)
    assert whole.tolist() == [3, 1, 2, 3, 1, 2, 3, 1]


class Reads:
    """Programs whose distributions read data, at the site that is to be named."""

    @staticmethod
    def own(x):  # teacher forced: x_d ~ N(z + 0.9 x_{d-1}, 0.5)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            before = x.roll(1, 1) * torch.tensor([0.0, 1.0, 1.0])
            pyro.sample("x", dist.Normal(z[..., None] + 0.9 * before, 0.5).to_event(1), obs=x)

    @staticmethod
    def another(y, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)
            pyro.sample("x", dist.Normal(y[:, None], torch.ones(3)).to_event(1), obs=x)

    @staticmethod
    def prior(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.mean(-1), 1.0))
            pyro.sample("x", dist.Normal(z[..., None], torch.ones(3)).to_event(1), obs=x)

    @staticmethod
    def support(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(x[:, 0] - 0.5, x[:, 0] + 0.5))
            pyro.sample("x", dist.Normal(z[..., None], torch.ones(3)).to_event(1), obs=x)


READS = {
    "own": (Reads.own, (TWO,), "x"),
    "another site's": (Reads.another, (torch.zeros(2), TWO), "x"),
    "prior": (Reads.prior, (TWO,), "z"),
    "support": (Reads.support, (TWO,), "z"),
}


@pytest.mark.parametrize(("model", "template", "name"), READS.values(), ids=READS)
def test_distributions_that_read_the_data_are_refused(model, template, name):
    with pytest.raises(InputError, match=f"site '{name}': its distribution depends on the data themselves"):
        simulate(model, template, slice(0, 4))


def test_the_data_are_read_through_what_sample_returns():
    def chain(x):
        with pyro.plate("data", len(x)):
            value = pyro.sample("z", dist.Normal(0.0, 1.0))
            for i in range(3):
                value = pyro.sample(f"x_{i}", dist.Normal(0.9 * value + 1.0, 1e-6), obs=x[:, i])

    x = simulate(chain, (TWO,), slice(0, 4)).args[0]
    torch.testing.assert_close(x[:, 1:], 0.9 * x[:, :-1] + 1, rtol=0, atol=1e-4)


def counts_in_events(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Gamma(50.0, 1.0))
        pyro.sample("x", dist.Poisson(z[..., None].expand(len(x), 3)).mask(x >= 0).to_event(1), obs=x)


def counts_in_plates(x):
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Gamma(torch.full((1,), 50.0), 1.0))
        with pyro.plate("columns", 3, dim=-1), poutine.mask(mask=x >= 0):
            pyro.sample("x", dist.Poisson(z.expand(len(x), 3)), obs=x)


@pytest.mark.parametrize("model", [counts_in_events, counts_in_plates])
def test_entries_that_count_in_one_run_alone_are_not_compared(model):
    """A negative count stands for a missing one: where the template misses it, it is simulated all the same."""
    torch.manual_seed(0)
    assert (simulate(model, (TWO - 3,), slice(0, 4)).args[0] > 0).all()


@pytest.mark.parametrize("labels", [torch.tensor([[3], [1]]).expand(2, 4), torch.tensor([[3.0], [1.0]])])
def test_labels_of_another_type_or_too_few_are_never_numbered(labels):
    """Labels out of range are an error that CUDA does not recover from."""
    seen = set()

    def model(labels, x):
        seen.update(labels.flatten().tolist())
        labelled(labels[:, 0], x)

    simulate(model, (labels, TWO), slice(0, 4))
    assert seen == {1, 3}


def test_the_random_state_hangs_on_the_draws_alone():
    torch.manual_seed(0)
    poutine.uncondition(turned)(TWO)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    simulate(turned, (TWO,), slice(0, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_something_computed_from_the_arguments_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.mean(1))

    with pytest.raises(InputError, match="site 'x' observes something computed from the arguments"):
        simulate(model, (TWO,), slice(0, 4))


def test_factors_are_refused():
    case = ZOO["factor"]()
    with pytest.raises(InputError, match="is a factor"):
        simulate(case.model, case.args, slice(0, 4))


def test_named_values_are_no_observations():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.arange(3.0), 1.0).to_event(1))
            mean = pyro.deterministic("mean", 2 * z)
            pyro.sample("x", dist.Normal(mean, 1e-6).to_event(1), obs=x)

    torch.manual_seed(0)
    drawn = simulate(model, (TWO,), slice(0, 5))
    assert drawn.latents.keys() == {"z"}
    torch.testing.assert_close(drawn.args[0], 2 * drawn.latents["z"], rtol=0, atol=1e-4)


UNSIMULATED = {
    "improper": (
        dist.ImproperUniform(dist.constraints.real, (), ()),
        InputError,
        "site 'z' of the model: ImproperUniform cannot be drawn from",
    ),
    "negative": (
        dist.Normal(0.0, -1.0, validate_args=False),
        InputError,
        "site 'z' of the model: scale of Normal is -1, and must be above 0",
    ),
    "nan": (
        dist.Normal(0.0, torch.nan, validate_args=False),
        FloatingPointError,
        "site 'z': log density in the model is nan; .*: scale of Normal is nan",
    ),
}


@pytest.mark.parametrize(("prior", "error", "message"), UNSIMULATED.values(), ids=UNSIMULATED)
def test_a_prior_that_cannot_be_drawn_from_is_named(prior, error, message):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0, validate_args=False), obs=x)

    with pytest.raises(error, match=message), pyro.validation_enabled(False):
        simulate(model, (torch.zeros(3),), slice(0, 3))


# -------------------------------------------------------------------------------------- again and again, found once


@pytest.mark.parametrize("name", pv.oracles.EXAMPLES)
def test_a_simulator_draws_what_simulate_draws(name):
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(30, seed=1)
    simulator = Simulator(scorable(oracle.model), (x,))
    torch.manual_seed(0)
    expected = simulate(oracle.model, (x,), slice(0, 30))
    torch.manual_seed(0)
    drawn = simulator.draw((x,))
    torch.testing.assert_close(drawn.args[0], expected.args[0], rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(drawn.latents[site], expected.latents[site]) for site in expected.latents)


def test_a_simulator_takes_other_covariates_and_other_missing_entries():
    def model(labels, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(10.0 * labels, 1e-6))
            pyro.sample("x", dist.Normal(z[..., None].expand(-1, 3), 1e-6).mask(~x.isnan()).to_event(1), obs=x)

    nan = torch.nan
    simulator = Simulator(scorable(model), (torch.tensor([1.0, 2.0]), torch.tensor([[0, nan, 0], [0, 0, 0]])))
    drawn = simulator.draw((torch.tensor([3.0, 4.0]), torch.tensor([[0, 0, 0], [nan, 0, nan]])))
    expected = torch.tensor([[30.0, 30, 30], [nan, 40, nan]])
    torch.testing.assert_close(drawn.args[1], expected, rtol=0, atol=1e-4, equal_nan=True)


def test_a_simulator_writes_behind_a_mask_that_is_an_argument():
    """What is masked in the batch of the first look is written in a batch where it counts."""

    def model(seen, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(10.0, 1e-6))
            pyro.sample("x", dist.Normal(z[..., None].expand(-1, 3), 1e-6).mask(seen > 0).to_event(1), obs=x)

    half, full = torch.tensor([[1.0, 0, 1], [0, 1, 1]]), torch.ones(2, 3)
    drawn = Simulator(scorable(model), (half, torch.zeros(2, 3))).draw((full, torch.zeros(2, 3)))
    torch.testing.assert_close(drawn.args[1], torch.full((2, 3), 10.0), rtol=0, atol=1e-4)


def test_entries_that_are_chosen_by_the_data_are_refused():
    def model(which, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.gather(1, which[:, None])[:, 0])

    simulate(model, (torch.tensor([0, 2]), TWO), slice(0, 2))
    with pytest.raises(InputError, match=r"site 'x': which entries .* depends on what is in them"):
        Simulator(model, (torch.tensor([0, 2]), TWO))
