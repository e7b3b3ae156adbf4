"""Every value that the discrete latents of a datum have together."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import isolated
from pyrovae.pairs.discrete.values import every_value
from pyrovae.pairs.latents import Latents

X = torch.zeros(3, 2)


def model(x):
    """A class for each of two measurements, and a coin for the datum."""
    with pyro.plate("data", len(x), dim=-2):
        coin = pyro.sample("coin", dist.Bernoulli(torch.full((len(x), 1), 0.3)))
        with pyro.plate("entries", 2, dim=-1):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
            pyro.sample("x", dist.Normal(k + coin, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("coin", dist.Bernoulli(torch.full((len(x), 1), 0.5)))
        with pyro.plate("entries", 2, dim=-1):
            pyro.sample("k", dist.Categorical(torch.ones(len(x), 2, 3)))


def test_each_is_there_once():
    with isolated(model, guide) as (p, q, _):
        values = every_value(Latents(p, q, (X,)))
    assert len(values["coin"]) == len(values["k"]) == 2 * 3 * 3
    together = torch.cat([value.flatten(1) for value in values.values()], 1)
    assert len(together.unique(dim=0)) == 18


def test_too_many_are_refused(monkeypatch):
    monkeypatch.setattr("pyrovae.pairs.discrete.values.MOST_VALUES", 10)
    with isolated(model, guide) as (p, q, _), pytest.raises(InputError, match=r"\(coin, k\) have 18 values together"):
        every_value(Latents(p, q, (X,)))
