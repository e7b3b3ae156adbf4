"""Functions of latents by kernels give what they give as they are, for fewer rows and points too; or say why not."""

import pytest
import torch
import torch._inductor.compile_fx as inductor

import pyrovae as pv
from pyrovae.base.errors import NotCompiled
from pyrovae.evidence.ladder import points
from pyrovae.evidence.ladder.adaptation import newton
from pyrovae.evidence.ladder.kernels import Kernels, by_parts
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents
from pyrovae.programs.oracles import gamma_poisson, ppca

NUM_DATA = 10


@pytest.fixture(autouse=True)
def graphs_as_traced(monkeypatch):
    """The compiler itself takes seconds, and is tested elsewhere."""
    monkeypatch.setattr(inductor, "compile_fx", lambda module, inputs, **_: module)


@pytest.fixture
def latents_of():
    """A function that gives the latents of so many data, among those of an oracle."""
    oracle = gamma_poisson(3)
    x, _ = oracle.draw(NUM_DATA, seed=0)
    with isolated(oracle.model, pv.widened(oracle.guide, 0.7)) as (model, guide, _):
        yield lambda num_data: Latents(model, guide, (x[:num_data],))


@pytest.mark.parametrize("function", [points.densities, newton._slope, newton.log_joint_at])
@pytest.mark.parametrize("num_data", [NUM_DATA, 7])
def test_kernels_give_what_the_function_gives(latents_of, function, num_data):
    latents, kernels = latents_of(num_data), Kernels(NUM_DATA)
    u = latents.unconstrain(latents.draw(kernels.at_once + 4))
    expected = by_parts(function, latents, u)
    latents.kernels = kernels
    torch.testing.assert_close(by_parts(function, latents, u), expected, rtol=1e-9, atol=1e-9)
    assert function in kernels.graphs and not kernels.failed


def test_few_rows_are_run_as_they_are(latents_of):
    kernels = Kernels(NUM_DATA)
    assert kernels.of(newton.log_joint_at, latents_of(5)) is None and not kernels.graphs
    assert kernels.of(newton.log_joint_at, latents_of(6)) is not None


def test_what_looks_at_a_value_is_run_as_it_is_and_said(latents_of):
    latents = latents_of(NUM_DATA)
    latents.kernels = kernels = Kernels(NUM_DATA)

    def function(latents, u):
        return u * 2 if u.sum() > 1e9 else u

    u = latents.unconstrain(latents.draw(3))
    with pytest.warns(NotCompiled, match="better proposals are not compiled, and so slower to find: .*the value of a"):
        assert torch.equal(by_parts(function, latents, u), u)
    assert kernels.failed and torch.equal(by_parts(function, latents, u), u)  # once is enough


def test_a_compiled_evaluation_climbs_alike():
    oracle = ppca(20, 3, collinearity=0.9)
    x, _ = oracle.draw(30, seed=1)
    how = {"method": "adaptive", "num_particles": 200, "progress": False}
    eager, compiled = (
        pv.evaluate(oracle.model, oracle.mean_field_guide(), x, compile=choice, **how) for choice in (False, True)
    )
    assert compiled.route == eager.route and set(eager.route) != {"encoder"}
    torch.testing.assert_close(compiled.log_evidence, eager.log_evidence, rtol=0, atol=1e-6)
