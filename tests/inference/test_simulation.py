"""Simulated data: written back into the arguments that the model observes, and drawn from the model."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from zoo import ZOO

import pyrovae as pv
from pyrovae.errors import InputError
from pyrovae.inference.simulation import simulate

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
    drawn = simulate(model, template, 5)
    torch.testing.assert_close(drawn.args[-1], expected(drawn.latents), rtol=0, atol=1e-4)
    if len(drawn.args) == 2:
        assert torch.equal(drawn.args[0], template[0][[0, 1, 0, 1, 0]])


def test_the_template_is_left_alone():
    template = TWO.clone()
    simulate(turned, (template,), 2)
    assert torch.equal(template, TWO)


@pytest.mark.parametrize("name", pv.oracles.EXAMPLES)
def test_simulated_data_are_the_oracles(name):
    """The mean log p(x) of simulated data is that of the oracle's own draws, within 4 SE."""
    oracle = pv.oracles.EXAMPLES[name]()
    own, _ = oracle.draw(2000, seed=1)
    torch.manual_seed(0)
    drawn = simulate(oracle.model, (torch.nan_to_num(own[:3]),), 2000)
    a, b = oracle.log_evidence(drawn.args[0]), oracle.log_evidence(own)
    if name == "missing entries":  # those are not simulated: every entry is seen
        assert drawn.args[0].isfinite().all()
        return
    assert abs(a.mean() - b.mean()) < 4 * ((a.var() + b.var()) / 2000).sqrt()


def test_something_computed_from_the_arguments_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.mean(1))

    with pytest.raises(InputError, match="site 'x' observes something computed from the arguments"):
        simulate(model, (TWO,), 4)


def test_factors_are_refused():
    case = ZOO["factor"]()
    with pytest.raises(InputError, match="is a factor"):
        simulate(case.model, case.args, 4)
