"""Replications of every datum by itself, however its programs are written and run."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.checks import BY_CHANCE, STANDARD_ERRORS, check, two_guide, two_sites

import pyrovae as pv
from pyrovae.base.errors import InputError

ROWS = torch.zeros(6)


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(5, 2, seed=1)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(150, seed=0)[0]


def nothing(*args):
    pass


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


SETTINGS = {"num_draws": 400, "batch_size": 150, "statistics": {"second": lambda rows: rows[:, 1]}}


@pytest.fixture(scope="module")
def expected(oracle, x):
    return check(oracle.model, oracle.guide, x, seed=1, **SETTINGS)


@pytest.mark.parametrize("way", ["vectorized", "tiled", "looped"])
def test_every_way_of_running_the_programs_gives_the_same_numbers(oracle, x, expected, way):
    found = check(*stubborn(oracle, way), x, **SETTINGS)
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


def test_the_site_is_chosen_by_name():
    data = (torch.randn(30), torch.poisson(torch.ones(30)))
    found = check(two_sites, two_guide, data, site="y", num_draws=5)
    assert found.site == "y" and list(found.statistics) == ["mean", "square", "zeros"]
    assert torch.equal(found.table()["mean"], data[1].double())


def with_factor(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        pyro.factor("extra", x)


def without_finite_draws(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(math.inf, 1.0), obs=x)


def test_models_that_cannot_be_replicated_are_refused():
    with pytest.raises(InputError, match="site 'extra' is a factor"):
        check(with_factor, nothing, ROWS)
    with pytest.raises(InputError, match=r"several sites, \['x', 'y'\]: choose one with site="):
        check(two_sites, two_guide, (ROWS, ROWS))
    with pytest.raises(FloatingPointError, match=r"site 'x': .* drawn from the prior predictive are not finite"):
        check(without_finite_draws, nothing, ROWS)
