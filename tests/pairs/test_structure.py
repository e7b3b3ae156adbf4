"""What a run of a pair shows: its data plate, its sites, their measures."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.pairs.particles import Particles
from pyrovae.pairs.structure import Structure
from pyrovae.programs.oracles import ppca

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
UNIT = dist.Normal(torch.zeros(2), 1.0)


def inspect_pair(model, guide, args, plate=None):
    return Particles(model, guide, args, plate=plate, strategy="looped").structure


def test_structure():
    oracle = ppca(5, 2)
    x, _ = oracle.draw(7, seed=0)
    found = inspect_pair(oracle.model, oracle.guide, (x,))
    assert found == Structure("data", -1, 1, ("z",), {"z": True}, False, {"x": "density"}, 1.0)


def test_structure_of_a_rescaled_plate_with_three_kinds_of_sites():
    def inside(x):
        pyro.sample("label", dist.Bernoulli(0.5).expand([6]), obs=(x[:, 0] > 0).float())
        pyro.factor("penalty", -x[:, 0].abs())
        pyro.deterministic("twice", 2 * x, event_dim=1)

    def program(observed):
        def run(x):
            with pyro.plate("data", 60, subsample=x):
                z = pyro.sample("z", UNIT.to_event(1))
                if observed:
                    pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) + 0 * x, 1.0).to_event(1), obs=x)
                    inside(x)

        return run

    found = inspect_pair(program(True), program(False), (X,))
    assert found.observed == {"x": "density", "label": "mass", "penalty": "factor"}
    assert (found.depth, found.plate_scale) == (1, 10.0)


@pytest.mark.parametrize("name, dim", [("plate_0", -1), ("plate_1", -2)])
def test_the_data_plate_by_name(name, dim):
    def guide(x):
        with pyro.plate_stack("plate", (6, 6)):
            return pyro.sample("z", dist.Normal(0.0, 1.0))

    def model(x):
        with pyro.plate_stack("plate", (6, 6)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    found = inspect_pair(model, guide, (torch.zeros(6, 6),), plate=name)
    assert (found.plate, found.depth) == (name, 2)
    assert found.dim in (-1, -2)
