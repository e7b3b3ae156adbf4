"""A fit of the guide alone leaves the model as it is, bit for bit, however its parameters are named and shared."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.kernels import in_kernels
from examples.small import assert_same_weights, make_data, make_vae, without_time
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.graphs.graph import compiler_missing
from pyrovae.training.optimizers import adam

COMPILE = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(compiler_missing(torch.device("cpu")) is not None, reason="no C++")),
]
MAKERS = {
    "torch": lambda: adam(1e-2),
    "decay": lambda: lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0.1),
    "pyro": lambda: pyro.optim.Adam({"lr": 1e-2}),
}


def copies(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


class Shared(nn.Module):
    """Both programs use an embedding; the decoder's batch norm keeps running statistics, and drops out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(16, 5)
        self.decoder = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 5))
        self.encoder = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4))

    def model(self, x):
        pyro.module("everything", self)
        scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            bias = self.embedding.weight.detach().sum(1)  # a value that no gradient reaches
            logits = self.decoder(z) @ self.embedding.weight + bias.sum()
            pyro.sample("x", dist.Normal(logits.unflatten(-1, (4, 4)), scale).to_event(2), obs=x)

    def guide(self, x):
        pyro.module("everything", self)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(self.embedding(x.flatten(1))).chunk(2, -1)
            width = pyro.param("width", torch.tensor(0.5), constraint=dist.constraints.positive)
            pyro.sample("z", dist.Normal(loc, width * raw.exp()).to_event(1))


@pytest.mark.usefixtures("graphs_as_traced")  # kernels are below, and of other objectives elsewhere
@pytest.mark.parametrize("compile", COMPILE)
@pytest.mark.parametrize("name", MAKERS)
def test_the_model_stays_bit_for_bit_and_the_guide_is_trained(name, compile):
    pair, x = Shared(), make_data(150)
    before = copies(pair)
    fitted = pv.fit(
        pair.model, pair.guide, x, only="guide", optimizer=MAKERS[name](), epochs=4, batch_size=40, compile=compile
    )
    moved = changed(pair, before)
    assert moved and all(name.startswith(("encoder", "embedding.bias")) for name in moved)
    assert {"encoder.0.running_mean", "encoder.1.weight", "embedding.bias"} <= moved
    store = fitted.guide.scope["params"]
    assert store["scale"].item() == torch.tensor(0.7).log().item()
    assert store["width"].item() != torch.tensor(0.5).log().item()
    assert fitted.settings["only"] == "guide" and fitted.settings["compile"] is compile
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in pair.parameters())
    assert all(part.training for part in pair.modules())


OBJECTIVES = {
    "Pyro's": pyro.infer.Trace_ELBO,
    "IWAE": lambda: pv.objectives.IWAE(3),
    "ForwardKL": pv.objectives.ForwardKL,
    "HalfAsleep": pv.objectives.HalfAsleep,
    "SelfConsistency": lambda: pv.objectives.SelfConsistency(3),
}


def refit(vae, objective=None, **settings):
    settings = {"optimizer": adam(1e-2), "epochs": 4, "batch_size": 40, "seed": 5, **settings}
    return pv.fit(vae.model, vae.guide, make_data(150), only="guide", objective=objective, **settings)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_the_encoder_alone(name):
    vae = make_vae()
    before = copies(vae)
    fitted = refit(vae, OBJECTIVES[name](), compile=False)
    assert changed(vae, before) == {name for name in before if name.startswith("encoder")}
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"]


@pytest.mark.skipif(compiler_missing(torch.device("cpu")) is not None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("name", "graphs"), in_kernels(of=["HalfAsleep", "SelfConsistency"]), indirect=["graphs"])
def test_the_compiled_step_is_the_eager_one_at_the_same_noise(name, graphs):
    eager, compiled = (refit(make_vae(), OBJECTIVES[name](), compile=choice) for choice in (False, True))
    assert compiled.settings["compile"]
    for row, other in zip(without_time(eager.history), without_time(compiled.history), strict=True):
        assert row == pytest.approx(other, rel=2e-4, abs=2e-4)


@pytest.mark.parametrize(("compile", "name"), [(False, "torch"), (False, "pyro"), (True, "torch")])
@pytest.mark.usefixtures("graphs_as_traced")
def test_it_goes_on_bit_for_bit(compile, name, tmp_path):
    if compile and compiler_missing(torch.device("cpu")):
        pytest.skip("needs a C++ compiler")

    def part(vae, **settings):
        return refit(vae, pv.objectives.HalfAsleep(), compile=compile, optimizer=MAKERS[name](), **settings)

    whole, stopped = make_vae(), make_vae()
    straight = part(whole)
    part(stopped, epochs=2, out=tmp_path)
    again = part(stopped, out=tmp_path, resume=True)
    assert_same_weights(whole, stopped)
    assert without_time(straight.history) == without_time(again.history)


def test_a_fit_of_the_guide_goes_on_as_one(tmp_path):
    vae, x = make_vae(), make_data()
    pv.fit(vae.model, vae.guide, x, only="guide", epochs=1, out=tmp_path)
    with pytest.raises(InputError, match="was fitted with only = guide, not None"):
        pv.fit(vae.model, vae.guide, x, epochs=2, out=tmp_path, resume=True)


def test_patience_stops_by_the_held_out_elbo_and_gives_its_best_weights():
    vae = make_vae()
    before = copies(vae)
    fitted = refit(vae, valid=make_data(40, seed=9), patience=3, epochs=40)
    valid = [row["valid_elbo"] for row in fitted.history]
    assert valid.index(max(valid)) + 1 == fitted.best_epoch == len(valid) - 3
    assert changed(vae, before) == {name for name in before if name.startswith("encoder")}


def test_the_logged_elbo_is_that_of_the_real_data():
    """An exact guide has one ELBO at every draw, whatever is optimized; its guide has a parameter of no effect."""
    oracle = pv.oracles.ppca(5, 2)
    x, _ = oracle.draw(60, seed=0)

    def guide(x):
        idle = pyro.param("idle", torch.zeros(()).double())
        with pyro.plate("data", len(x)):
            posterior = oracle.posterior(x)
            moved = dist.MultivariateNormal(posterior.loc + idle - idle.detach(), scale_tril=posterior.scale_tril)
            pyro.sample("z", moved)

    for objective in (pv.objectives.ForwardKL(), pv.objectives.HalfAsleep(), pv.objectives.SelfConsistency()):
        still = pyro.optim.SGD({"lr": 0.0})
        fitted = pv.fit(oracle.model, guide, x, only="guide", objective=objective, optimizer=still, epochs=1)
        assert fitted.history[0]["elbo"] == pytest.approx(oracle.log_evidence(x).mean().item(), rel=1e-9)
        assert fitted.history[0]["objective"] != pytest.approx(fitted.history[0]["elbo"], rel=1e-3)


def test_a_guide_without_parameters_of_its_own_is_refused():
    decoder = make_vae().decoder

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", decoder(z), obs=x)

    def guide(x):
        loc = decoder(torch.zeros(2)).base_dist.logits.mean()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.expand(2), 1.0).to_event(1))

    with pytest.raises(InputError, match=r"nothing is left to train, .* \(decoder\.network\.\S+, .*give the guide"):
        pv.fit(model, guide, make_data(), only="guide", epochs=1)


def test_a_model_that_draws_by_itself_is_refused():
    vae = make_vae()

    def model(x):
        pyro.module("vae", vae)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", vae.prior())
            blurred = torch.nn.functional.dropout(z, 0.5, training=vae.training)
            pyro.sample("x", vae.decoder(blurred), obs=x)

    with pytest.raises(InputError, match=r"log p\(x, z\) at one z changes from run to run"):
        pv.fit(model, vae.guide, make_data(), only="guide", epochs=1)


def test_a_parameter_that_comes_within_the_fit_is_refused():
    vae, calls = make_vae(), []

    def guide(x):
        calls.append(1)
        if len(x) == 70 and torch.is_grad_enabled():
            pyro.param("late", torch.ones(()))
        vae.guide(x)

    with pytest.raises(InputError, match="parameter late first came within the fit"):
        pv.fit(vae.model, guide, make_data(), only="guide", epochs=1)


REFUSED = {
    "another word": ({"only": "encoder"}, "only is 'guide', .* or None, .*; got 'encoder'"),
    "no only": ({"objective": pv.objectives.ForwardKL()}, "ForwardKL trains a guide .*: give only='guide'"),
    "no KL": (
        {"objective": pv.objectives.HalfAsleep(), "only": "guide", "kl_warmup": 2},
        "HalfAsleep has no KL to warm up",
    ),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_goes_not_together(settings, message):
    vae = make_vae()
    with pytest.raises(InputError, match=message):
        pv.fit(vae.model, vae.guide, make_data(), epochs=1, **settings)
