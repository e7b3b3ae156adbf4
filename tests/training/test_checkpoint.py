"""A fit goes on as if it had never stopped, whatever stopped it."""

import multiprocessing
import time

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import assert_same_weights, make_data, make_vae, without_time
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.base import storage
from pyrovae.training import loop
from pyrovae.training.checkpoint import Progress, history_csv, read_history, restore, save
from pyrovae.training.optimizers import Joint, adam


def test_a_history_reads_back_exactly():
    history = [
        {"epoch": 1, "elbo": -1 / 3, "valid_elbo": float("-inf")},
        {"epoch": 2, "elbo": 1e-300, "valid_elbo": 0.1},
    ]
    assert read_history(history_csv(history)) == history
    assert read_history(history_csv([])) == []


def dynamic_digits():
    return pv.data.load("digits", binarization="dynamic")


def fit_digits(folder, epochs, *, resume=False, seed=0, callback=None):
    digits = dynamic_digits()
    vae = pv.VAE(
        prior=pv.priors.GaussianMixture(3, num_components=4, seed=seed),
        decoder=pv.Conditional(pv.families.bernoulli(), digits.shape, pv.networks.mlp(3, 30, seed=seed)),
        encoder=pv.Conditional(pv.families.normal(), 3, pv.networks.mlp(digits.shape, 30, seed=seed + 1)),
    )
    fitted = pv.fit(
        vae.model,
        vae.guide,
        digits.train,
        valid=digits.valid,
        epochs=epochs,
        batch_size=200,
        patience=50,
        kl_warmup=2,
        seed=3,
        schedule=lambda fraction: 1 - 0.5 * fraction,
        out=folder,
        resume=resume,
        callback=callback,
    )
    return vae, fitted


EPOCHS = 6


def fit_that_is_killed(folder, epochs_begun):
    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0.0  # so that many moments fall into a write

    def tell(epoch, so_far):
        epochs_begun.value = epoch

    fit_digits(folder, EPOCHS, callback=tell)


def test_killed_at_20_random_moments_the_run_reads_and_resumes_bit_identically(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    straight, expected = fit_digits(None, EPOCHS)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pyrovae.training.fit", "pyrovae.apps.recipes", "sklearn.datasets", "torch._dynamo", "pytest", __name__]
    )
    epochs_done = []
    for number, share in enumerate(torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()):
        folder, epochs_begun = tmp_path / str(number), context.Value("i", 0)
        process = context.Process(target=fit_that_is_killed, args=(folder, epochs_begun))
        process.start()
        whole, rest = divmod(share * EPOCHS, 1)
        while process.is_alive() and (epochs_begun.value < whole or not storage.holds_run(folder)):
            time.sleep(0.001)
        time.sleep(0.03 * rest)  # about an epoch
        process.kill()
        process.join()
        content, _ = storage.read(folder)  # readable, whatever the moment
        epochs_done.append(content["progress"]["epoch"])
        resumed, fitted = fit_digits(folder, EPOCHS, resume=True, seed=9)
        assert_same_weights(resumed, straight)
        assert without_time(fitted.history) == without_time(expected.history)
    torch.set_num_threads(threads)
    assert len(set(epochs_done)) > 3 and min(epochs_done) < EPOCHS


def test_resume_refuses_other_settings_and_other_programs(tmp_path):
    fit_digits(tmp_path / "run", 1)
    digits = dynamic_digits()
    vae = make_vae()
    same = {"epochs": 2, "out": tmp_path / "run", "resume": True, "patience": 50, "kl_warmup": 2, "batch_size": 200}
    with pytest.raises(pv.InputError, match="was fitted with seed = 3, not 4"):
        pv.fit(*fit_programs(digits), digits.train, valid=digits.valid, seed=4, **same)
    with pytest.raises(pv.InputError, match="was fitted with num_rows = 1197, not 500"):
        pv.fit(*fit_programs(digits), digits.train[:500], valid=digits.valid, seed=3, **same)
    with pytest.raises(pv.InputError, match="does not fit these programs"):
        pv.fit(*fit_programs(digits, width=20), digits.train, valid=digits.valid, seed=3, **same)
    with pytest.raises(pv.InputError, match="already holds a run"):
        pv.fit(vae.model, vae.guide, make_data(), epochs=1, out=tmp_path / "run")


def fit_programs(digits, width=30):
    vae = pv.VAE(
        prior=pv.priors.GaussianMixture(3, num_components=4, seed=0),
        decoder=pv.Conditional(pv.families.bernoulli(), digits.shape, pv.networks.mlp(3, width)),
        encoder=pv.Conditional(pv.families.normal(), 3, pv.networks.mlp(digits.shape, width)),
    )
    return vae.model, vae.guide


@pytest.mark.parametrize(
    "optimizer", [lambda: pyro.optim.Adam({"lr": 1e-2}), lambda: adam(1e-2)], ids=["pyro", "torch"]
)
def test_resume_with_bare_params_and_buffers(tmp_path, optimizer):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))

        def model(self, x):
            scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(-1, 3), scale).to_event(1), obs=x)

        def guide(self, x):
            pyro.module("normed", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))

    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

    def run(epochs, **keywords):
        pair = Normed()
        return pair, pv.fit(pair.model, pair.guide, x, epochs=epochs, batch_size=20, optimizer=optimizer(), **keywords)

    straight, expected = run(4)
    run(2, out=tmp_path / "run")
    resumed, fitted = run(4, out=tmp_path / "run", resume=True)
    assert_same_weights(straight, resumed)
    assert torch.equal(fitted.model.scope["params"]["scale"], expected.model.scope["params"]["scale"])
    loaded = Normed()
    back = pv.runs.load(tmp_path / "run", loaded.model, loaded.guide)
    assert_same_weights(straight, loaded)
    reports = [pv.evaluate(f.model, f.guide, x, num_particles=20) for f in (expected, back)]
    assert torch.equal(reports[0].log_evidence, reports[1].log_evidence)


OBJECTIVES = {
    "Trace_ELBO": Trace_ELBO,
    "3 particles": lambda: Trace_ELBO(num_particles=3),
    "vectorized": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True),
    "IWAE": lambda: RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True),
    "enumerating": lambda: TraceEnum_ELBO(strict_enumeration_warning=False),
}
OPTIMIZERS = {"torch": lambda: adam(1e-2), "pyro": lambda: pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.9})}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_is_exact_for_every_objective_and_optimizer(tmp_path, objective, optimizer):
    x = make_data(70)

    def run(epochs, **keywords):
        vae = make_vae()
        return vae, pv.fit(
            vae.model,
            vae.guide,
            x,
            epochs=epochs,
            batch_size=32,
            objective=OBJECTIVES[objective](),
            optimizer=OPTIMIZERS[optimizer](),
            schedule=lambda fraction: 0.3,
            **keywords,
        )

    straight, expected = run(4)
    folder = {"out": tmp_path / "run"}
    run(2, **folder)
    run(2, resume=True, **folder)  # nothing to do, and nothing lost
    resumed, fitted = run(4, resume=True, **folder)
    assert_same_weights(straight, resumed)
    assert without_time(expected.history) == without_time(fitted.history)


def test_another_number_of_particles_is_refused(tmp_path):
    vae, x = make_vae(), make_data(20)
    pv.fit(vae.model, vae.guide, x, epochs=1, out=tmp_path / "run")
    with pytest.raises(pv.InputError, match="was fitted with objective"):
        objective = Trace_ELBO(num_particles=7)
        pv.fit(vae.model, vae.guide, x, epochs=2, objective=objective, out=tmp_path / "run", resume=True)


def test_a_pair_with_parameters_of_each_datum_is_loaded(tmp_path):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(len(x)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.7))

    x = torch.randn(60, generator=torch.Generator().manual_seed(0))
    fitted = pv.fit(model, guide, x, epochs=5, batch_size=60, optimizer=adam(0.1), out=tmp_path / "run")
    back = pv.runs.load(tmp_path / "run", model, guide)
    assert torch.equal(back.guide.scope["params"]["loc"], fitted.guide.scope["params"]["loc"])


def test_noise_is_kept_of_the_device_that_trains(tmp_path, monkeypatch):
    """And goes on where the run is resumed, another device or the same."""
    noise = {device: torch.full((16,), number, dtype=torch.uint8) for number, device in enumerate(["cuda:0", "cuda:1"])}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda:0": noise[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device="cuda:0": noise.update({device: state}))
    with pyro.get_param_store().scope(), storage.locked(tmp_path):
        save(tmp_path, Progress(), {"device": "cuda:1"}, {}, [], Joint(adam()))
        for device in ("cuda:1", "cuda:0"):
            noise[device] = torch.zeros(16, dtype=torch.uint8)
            restore(tmp_path, {"device": device}, [], Joint(adam()), [])
            assert (noise[device] == 1).all()


OTHERS = {
    "SGD": (lambda ps: torch.optim.SGD(ps, lr=1e-3), "the state kept there is of another optimizer than SGD"),
    "Adagrad": (lambda ps: torch.optim.Adagrad(ps, lr=1e-3), "another optimizer than Adagrad"),
    "NAdam": (lambda ps: torch.optim.NAdam(ps, lr=1e-3), "another optimizer than NAdam"),
    "other betas": (lambda ps: torch.optim.Adam(ps, lr=1e-3, betas=(0.8, 0.9)), r"fitted with betas = .*0\.9, 0\.999"),
    "AdamW": (lambda ps: torch.optim.AdamW(ps, lr=1e-3), "another optimizer than AdamW: .* fitted with, Adam$"),
    "Pyro's": (pyro.optim.Adam({"lr": 1e-3}), "was fitted with a function parameters -> optimizer"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_refused_on_resume(name, tmp_path):
    optimizer, message = OTHERS[name]
    vae, x = make_vae(), make_data(40)
    pv.fit(vae.model, vae.guide, x, epochs=1, out=tmp_path / "run")
    with pytest.raises(pv.InputError, match=message):
        pv.fit(vae.model, vae.guide, x, epochs=2, out=tmp_path / "run", resume=True, optimizer=optimizer)


def test_pyros_optimizer_is_not_resumed_by_another_kind(tmp_path):
    vae, x = make_vae(), make_data(40)
    first = pyro.optim.Adam({"lr": 1e-3})
    pv.fit(vae.model, vae.guide, x, epochs=1, out=tmp_path / "run", optimizer=first)
    for other, message in ((pyro.optim.Adagrad({"lr": 1e-3}), "another optimizer than Adagrad"), (None, "a PyroOptim")):
        with pytest.raises(pv.InputError, match=message):
            pv.fit(vae.model, vae.guide, x, epochs=2, out=tmp_path / "run", resume=True, optimizer=other)
