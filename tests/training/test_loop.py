"""How a fit ends: by patience, by a loss that is not finite, by Ctrl-C."""

import math
import os
import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import assert_same_weights, make_data, make_vae, without_time
from torch import nn

import pyrovae as pv
from pyrovae.base import storage
from pyrovae.training.optimizers import adam


def test_patience_returns_the_best_weights():
    vae, x = make_vae(hidden=64), make_data(30)
    best = {}

    def keep(epoch, so_far):
        best[epoch] = {name: value.clone() for name, value in vae.state_dict().items()}

    fitted = pv.fit(
        vae.model,
        vae.guide,
        x,
        valid=make_data(200, seed=1),
        epochs=400,
        patience=5,
        optimizer=adam(3e-2),
        callback=keep,
    )
    values = [row["valid_elbo"] for row in fitted.history]
    assert len(values) < 400 and fitted.best_epoch == values.index(max(values)) + 1 == len(values) - 5
    assert all(torch.equal(value, best[fitted.best_epoch][name]) for name, value in vae.state_dict().items())


def test_a_loss_that_is_not_finite_names_site_and_epoch_and_keeps_the_weights(tmp_path):
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Linear(2, 2)
            self.steps = 0

        def model(self, x):
            pyro.module("fragile", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                self.steps += self.training and torch.is_grad_enabled()
                loc = self.loc(z) * (math.nan if self.steps > 4 else 1.0)
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

    pair, x = Fragile(), torch.zeros(64, 2)
    with pytest.raises(FloatingPointError, match=r"epoch 3, step 1: the log density of site 'x' is not finite"):
        pv.fit(pair.model, pair.guide, x, epochs=5, batch_size=32, out=tmp_path / "run")
    assert all(p.isfinite().all() for p in pair.parameters())
    assert storage.read(tmp_path / "run")[0]["progress"]["epoch"] <= 2


def test_ctrl_c_ends_between_two_steps_and_resume_goes_on(tmp_path):
    x = make_data(100)
    whole = make_vae()
    expected = pv.fit(whole.model, whole.guide, x, valid=x[:10], epochs=6, batch_size=10, seed=2)
    vae = make_vae()
    steps = []
    guide = vae.guide

    def pressing(rows):
        steps.append(len(rows))
        if len(steps) == 30:
            os.kill(os.getpid(), signal.SIGINT)
        guide(rows)

    first = pv.fit(vae.model, pressing, x, valid=x[:10], epochs=6, batch_size=10, seed=2, out=tmp_path / "run")
    assert first.interrupted and len(first.history) < 6
    resumed = make_vae(9)
    fitted = pv.fit(
        resumed.model,
        resumed.guide,
        x,
        valid=x[:10],
        epochs=6,
        batch_size=10,
        seed=2,
        out=tmp_path / "run",
        resume=True,
    )
    assert_same_weights(resumed, whole)
    assert without_time(fitted.history) == without_time(expected.history)


def test_a_failed_fit_leaves_modules_that_fit():
    vae, x = make_vae(), make_data()
    sick = []

    def failing(rows):
        if torch.is_grad_enabled():
            sick.append(True)
        with pyro.plate("data", len(rows)):
            z = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.decoder(z), obs=rows)
            if len(sick) > 2:
                pyro.factor("wall", vae.decoder(z).base_dist.logits.sum((-2, -1)) * math.nan)

    before = [p.clone() for p in vae.parameters()]
    with pytest.raises(FloatingPointError, match="site 'wall'"):
        pv.fit(failing, vae.guide, x, epochs=9, batch_size=32)
    assert all(p.grad is None for p in vae.parameters())
    pv.fit(vae.model, vae.guide, x, epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))
    assert all(p.isfinite().all() for p in vae.parameters())


def test_gradients_that_were_there_before_do_not_count():
    fresh, used = make_vae(), make_vae()
    for parameter in used.parameters():
        parameter.grad = torch.ones_like(parameter)
    for vae in (fresh, used):
        pv.fit(vae.model, vae.guide, make_data(), epochs=1, optimizer=lambda ps: torch.optim.SGD(ps, lr=1e-2))
    assert_same_weights(fresh, used)


def test_validation_data_train_nothing():
    def pair():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(-1, 3), 1.0).to_event(1), obs=x)

        def guide(x):
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

        return net, model, guide

    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    nets = []
    for valid in (None, x + 100):
        net, model, guide = pair()
        pv.fit(model, guide, x, valid=valid, epochs=2, batch_size=20)
        nets.append(net)
    assert_same_weights(*nets)
