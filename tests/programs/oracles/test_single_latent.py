"""A new oracle is four formulas: a Normal location with a Normal measurement, written here, against itself by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.exact import close

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.single_latent import SingleLatent


class Location(SingleLatent):
    """z ~ N(0, 1), x | z ~ N(z, 1): x ~ N(0, 2), z | x ~ N(x / 2, 1 / 2)."""

    site = "location"

    def __init__(self):
        super().__init__()
        self.unit = torch.nn.Parameter(torch.tensor(1.0).double())

    def prior(self):
        return dist.Normal(0.0 * self.unit, self.unit)

    def likelihood(self, z):
        return dist.Normal(z, self.unit)

    def posterior(self, x):
        return dist.Normal(x / 2, self.unit * 0.5**0.5)

    def evidence(self):
        return dist.Normal(0.0 * self.unit, self.unit * 2**0.5)


def test_four_formulas_are_an_oracle():
    oracle = Location()
    x, z = oracle.draw(500, seed=0)
    assert x.shape == z.shape == (500,) and not x.requires_grad
    log_weight = pv.log_terms(oracle.model, oracle.guide, x, num_particles=5).log_weight
    close(log_weight, oracle.log_evidence(x).expand(5, -1))
    close(oracle.log_evidence(x), -(x**2) / 4 - math.log(4 * math.pi) / 2)


def test_the_site_and_the_weights_have_the_names_of_the_class():
    oracle = Location()
    x, _ = oracle.draw(3, seed=0)
    with pyro.get_param_store().scope():
        trace = pyro.poutine.trace(oracle.model).get_trace(x)
        assert list(pyro.get_param_store()) == ["Location$$$unit"]
    assert {"location", "x"} <= set(trace.nodes) and trace.nodes["location"]["value"].shape == (3,)


def test_draws_depend_on_the_seed_alone_and_leave_the_generator_untouched():
    oracle, before = Location(), torch.get_rng_state()
    x, z = oracle.draw(50, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(x, oracle.draw(50, seed=0)[0]) and torch.equal(z, oracle.draw(50, seed=0)[1])
    assert not torch.equal(x, oracle.draw(50, seed=1)[0])


def test_rows_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"expected data of shape \(N\); got \(3, 2\)"):
        Location().log_evidence(torch.zeros(3, 2))


def test_an_oracle_without_its_evidence_is_none():
    class Unfinished(SingleLatent):
        prior = likelihood = posterior = Location.prior

    with pytest.raises(TypeError, match=r"abstract method '?evidence"):
        Unfinished()
