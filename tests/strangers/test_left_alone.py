"""No measurement changes what it measures: a buffer, a parameter, a mode, the random state, Pyro's store, a setting."""

import sys
import types

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.kernels import in_kernels
from torch import nn

import pyrovae as pv

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))


def make():
    """A pair whose decoder is named, and whose encoder, with batch norm and dropout, lives in another module."""
    torch.manual_seed(0)
    elsewhere = types.ModuleType("elsewhere")
    elsewhere.nets = {"encoder": [nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))]}
    sys.modules["elsewhere"] = elsewhere
    decoder = nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 6))
    frozen = decoder[1].eval()  # by its owner: it is to stay so

    def model(x):
        pyro.module("decoder", decoder)
        scale = pyro.param("scale", lambda: torch.ones(6), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x):
        import elsewhere

        encoder = elsewhere.nets["encoder"][0]
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))

    return model, guide, [decoder, frozen, elsewhere.nets["encoder"][0]]


MEASUREMENTS = {
    "evaluate": lambda m, g: pv.evaluate(m, g, X, num_particles=20),
    "evaluate, compiled": lambda m, g: pv.evaluate(m, g, X, num_particles=20, compile=True),
    "evaluate, defensive": lambda m, g: pv.evaluate(m, g, X, num_particles=20, defensive=0.2),
    "evaluate, one by one": lambda m, g: pv.evaluate(m, g, X[:2], num_particles=2, vectorize=False),
    "convergence": lambda m, g: pv.convergence(m, g, X, num_particles=40),
    "annealed_evidence": lambda m, g: pv.annealed_evidence(m, g, X, num_temperatures=3, num_chains=2),
    "bidirectional": lambda m, g: pv.bidirectional(m, g, X, num_data=4, num_temperatures=3, num_chains=2),
    "gaps": lambda m, g: pv.gaps(m, g, X[:4], num_particles=10, num_steps=2, num_draws=2),
    "surgery": lambda m, g: pv.surgery(m, g, X),
    "calibrate": lambda m, g: pv.calibrate(m, g, X, num_simulations=40, num_draws=9, num_particles=50),
    "predictive_check": lambda m, g: pv.predictive_check(m, g, X, num_draws=10),
    "reference_posterior": lambda m, g: pv.reference_posterior(m, g, X[:1], num_draws=100),
    "posterior": lambda m, g: pv.posterior(m, g, X, num_draws=3),
    "reconstruct": lambda m, g: pv.reconstruct(m, g, X),
    "sample": lambda m, g: pv.sample(m, X, num_samples=3),
}
EAGER = [pytest.param(name, None, id=name) for name in MEASUREMENTS if "compiled" not in name]


def everything(modules):
    """All that a measurement could have changed: tensors by name, modes, random state, store, settings."""
    tensors = {f"{i}/{name}": value for i, m in enumerate(modules) for name, value in m.state_dict().items()}
    tensors |= {f"store/{name}": value for name, value in pyro.get_param_store().named_parameters()}
    tensors = {name: value.detach().clone() for name, value in tensors.items()}
    modes = [part.training for m in modules for part in m.modules()]
    gradients = [parameter.grad for m in modules for parameter in m.parameters()]
    settings = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.distributions.Distribution._validate_args)
    hooks = len(nn.modules.module._global_forward_pre_hooks)
    return {**tensors, "random state": torch.get_rng_state()}, (modes, gradients, settings, hooks)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "graphs"), in_kernels(of=["evaluate, compiled"]) + EAGER, indirect=["graphs"])
def test_nothing_is_changed(name, graphs):
    model, guide, modules = make()
    before = everything(modules)
    MEASUREMENTS[name](model, guide)
    after = everything(modules)
    assert before[0].keys() == after[0].keys()
    assert [key for key in before[0] if not torch.equal(before[0][key], after[0][key])] == []
    assert before[1] == after[1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hidden_network_is_measured_as_a_named_one():
    """Dropout is off and batch norm keeps its statistics, whether or not a program's source names the network."""
    model, hidden, (_, _, encoder) = make()

    def named(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))

    reports = [pv.evaluate(model, guide, X, num_particles=20) for guide in (hidden, named)]
    assert torch.equal(*(report.log_evidence for report in reports))
