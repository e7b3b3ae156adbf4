"""What is missing is drawn at given latents, in the shape of the argument, whatever the programs look like."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.missing.completing import Completer, beside_filled, filled, reads_missing
from pyrovae.pairs.missing.observed import observed_entries

ORACLE = pv.oracles.missing_entries(4, 2, missing=0.4)
X = ORACLE.draw(6, seed=0)[0]


@pytest.mark.parametrize("strategy", ["vectorized", "tiled", "looped"])
def test_every_strategy_completes_alike(strategy):
    z = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0)).double()
    with isolated(observed_entries(ORACLE.complete.model), ORACLE.guide) as (model, guide, _):
        latents = Latents(model, guide, (X,)).by(strategy)
        found = Completer(latents, ORACLE.complete.model).at({"z": z})
    seen = ~X.isnan()
    expected = z @ ORACLE.complete.loadings.T + ORACLE.complete.bias
    torch.testing.assert_close(found.mean[:, ~seen], expected[:, ~seen])
    assert torch.equal(found.draws[:, seen], X.expand(3, -1, -1)[:, seen])
    assert found.draws.isfinite().all() and not found.variance[:, seen].any()


def test_columns_of_several_sites_and_masks_of_their_own_are_completed():
    """A model that observes columns apart, in another order, and leaves out what is missing by itself."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            seen = ~x.isnan()
            first = dist.Normal(z + 10, 0.1).mask(seen[:, [2]]).to_event(1)
            pyro.sample("a", first, obs=x[:, [2]].nan_to_num())
            pyro.sample("b", dist.Normal(z.expand(*z.shape[:-1], 2) + 20, 0.1).to_event(1), obs=x[:, :2])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))

    x = torch.tensor([[math.nan, 20.0, 10.0], [20.0, math.nan, math.nan]])
    with isolated(observed_entries(model), guide) as (handled, guide, _):
        latents = Latents(handled, guide, (x,))
        found = Completer(latents, model).at({"z": torch.zeros(5, 2, 1)})
    expected = torch.tensor([[20.0, 20.0, 10.0], [20.0, 20.0, 10.0]])
    torch.testing.assert_close(found.draws, expected.expand(5, -1, -1), rtol=0, atol=0.5)


def test_who_reads_what_is_missing():
    assert reads_missing(ORACLE.guide, (X,))
    assert not reads_missing(ORACLE.complete.guide, (X,))


@pytest.mark.global_params
def test_a_guess_is_complete_and_keeps_what_was_observed():
    with isolated(ORACLE.complete.model, ORACLE.complete.guide) as (model, guide, _):
        torch.manual_seed(0)
        found = filled(model, guide, (X,))
    seen = ~X.isnan()
    assert found.isfinite().all() and torch.equal(found[seen], X[seen])


def test_the_last_argument_is_the_guides():
    model, guide = beside_filled(lambda *args: ("model", args), lambda *args: ("guide", args))
    assert model("x", "y", "filled") == ("model", ("x", "y"))
    assert guide("x", "y", "filled") == ("guide", ("filled", "y"))


def test_a_model_that_observes_something_computed_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x / 255)

    with isolated(observed_entries(model), ORACLE.guide) as (handled, _, _):
        guide = pv.encoder_for(model, X.nan_to_num(), hidden=(4,))
        latents = Latents(handled, guide, (X,))
        with pytest.raises(InputError, match="site 'x' observes something computed from the arguments"):
            Completer(latents, model)
