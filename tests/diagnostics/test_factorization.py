"""What keeps a prior or a guide from factorising over its coordinates is found and named."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.codes import (
    diagonal,
    doubles,
    full,
    hanging,
    model,
    two_sites,
    two_sites_model,
)
from torch.distributions.transforms import AffineTransform

from pyrovae.diagnostics.surgery import surgery


def mixture_prior(x):
    components = dist.Normal(doubles(3, 2, seed=5), 1.0).to_event(1)
    with pyro.plate("data", len(x)):
        prior = dist.MixtureSameFamily(dist.Categorical(torch.ones(3).double()), components)
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def nested_model(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0 * x[:, 0].mean(), 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(torch.stack([a, b], -1), 0.5).to_event(1), obs=x)


REASONS = {
    "prior": (mixture_prior, diagonal, "site 'z': the prior MixtureSameFamily does not factorise over its coordinates"),
    "guide": (model, full, "site 'z' of the guide: MultivariateNormal does not factorise over its coordinates"),
    "guide's draws": (two_sites_model, hanging, "site 'b' of the guide: its parameters depend on another draw"),
    "prior's draws": (nested_model, two_sites, "sites 'a', 'b': the prior of one depends on the draw of another"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_does_not_factorise_is_named(name):
    program, guide, reason = REASONS[name]
    account = surgery(program, guide, doubles(150, 2), num_draws=4)
    assert account.reason == reason
    assert reason in account.summary()
    kl = account.mutual_information.mean + account.marginal_kl.mean
    assert abs(kl / account.kl_prior.mean - 1) < 1e-10
    assert account.active_units == 2 and account.collapsed == ()
    values = json.loads(account.to_json())
    assert values["total_correlation"] == {"mean": None, "mc_se": None, "data_se": None}
    assert values["dimensions"][0]["kl"]["mean"] is None


def test_a_rare_class_that_parameters_hang_on_is_found():
    """Each datum has its own class all but surely, so that only the draws of others tell that b depends on it."""

    def program(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(2).double()))
            z = pyro.sample("b", dist.Normal(0.0 * x.mean(), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=torch.stack([40 * x.sign(), 0 * x], -1)))
            pyro.sample("b", dist.Normal(x + 3 * k, 0.1))

    account = surgery(program, guide, doubles(40), num_draws=2)
    assert account.reason == "site 'b' of the guide: its parameters depend on another draw"


def test_a_code_below_the_bound_of_a_datum_is_not_its_own():
    """Two data, codes an exponential above each: what lies between the bounds tells them apart. 4 standard errors."""
    x = torch.tensor([0.5, 2.0]).double()

    def program(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2 * torch.ones(len(x)).double(), 1.0))
            pyro.sample("x", dist.Uniform(0 * z, z), obs=x)

    def guide(x):
        base = dist.Exponential(torch.ones(len(x)).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, [AffineTransform(x, 1.0)]))

    account = surgery(program, guide, x, num_draws=4000, progress=False)
    z = torch.linspace(0, 40, 400_001).double()
    each = torch.where(z[:, None] >= x, (x - z[:, None]).exp(), 0.0)
    exact = float((torch.xlogy(each, each) - torch.xlogy(each, each.mean(1, keepdim=True))).mean(1).sum() * 1e-4)
    assert abs(account.mutual_information.mean - exact) < 4 * account.mutual_information.mc_se
