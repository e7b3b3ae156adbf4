"""Fitting: what it changes and what not, what it logs, and how it goes on."""

import math
import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import assert_same_weights, make_data, make_vae, without_time

import pyrovae as pv
from pyrovae.training.optimizers import adam


def by_hand(vae):
    """The two programs of a VAE written out, with the same networks and families."""

    def model(x):
        pyro.module("vae", vae)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
            pyro.sample("x", vae.decoder(z), obs=x)

    def guide(x):
        pyro.module("vae", vae)
        with pyro.plate("data", len(x)):
            pyro.sample("z", vae.encoder(x))

    return model, guide


# ------------------------------------------------------------------------------------------ what it is


def test_hand_written_pair_is_bit_equal_in_losses_weights_and_report():
    built_in, other = make_vae(), make_vae()
    x = make_data()
    a = pv.fit(built_in.model, built_in.guide, x, valid=x[:20], epochs=3, batch_size=32, seed=5)
    b = pv.fit(*by_hand(other), x, valid=x[:20], epochs=3, batch_size=32, seed=5)
    assert without_time(a.history) == without_time(b.history)
    assert_same_weights(built_in, other)
    reports = [pv.evaluate(f.model, f.guide, x, num_particles=50) for f in (a, b)]
    for name, column in reports[0].table().items():
        assert torch.equal(column, reports[1].table()[name]), name


def test_it_trains():
    vae, x = make_vae(), make_data(200)
    fitted = pv.fit(vae.model, vae.guide, x, epochs=30, batch_size=50, optimizer=adam(1e-2))
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"] + 0.5


def test_a_fit_inside_a_callback_disturbs_nothing():
    def alone(seed):
        vae = make_vae(seed)
        return vae, pv.fit(vae.model, vae.guide, make_data(seed=seed), epochs=3, batch_size=32, seed=seed)

    inner = []
    outer = make_vae(0)
    fitted = pv.fit(
        outer.model,
        outer.guide,
        make_data(seed=0),
        epochs=3,
        batch_size=32,
        seed=0,
        callback=lambda epoch, so_far: inner.append(alone(7)),
    )
    expected, expected_inner = alone(0), alone(7)
    assert_same_weights(outer, expected[0])
    assert without_time(fitted.history) == without_time(expected[1].history)
    for vae, fit_inside in inner:
        assert_same_weights(vae, expected_inner[0])
        assert without_time(fit_inside.history) == without_time(expected_inner[1].history)
    assert any(not torch.equal(a, b) for a, b in zip(outer.parameters(), make_vae(0).parameters(), strict=True))


def test_the_callback_can_evaluate_the_fit_so_far():
    seen = []

    def model(x):
        rate = pyro.param("rate", torch.tensor(5.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(rate, 1.0))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(x + pyro.param("a", torch.tensor(3.0)).exp(), 2.0))

    def look(epoch, so_far):
        seen.append(
            (pv.evaluate(so_far.model, so_far.guide, x).log_evidence.mean().item(), so_far.history[-1]["epoch"])
        )

    x = torch.poisson(torch.full((40,), 2.0), generator=torch.Generator().manual_seed(0))
    pv.fit(model, guide, x, epochs=3, callback=look, optimizer=adam(0.1))
    assert [epoch for _, epoch in seen] == [1, 2, 3] and len({value for value, _ in seen}) == 3


def test_nothing_else_is_left_changed():
    vae, x = make_vae(), make_data()
    vae.decoder.eval()
    pyro.param("mine", torch.tensor(1.0))
    before = torch.get_rng_state(), pyro.get_param_store().get_state()["params"]["mine"], torch.get_default_dtype()
    handler = signal.getsignal(signal.SIGINT)
    pv.fit(vae.model, vae.guide, x, epochs=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert pyro.get_param_store().get_state()["params"]["mine"] is before[1]
    assert vae.encoder.training and not vae.decoder.training
    assert pyro.settings.get("validate_distributions_pyro") and torch.distributions.Distribution._validate_args
    assert signal.getsignal(signal.SIGINT) is handler
    pyro.clear_param_store()


def test_a_second_fit_goes_on_from_the_first():
    vae, x = make_vae(), make_data()
    pv.fit(vae.model, vae.guide, x, epochs=2)
    middle = [p.clone() for p in vae.parameters()]
    again = pv.fit(vae.model, vae.guide, x, epochs=1, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.0))
    assert all(torch.equal(a, b) for a, b in zip(middle, vae.parameters(), strict=True))
    assert again.history[0]["elbo"] > -math.inf


def test_a_second_guide_for_one_fitted_model_is_trained_by_its_own_weights():
    """Both are known to Pyro by one name, under which the scope of the fit still holds the weights of the first."""
    vae, x = make_vae(), make_data()
    fitted, found = pv.fit(vae.model, vae.guide, x, epochs=1), []
    for seed in range(2):
        guide = pv.encoder_for(vae.model, x, family="diagonal", seed=seed)
        before = [p.clone() for p in guide.parameters()]
        found.append((pv.fit(fitted.model, guide, x, only="guide", epochs=2), guide))
        assert not any(torch.equal(a, b) for a, b in zip(before, guide.parameters(), strict=True))
    first, second = (
        pv.evaluate(fit.model, fit.guide, x[:5], num_particles=30, method="importance") for fit, _ in found
    )
    alone = [pv.evaluate(vae.model, guide, x[:5], num_particles=30, method="importance") for _, guide in found]
    assert torch.equal(first.elbo, alone[0].elbo) and torch.equal(second.elbo, alone[1].elbo)


def test_programs_with_bare_params_go_on_through_the_fit():
    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x + shift, 0.7))

    x = torch.randn(100, generator=torch.Generator().manual_seed(0)) + 3
    fitted = pv.fit(model, guide, x, epochs=20, optimizer=adam(0.1))
    first = fitted.model.scope["params"]["loc"].item()
    further = pv.fit(fitted.model, fitted.guide, x, epochs=20, optimizer=adam(0.1))
    assert 0 < first < further.model.scope["params"]["loc"].item()
    assert len(pyro.get_param_store()) == 0


def test_a_parameter_for_each_datum_is_fitted_to_its_own_row():
    x = 3 * torch.randn(50, 1, generator=torch.Generator().manual_seed(2))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(50, 1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.447).to_event(1))

    fitted = pv.fit(model, guide, x, epochs=300, batch_size=50, optimizer=pyro.optim.Adam({"lr": 0.05}), progress=False)
    loc = fitted.guide.scope["params"]["loc"].detach()
    assert (loc - 0.8 * x).abs().max() < 0.3  # the posterior means, 2 to 3 apart
    report = pv.evaluate(fitted.model, fitted.guide, x, batch_size=50, num_particles=3000, progress=False)
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(x[:, 0])
    assert (report.log_evidence - exact).abs().mean() < 0.02
    with pytest.raises(pv.InputError, match=r"'loc'\) for each of 50 rows, but was run on 20: .*batch_size=50"):
        pv.evaluate(fitted.model, fitted.guide, x, batch_size=20, progress=False)


def test_the_last_short_batch_counts():
    vae, x = make_vae(), make_data(70)
    fitted = pv.fit(vae.model, vae.guide, x, epochs=1, batch_size=32, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.0))
    report = pv.evaluate(vae.model, vae.guide, x, num_particles=2000)
    # one draw for each datum: 5 standard errors of it
    se = (report.mc_se_elbo.square().sum() * 2000).sqrt() / 70
    assert abs(fitted.history[0]["elbo"] - report.elbo.mean()) < 5 * se


@pytest.mark.parametrize(
    "optimizer",
    [None, pyro.optim.ClippedAdam({"lr": 1e-2}), lambda ps: torch.optim.SGD(ps, lr=1e-3, momentum=0.9)],
    ids=["default", "pyro", "torch"],
)
def test_any_optimizer(optimizer):
    vae, x = make_vae(), make_data()
    before = [p.clone() for p in vae.parameters()]
    pv.fit(vae.model, vae.guide, x, epochs=2, optimizer=optimizer)
    assert all(not torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))


# ---------------------------------------------------------------------------------------------- devices


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    vae = make_vae()
    with pytest.raises(pv.InputError, match="there is no CUDA device here"):
        pv.fit(vae.model, vae.guide, make_data(), epochs=1, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_fit_agrees_with_the_cpu():
    vae, x = make_vae(), make_data(200)
    fitted = pv.fit(vae.model, vae.guide, x, epochs=5, device="cuda")
    assert next(vae.parameters()).is_cuda and math.isfinite(fitted.history[-1]["elbo"])
    report = pv.evaluate(fitted.model, fitted.guide, x, num_particles=200)
    vae.cpu()
    other = pv.evaluate(vae.model, vae.guide, x, num_particles=200)
    se = (report.mc_se_log_evidence**2 + other.mc_se_log_evidence**2).sum().sqrt() / len(x)
    assert abs(report.log_evidence.mean() - other.log_evidence.mean()) < 4 * se


def test_lazy_modules_are_drawn_by_the_seed():
    x, found = torch.ones(20, 3), []
    for state in (1, 2):
        torch.manual_seed(state)
        net = torch.nn.LazyLinear(2)

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 3]).to_event(1), obs=x)

        def guide(x, net=net):
            loc, scale = net(x).unbind(-1)
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, scale.exp()))

        before = torch.get_rng_state()
        found.append(
            pv.fit(model, guide, x, epochs=1, batch_size=20, compile=False, progress=False).history[-1]["elbo"]
        )
        assert torch.equal(before, torch.get_rng_state())
    assert found[0] == found[1]
