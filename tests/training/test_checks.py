"""What cannot be fitted is refused before a first step, by argument, site or row."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae
from pyro.infer import RenyiELBO, TraceMeanField_ELBO

import pyrovae as pv


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": "3"}, "epochs must be a whole number, got '3'"),
        ({"batch_size": 64.5}, "batch_size must be a whole number, got 64.5"),
        ({"objective": "iwae"}, "objective must be a Pyro ELBO"),
        ({"schedule": "cosine"}, "schedule must be a function"),
        ({"patience": 3}, "patience needs validation data"),
        ({"valid": torch.full((5, 4, 4), torch.nan)}, "the first is row 0 of the validation data"),
        ({"resume": True}, "resume needs the folder"),
        ({"device": "tpu9"}, "unknown device 'tpu9'"),
        ({"valid": torch.full((5, 4, 4), 0.5)}, "outside the support of Bernoulli"),
        ({"kl_warmup": -1}, "kl_warmup must not be negative"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments(keywords, message):
    vae = make_vae()
    with pytest.raises(pv.InputError, match=message):
        pv.fit(vae.model, vae.guide, make_data(), **{"epochs": 1, **keywords})


def test_data_outside_the_support_are_refused_before_training():
    vae = make_vae()
    before = [p.clone() for p in vae.parameters()]
    with pytest.raises(pv.InputError, match="outside the support of Bernoulli"):
        pv.fit(vae.model, vae.guide, torch.cat([make_data(600), torch.full((1, 4, 4), 0.5)]), epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))


def test_too_little_memory_says_what_to_lower(monkeypatch):
    vae = make_vae()

    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(vae.encoder, "forward", full)
    with pytest.raises(pv.InputError, match="not enough memory"):
        pv.fit(vae.model, vae.guide, make_data(), epochs=1)


def test_a_data_plate_is_named_where_two_hold_all_sites():
    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("inner", 5, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x), dim=-2), pyro.plate("inner", 5, dim=-1):
            pyro.sample("z", dist.Normal(loc, 1.0))

    x = torch.randn(5, 5)
    with pytest.raises(pv.InputError, match="name the data plate with plate="):
        pv.fit(model, guide, x, epochs=1)
    assert len(pv.fit(model, guide, x, epochs=1, plate="data").history) == 1


def test_iwae_over_discrete_draws_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(pyro.param("p", torch.ones(2)).softmax(-1)))

    objective = RenyiELBO(alpha=0, num_particles=2, vectorize_particles=True)
    with pytest.raises(pv.InputError, match="site 'k' of the guide cannot be reparameterized"):
        pv.fit(model, guide, torch.randn(10), epochs=1, objective=objective)
    assert pv.fit(model, guide, torch.randn(10), epochs=1).history[0]["elbo"] < 0


def test_closed_form_kl_over_latents_in_another_order_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(x + loc, 1.0))
            pyro.sample("a", dist.Normal(b / 2, 1.0))

    with pytest.raises(pv.InputError, match="TraceMeanField_ELBO needs the guide to draw its latents"):
        pv.fit(model, guide, torch.randn(10), epochs=1, objective=TraceMeanField_ELBO())
