"""The table against formulas by hand, on the same draws, for programs of every style that Pyro allows."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.recorded import Recorded
from examples.zoo import ONE, ZOO, K, N, X, Z, doubles, linear_guide, linear_model, normal

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import isolated, own_scope
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.table import log_terms


def draws(guide, way, names, num_data):
    """The latents of the last table, each (K, N, ...), however the programs were run."""
    runs = {"vectorized": 1, "tiled": 1, "looped": K, "one by one": K * num_data}[way]
    last = guide.values[-runs:]
    stacked = {name: torch.stack([values[name] for values in last]) for name in names}
    return {n: v.reshape(K, num_data, *v.shape[v.dim() - (Z in v.shape[-1:]) :]) for n, v in stacked.items()}


def check_table(case, terms, guide, way):
    if case.evidence is not None:
        assert terms.log_weight.shape == (K, len(case.evidence))
        assert (terms.log_weight - case.evidence).abs().max() < 1e-10
        return
    names = (
        case.table.__code__.co_varnames[: case.table.__code__.co_argcount] if hasattr(case.table, "__code__") else "z"
    )
    expected = case.table(**draws(guide, way, names, N))
    exact = terms.log_likelihood.dtype == torch.float64
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if exact else {"rtol": 1e-5, "atol": 1e-3}
    for actual, value in zip(terms, expected, strict=True):
        torch.testing.assert_close(actual.double(), value.expand(K, N).double(), **tolerance)


@pytest.mark.parametrize("build", ZOO.values(), ids=ZOO)
@torch.no_grad()
def test_zoo(build):
    torch.manual_seed(0)
    case = build()
    with own_scope(case.model, case.guide):
        looked_at = Particles(case.model, case.guide, case.args, plate=case.plate, strategy="looped")
    with own_scope(case.model, case.guide), pyro.validation_enabled(False):
        assert looked_at.fastest().strategy == case.way
    guide = Recorded(case.guide)
    terms = log_terms(case.model, guide, *case.args, num_particles=K, plate=case.plate)
    check_table(case, terms, guide, case.way)


@pytest.mark.parametrize("particle", [0, 1])
@pytest.mark.parametrize("num_data", [3, 20])
def test_particles_that_a_program_takes_for_one_are_found_out(num_data, particle):
    """The model reads one particle for both: the other alone has another density."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z[particle].expand_as(z) if z.dim() > 1 else z, 1.0), obs=x)

    with isolated(model, scalar_guide) as (model, guide, _):
        assert Particles(model, guide, (torch.zeros(num_data),)).strategy == "tiled"


def scalar_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


SLOW_TOO = ["functions", "hierarchical", "pixels-left", "pixels-right", "arguments", "convolution", "factor"]


@pytest.mark.parametrize("name", SLOW_TOO)
@torch.no_grad()
def test_one_by_one(name):
    torch.manual_seed(0)
    case = ZOO[name]()
    guide = Recorded(case.guide)
    terms = log_terms(case.model, guide, *case.args, num_particles=K, plate=case.plate, vectorize=False)
    check_table(case, terms, guide, "one by one")


def test_one_by_one_takes_the_name_of_the_plate():
    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", 1, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", 1, dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    terms = log_terms(model, guide, torch.zeros(4, 1), num_particles=2, plate="data", vectorize=False)
    assert terms.log_prior.shape == (2, 4)


def branching_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0 * ONE, 1.0))
        scale = 1.0 if z > 0 else 2.0
        if z > 1:
            z = z + pyro.sample("extra", dist.Normal(3 * ONE, 1.0))
        pyro.sample("x", dist.Normal(z, scale), obs=x)


def branching_guide(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x, 0.5))
        if z > 1:
            pyro.sample("extra", dist.Normal(2 * ONE, 2.0))


def test_draws_may_steer_control_flow_one_by_one():
    x, guide = 2 * doubles(20), Recorded(branching_guide)
    torch.manual_seed(0)
    terms = log_terms(branching_model, guide, x, num_particles=K, vectorize=False)
    drawn = [{name: value[0] for name, value in values.items()} for values in guide.values[-20 * K :]]
    assert {len(values) for values in drawn} == {2, 3}  # the plate's site, z, and sometimes extra
    z = torch.stack([values["z"] for values in drawn]).reshape(K, 20)
    extra = torch.stack([values.get("extra", torch.tensor(0.0).double()) for values in drawn]).reshape(K, 20)
    more = z > 1
    log = partial(normal, event_dim=0)
    expected = (
        log(x, z + extra, torch.where(z > 0, 1.0, 2.0)),
        log(z) + torch.where(more, log(extra, 3.0), 0.0),
        log(z, x, 0.5) + torch.where(more, log(extra, 2.0, 2.0), 0.0),
    )
    for actual, value in zip(terms, expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=1e-10, atol=1e-10)


def test_what_cannot_be_run_says_how_it_failed():
    calls = []

    def model(x):
        calls.append(len(x))
        if len(calls) > 2:  # validated, and as an example
            raise AssertionError
        linear_model(x)

    with pytest.raises(InputError, match=r"vectorized: AssertionError; tiled: .*vectorize=False"):
        log_terms(model, linear_guide, X, num_particles=2)


def wide_inside(width):
    """A pair whose data are three numbers, and whose decoder has a hidden layer of this width."""
    hidden, out = torch.nn.Linear(2, width), torch.nn.Linear(width, 3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(out(hidden(z).relu()), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

    return model, guide


@pytest.mark.parametrize("width, expected", [(64, 327), (32_768, 5)], ids=["as ever", "wide"])
def test_a_block_of_particles_is_sized_by_what_a_run_holds(width, expected):
    with isolated(*wide_inside(width)) as (model, guide, _):
        particles = Particles(model, guide, (torch.zeros(100, 3),))
        assert particles.at_once() == expected  # two layers of 100 x 32,768 numbers of 4 bytes are 26 MB of 151
        known = Particles(model, guide, (torch.zeros(100, 3),), strategy="vectorized")  # no run of two is left over
        assert known.at_once() == expected


def test_a_run_that_found_the_strategy_sizes_blocks_too():
    model, guide = wide_inside(64)
    called = []
    with isolated(lambda x: (called.append(len(x)), model(x)), guide) as (model_, guide, _):
        particles = Particles(model_, guide, (torch.zeros(100, 3),))
        called.clear()
        particles.at_once()
    assert not called
