"""The compiled step trains as the eager one does, and whatever no graph can hold is named or fitted eagerly."""

import contextlib
import dataclasses
import functools
import math
import os
import random
import signal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.kernels import in_kernels
from examples.many_latents import DTYPES, GROUPS, make_pair, make_points
from examples.small import assert_same_weights, make_data, make_vae, without_time
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.graphs.graph import Graph, compiler_missing
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.training import compiled as compiling
from pyrovae.training.loop import Loop
from pyrovae.training.optimizers import adam

pytestmark = pytest.mark.skipif(compiler_missing(torch.device("cpu")) is not None, reason="needs a C++ compiler")
as_traced = pytest.mark.usefixtures("graphs_as_traced")  # of what goes on around the kernels, whatever is in them


class ByHand(nn.Module):
    """Programs of a user's own: pyro.module and a constrained pyro.param, missing entries masked, batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))
        self.decoder = nn.Linear(2, 3)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            seen = dist.Normal(self.decoder(z), scale).mask(~x.isnan())
            pyro.sample("x", seen.to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(x.nan_to_num()).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def at_each_step(monkeypatch, act):
    """Lets ``act(take, batch)`` take every step, eager or compiled."""
    steps = Loop._steps
    monkeypatch.setattr(Loop, "_steps", lambda self, take, stop: steps(self, functools.partial(act, take), stop))


def real_data(num=150):
    x = torch.randn(num, 3, generator=torch.Generator().manual_seed(1))
    return torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.1, torch.nan, x)


def mixture_vae():
    return make_vae(prior=lambda latent: pv.priors.GaussianMixture(latent, num_components=3, seed=0))


# pair, data, and the arguments of the fit: a short last batch each, for it is taken untraced
CASES = {
    "VAE, warm-up, schedule": (
        make_vae,
        make_data(150),
        {"kl_warmup": 3, "schedule": lambda fraction: 1 - 0.8 * fraction},
    ),
    "mixture prior, IWAE": (mixture_vae, make_data(150), {"objective": pv.objectives.IWAE(4)}),
    **{
        name: (make_vae, make_data(150), {"objective": make()})
        for name, make in {
            "sticking the landing": pv.objectives.StickingTheLanding,
            "DReG": lambda: pv.objectives.DReG(4),
            "PIWAE": lambda: pv.objectives.PIWAE(2, 2),
            "VIMCO": lambda: pv.objectives.VIMCO(4),
            "wake-sleep": lambda: pv.objectives.ReweightedWakeSleep(4),
            "free bits": pv.objectives.FreeBits,
            "beta-TC": lambda: pv.objectives.BetaTC(4.0),
            "MMD": lambda: pv.objectives.MMD(10.0, beta=0.5),
        }.items()
    },
    "by hand, Pyro's Adam": (ByHand, real_data(), {"optimizer": pyro.optim.Adam({"lr": 1e-2})}),
    "AdamW, Trace_ELBO": (
        make_vae,
        make_data(150),
        {"objective": pyro.infer.Trace_ELBO(), "optimizer": lambda ps: torch.optim.AdamW(ps, lr=1e-2)},
    ),
}


def fit(pair, x, compile, **settings):
    settings = {"optimizer": adam(1e-2), "epochs": 4, "batch_size": 40, "seed": 5, **settings}
    return pv.fit(pair.model, pair.guide, x, compile=compile, **settings)


# The objective and the optimizer of our own; and what is brought along.
KERNELS = ("VAE, warm-up, schedule", "by hand, Pyro's Adam")


@pytest.mark.parametrize(("name", "graphs"), in_kernels(*KERNELS, of=CASES), indirect=["graphs"])
def test_equals_the_eager_step_to_rounding_at_the_same_noise(name, graphs):
    make, x, settings = CASES[name]
    pairs, histories = [make(), make()], []
    for pair, compile in zip(pairs, (False, True), strict=True):
        fitted = fit(pair, x, compile, **settings)
        assert fitted.settings["compile"] is compile
        histories.append(without_time(fitted.history))
    for eager, compiled in zip(*histories, strict=True):
        assert eager == pytest.approx(compiled, rel=2e-4, abs=2e-4)
    for (name, a), (_, b) in zip(pairs[0].state_dict().items(), pairs[1].state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-3, msg=name)
    assert histories[0][-1]["elbo"] > histories[0][0]["elbo"]


def test_a_compiled_fit_that_is_stopped_goes_on_bit_for_bit(tmp_path):
    def stop(epoch, so_far):
        if epoch == 2:
            raise KeyboardInterrupt

    straight, parted, x = make_vae(), make_vae(), make_data(150)
    expected = fit(straight, x, True, kl_warmup=3)
    with pytest.raises(KeyboardInterrupt):
        fit(parted, x, True, kl_warmup=3, out=tmp_path / "run", callback=stop)
    again = make_vae(seed=9)
    fitted = fit(again, x, "auto", kl_warmup=3, out=tmp_path / "run", resume=True)  # compiled, as it was begun
    assert fitted.settings["compile"] is True
    assert_same_weights(straight, again)
    assert without_time(fitted.history) == without_time(expected.history)


@as_traced
@pytest.mark.parametrize("compile", [False, True])
def test_ctrl_c_within_an_epoch_of_new_draws_goes_on_bit_for_bit(compile, tmp_path, monkeypatch):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((250, 4, 4)))
    x = pv.data.load(tmp_path / "rows.npy", binarization="dynamic").train
    straight, parted, taken = make_vae(), make_vae(), []
    fit(straight, x, compile)

    def interrupted(take, batch):
        take(batch)
        taken.append(batch)
        if len(taken) == 7:  # of 5 in an epoch
            os.kill(os.getpid(), signal.SIGINT)

    at_each_step(monkeypatch, interrupted)
    assert fit(parted, x, compile, out=tmp_path / "run").interrupted and len(taken) == 7
    monkeypatch.undo()
    again = make_vae(seed=9)
    fit(again, x, compile, out=tmp_path / "run", resume=True)
    assert_same_weights(straight, again)


# ------------------------------------------------------------------------------------ what no graph can hold


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Linear(2, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            width = 1.0 if z.sum() > 0 else 2.0
            pyro.sample("x", dist.Normal(z, width).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("branching", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc(x), 1.0).to_event(1))


class Fragile(Branching):
    """Its scale is the root of a number that the fit makes negative."""

    def model(self, x):
        pyro.module("fragile", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            scale = (1 - x.mean() * self.loc.bias.square().sum()).sqrt()
            pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)


def started_at_zero(pair):
    pair.loc.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    return pair


@as_traced
def test_control_flow_by_value_is_refused_by_its_line_or_fitted_eagerly(monkeypatch):
    x = torch.randn(80, 2)
    with pytest.raises(
        pv.InputError, match=r"cannot be compiled: test_compiled\.py, line \d+ \(width = .*compile=False"
    ):
        fit(Branching(), x, True)
    monkeypatch.setattr(compiling, "REPAID", 1)
    with pytest.warns(pv.NotCompiled, match=r"test_compiled\.py, line \d+ \(width = "):
        fitted = fit(Branching(), x, "auto")
    assert fitted.settings["compile"] is False and len(fitted.history) == 4


OTHERS = {
    "objective": ({"objective": pyro.infer.TraceGraph_ELBO()}, "TraceGraph_ELBO looks at values inside a step"),
    "optimizer": ({"optimizer": lambda ps: torch.optim.SGD(ps, lr=1e-3)}, "SGD is not among the updates"),
    "clipping": ({"optimizer": pyro.optim.ClippedAdam({"lr": 1e-3})}, "ClippedAdam is not among the updates"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_objective_or_an_optimizer_that_is_not_traced_says_so(name):
    settings, message = OTHERS[name]
    with pytest.raises(pv.InputError, match=message):
        fit(make_vae(), make_data(80), True, **settings)


class Plain(nn.Module):
    """A pair that a callback can change, and whose likelihood can be made to change by itself."""

    def __init__(self, disturbed=lambda pair, x: 1.0):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
        self.disturbed, self.calls, self.width = disturbed, 0, 1.0

    def model(self, x):
        pyro.module("plain", self)
        self.calls += 1
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            width = self.width * self.disturbed(self, x)
            pyro.sample("x", dist.Normal(self.decoder(z), width).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("plain", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def points(num=120):
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(4))


BY_THEMSELVES = {
    "a counter": (lambda pair, x: 1 + pair.calls / 2000, "changes? from run to run"),
    "a list": (
        lambda pair, x: 1 + abs(pair.decoder.weight.tolist()[0][0]),
        "looks|value of a tensor|not what was traced",
    ),
    "NumPy": (lambda pair, x: 1 + abs(float(pair.decoder.weight.detach().numpy().mean())), "not what was traced"),
    "Python's random numbers": (lambda pair, x: 1 + random.random() / 10, "changes? from run to run"),
}


@as_traced
@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_programs_that_change_by_themselves_are_refused(name):
    disturbed, message = BY_THEMSELVES[name]
    with pytest.raises(pv.InputError, match=message):
        fit(Plain(disturbed), points(), True)


def set_width(pair, optimizer):
    pair.width = 3.0


def freeze(pair, optimizer):
    pair.decoder.requires_grad_(False)


def clamp(pair, optimizer):
    pair.decoder.weight.data = pair.decoder.weight.data.clamp(-0.1, 0.1)


def stop_learning(pair, optimizer):
    optimizer[-1].param_groups[0]["lr"] = 0.0


BY_CALLBACK = {"an attribute": set_width, "frozen": freeze, "replaced": clamp, "rate": stop_learning}


@as_traced
@pytest.mark.parametrize("name", BY_CALLBACK)
def test_what_a_callback_changes_is_noticed_and_fitted_eagerly(name, monkeypatch):
    monkeypatch.setattr(compiling, "REPAID", 1)
    pairs, optimizers = [Plain(), Plain()], []

    def optimizer(parameters):
        optimizers.append(torch.optim.Adam(parameters, lr=1e-2))
        return optimizers[-1]

    for pair, compile in zip(pairs, (False, "auto"), strict=True):
        change = lambda epoch, so_far, pair=pair: epoch == 1 and BY_CALLBACK[name](pair, optimizers)  # noqa: E731
        expectation = pytest.warns(pv.NotCompiled) if compile else contextlib.nullcontext()
        with expectation:
            fitted = fit(pair, points(), compile, callback=change, optimizer=optimizer, epochs=6)
        assert fitted.settings["compile"] is False
    for a, b in zip(pairs[0].parameters(), pairs[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@as_traced
@pytest.mark.parametrize("compile", ["auto", True])
def test_a_change_after_the_last_look_is_seen_at_the_end(compile, monkeypatch):
    monkeypatch.setattr(compiling, "REPAID", 1)
    pair = Plain()

    def change(epoch, so_far):
        if epoch == 5:  # the looks before epochs are over by then
            pair.width = 3.0

    keywords = {"callback": change, "epochs": 8}
    taken = r"not what was traced: .*; up to 18 steps before this was seen were taken as traced"  # since epoch 3
    if compile is True:
        with pytest.raises(InputError, match=taken):
            fit(pair, points(), compile, **keywords)
    else:
        with pytest.warns(pv.NotCompiled, match=taken):
            assert fit(pair, points(), compile, **keywords).settings["compile"] is False


@as_traced
@pytest.mark.parametrize("change", [lambda pair: pair.eval(), lambda pair: pair.requires_grad_(False)])
def test_what_the_last_callback_changes_is_no_change_of_what_was_trained(change):
    pair = Plain()
    pair.encoder = nn.Sequential(pair.encoder, nn.Dropout(0.5))
    ended = lambda epoch, so_far: epoch == 5 and change(pair)  # noqa: E731
    assert fit(pair, points(), True, callback=ended, epochs=5).settings["compile"] is True


@as_traced
def test_a_parameter_that_exists_in_training_alone_is_trained():
    class Late(Plain):
        def model(self, x):
            if self.training:
                self.width = pyro.param("late", torch.tensor(2.0), constraint=dist.constraints.positive)
            super().model(x)

    fits = [fit(Late(), points(), compile) for compile in (False, True)]
    late = [fitted.model.scope["params"]["late"].detach() for fitted in fits]
    assert abs(float(late[0]) - math.log(2.0)) > 1e-2
    torch.testing.assert_close(*late, rtol=1e-4, atol=1e-5)


@as_traced
def test_an_inner_fit_may_share_the_objective_which_is_left_as_it_was():
    objective, x = pv.objectives.SampledELBO(), points(90)

    def inner(epoch, so_far):
        if epoch == 2:
            fit(Plain(), x, False, objective=objective, epochs=1)

    fitted = fit(Plain(), x, True, objective=objective, epochs=4, callback=inner)
    assert len(fitted.history) == 4
    assert "bound" not in vars(objective)


@as_traced
def test_ctrl_c_at_the_compiler_leaves_the_choice_and_stops(monkeypatch, tmp_path):
    def broken(self, *inputs):
        os.kill(os.getpid(), signal.SIGINT)  # as a terminal sends it, to the compiler too
        raise Untraceable("the compiler failed: killed")

    monkeypatch.setattr(Graph, "compiled", broken)
    fitted = fit(Plain(), points(), True, out=tmp_path / "run")
    assert fitted.interrupted and not fitted.history and fitted.settings["compile"] is True
    monkeypatch.undo()
    assert fit(Plain(), points(), "auto", out=tmp_path / "run", resume=True).settings["compile"] is True
    again = fit(Plain(), points(), False, out=tmp_path / "run", resume=True, epochs=6)  # as one who has no compiler
    assert len(again.history) == 6


@as_traced
def test_a_gradient_that_is_not_finite_is_named():
    class Infinite(Plain):
        def model(self, x):
            pyro.module("infinite", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                loc = self.decoder(z) + (self.decoder.bias - self.decoder.bias.detach()).abs().sqrt()
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    for compile in (False, True):
        with pytest.raises(FloatingPointError, match=r"gradient of .*decoder\.bias.* is not finite"):
            fit(Infinite(), points(), compile)


def test_a_loss_that_is_not_finite_names_site_and_step_and_keeps_the_weights(tmp_path):
    x = torch.zeros(80, 2)
    x[37] = 1e6  # makes the root's argument negative once the bias has moved from zero
    messages, kept = [], []
    for compile in (False, True):
        pair = started_at_zero(Fragile())
        with pytest.raises(FloatingPointError, match=r"epoch 1, step \d: the log density of site 'x'") as raised:
            fit(pair, x, compile, batch_size=10, seed=0, out=tmp_path / str(compile))
        messages.append(str(raised.value))
        kept.append(pair)
    assert messages[0] == messages[1]
    for a, b in zip(kept[0].parameters(), kept[1].parameters(), strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class Switch(nn.Module):
    """Its discrete latent cannot even be drawn once a parameter is not finite, which the second epoch makes it."""

    def __init__(self):
        super().__init__()
        self.logits, self.loc = nn.Linear(2, 3), nn.Parameter(torch.zeros(3, 2))
        with torch.no_grad():
            self.logits.weight.zero_()
            self.logits.bias.zero_()

    def model(self, x):
        pyro.module("switch", self)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            scale = (1 - x.mean() * self.logits.bias.square().sum()).sqrt()
            pyro.sample("x", dist.Normal(self.loc[k], scale[None]).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("switch", self)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(self.logits(x).softmax(-1)))


@as_traced
@pytest.mark.parametrize("rows", [40, 1500])  # the latter: more steps than go by before a look
def test_programs_that_fail_once_weights_are_not_finite_are_stopped_before_that(rows):
    x, messages = torch.zeros(rows, 2), []
    x[rows // 2] = 1e7
    for compile in (False, True):
        pair = Switch()
        with pytest.raises(FloatingPointError, match=r"epoch \d, step \d+: the log density of site 'x'") as raised:
            fit(pair, x, compile, batch_size=10)
        messages.append(str(raised.value))
        assert all(parameter.isfinite().all() for parameter in pair.parameters())
    assert messages[0] == messages[1]


@as_traced
def test_ctrl_c_after_an_epoch_went_astray_still_names_the_step(monkeypatch):
    x, taken = torch.zeros(80, 2), []
    x[37] = 1e6

    def interrupted(take, batch):
        take(batch)
        taken.append(batch)
        if len(taken) == 8:
            os.kill(os.getpid(), signal.SIGINT)

    at_each_step(monkeypatch, interrupted)
    with pytest.raises(FloatingPointError, match="the log density of site 'x'"):
        fit(started_at_zero(Fragile()), x, True, batch_size=10, seed=0)


@as_traced
def test_an_epoch_that_failed_is_taken_again_eagerly_and_the_next_one_compiled(monkeypatch):
    eager, compiled, taken = Plain(), Plain(), []
    expected = fit(eager, points(), False)

    def failing_once(take, batch):
        taken.append(type(take.__self__).__name__)
        if len(taken) == 5:  # the second of three steps in the second epoch
            raise RuntimeError("a passing failure")
        take(batch)

    at_each_step(monkeypatch, failing_once)
    fitted = fit(compiled, points(), True)
    assert taken == ["Replay"] * 5 + ["Step"] * 3 + ["Replay"] * 6
    assert fitted.settings["compile"] is True
    for a, b in zip(without_time(expected.history), without_time(fitted.history), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@as_traced
def test_bad_input_within_an_epoch_ends_it_at_once(monkeypatch):
    taken = []

    def cut_short(take, batch):
        taken.append(batch)
        if len(taken) == 3:
            raise InputError("rows.npy: cut short")
        take(batch)

    at_each_step(monkeypatch, cut_short)
    with pytest.raises(InputError, match=r"rows\.npy"):
        fit(Plain(), points(), True, batch_size=10)
    assert len(taken) == 3


class Constants(Plain):
    """Tensors that no graph may write to, and a parameter of no elements."""

    def __init__(self):
        super().__init__()
        self.offset, self.empty = torch.ones(1).expand(2), nn.Parameter(torch.zeros(2, 0))

    def model(self, x):
        pyro.module("constants", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = self.decoder(z) + self.offset + self.empty.sum(-1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


@as_traced
def test_expanded_constants_empty_parameters_and_data_in_columns_are_fitted_alike():
    last = []
    for compile, x in ((False, points()), (True, points().t().contiguous().t())):
        last.append(fit(Constants(), x, compile).history[-1]["elbo"])
    assert last[0] == pytest.approx(last[1], rel=1e-5)


@as_traced
def test_auto_compiles_where_it_is_repaid(monkeypatch):
    x, chosen = make_data(80), []
    for steps in (7, 9):  # the fit takes 8
        monkeypatch.setattr(compiling, "REPAID", steps)
        chosen.append(fit(make_vae(), x, "auto").settings["compile"])
    assert chosen == [True, False]
    monkeypatch.setattr(compiling, "REPAID", 20)
    monkeypatch.setattr(compiling, "AGAIN", 2)
    device = torch.device("cpu")
    assert [compiling.is_compiled("auto", 8, device, None, fits) for fits in (2, 3, 4)] == [False, True, True]
    with pytest.raises(pv.InputError, match="compile is True, False or"):
        fit(make_vae(), x, "always")
    assert math.isfinite(fit(make_vae(), x, True).history[-1]["elbo"])


# ---------------------------------------------------------------------------------------------------- CUDA

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@needs_cuda
def test_on_cuda_a_captured_fit_learns_what_the_eager_one_learns():
    x, last = make_data(600), []
    for compile in (False, True):
        vae = make_vae()
        fitted = fit(vae, x, compile, epochs=40, batch_size=50, device="cuda", kl_warmup=5)
        assert fitted.settings["compile"] is compile
        last.append(pv.evaluate(fitted.model, fitted.guide, x, num_particles=500).elbo.mean())
        vae.to("cpu")
    assert abs(last[0] - last[1]) < 0.1


@needs_cuda
def test_on_cuda_a_loss_that_is_not_finite_names_site_and_step_at_the_end_of_the_epoch():
    x = torch.zeros(80, 2)
    x[37] = 1e6
    pair = Fragile()
    with pytest.raises(FloatingPointError, match=r"epoch 1, step \d: the log density of site 'x'"):
        fit(pair, x, True, batch_size=10, device="cuda")
    assert all(parameter.isfinite().all() for parameter in pair.parameters())


@needs_cuda
def test_on_cuda_a_captured_fit_waits_for_the_device_nowhere_inside_an_epoch():
    x, calls = make_data(600), []

    def strict(epoch, so_far):
        torch.cuda.set_sync_debug_mode("default")
        calls.append(epoch)

    vae = make_vae()

    def watched(take, batch):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return take(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with pytest.MonkeyPatch.context() as patch:
        at_each_step(patch, watched)
        fit(vae, x, True, batch_size=50, device="cuda", callback=strict)
    assert calls == [1, 2, 3, 4]


# ------------------------------------------------------------------------------------------- families of latents


# The kernels of the other groups are those of evaluations.
@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.NoisyGradients")
@pytest.mark.parametrize(("group", "graphs"), in_kernels(of=GROUPS), indirect=["graphs"])
def test_latents_of_all_families_are_fitted_alike(group, graphs):
    """As guides and as priors; at the same noise, to rounding."""
    last, dtype = [], DTYPES.get(group, torch.float32)
    for compile in (False, True):
        fitted = fit(make_pair(GROUPS[group], dtype), make_points(dtype), compile)
        assert fitted.settings["compile"] is compile
        last.append(fitted.history[-1]["elbo"])
    assert last[0] == pytest.approx(last[1], rel=1e-4 if dtype == torch.float32 else 1e-7)


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.NoisyGradients")
def test_draws_by_rejection_are_refused_by_their_line(monkeypatch):
    message = r"site 'angle' \(VonMises\), many_latents.py, line \d+ .*: the value of a tensor decides"
    pair, x = make_pair(["angle"]), make_points()
    with pytest.raises(pv.InputError, match=message):
        pv.fit(*pair, x, epochs=1, compile=True)
    monkeypatch.setattr(compiling, "REPAID", 0)
    monkeypatch.setattr(compiling, "compiler_missing", lambda device: None)
    with pytest.warns(pv.base.errors.NotCompiled, match=message) as told:
        assert pv.fit(*pair, x, epochs=1, compile="auto").settings["compile"] is False
    assert sum(issubclass(warning.category, pv.NotCompiled) for warning in told) == 1


def test_kernels_that_fail_are_a_reason(monkeypatch):
    """Whatever they raise; what they draw by is named."""

    def fails(graph, *inputs):
        def run(*inputs):
            raise AttributeError("no generator")

        return dataclasses.replace(graph, module=run)

    monkeypatch.setattr(Graph, "compiled", fails)
    pair, x = make_pair(["gamma"]), make_points()
    with pytest.raises(pv.InputError, match=r"fail \(AttributeError: .*they draw by _standard_gamma"):
        pv.fit(*pair, x, epochs=1, compile=True)
    monkeypatch.setattr(compiling, "REPAID", 0)
    with pytest.warns(pv.base.errors.NotCompiled, match="_standard_gamma"):
        pv.fit(*pair, x, epochs=1, compile="auto")
