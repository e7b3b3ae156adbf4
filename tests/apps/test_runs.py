"""A run brought back is the fit it was."""

import json
import types
import warnings
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.apps import cli, runs
from pyrovae.base import storage
from pyrovae.base.random import preserve_rng_state


def make(latent=2, seed=0):
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        decoder=pv.Conditional(pv.families.binomial(16), (8, 8), pv.networks.mlp(latent, 10, seed=seed)),
        encoder=pv.Conditional(pv.families.normal(), latent, pv.networks.mlp((8, 8), 10, seed=seed + 1)),
    )


@pytest.fixture(scope="module")
def digits():
    return pv.data.load("digits")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, digits):
    folder, vae = tmp_path_factory.mktemp("runs") / "run", make()
    fit = pv.fit(vae.model, vae.guide, digits.train, valid=digits.valid, epochs=3, out=folder, record={"note": "mine"})
    return folder, fit


def test_load_gives_the_same_numbers(fitted, digits):
    folder, fit = fitted
    vae = make(seed=5)
    back = runs.load(folder, vae.model, vae.guide)
    assert back.history == fit.history and back.settings == fit.settings
    reports = [pv.evaluate(f.model, f.guide, digits.test[:40], num_particles=20) for f in (fit, back)]
    assert torch.equal(reports[0].log_evidence, reports[1].log_evidence)


def test_describe_tells_how_it_was_made(fitted):
    content = runs.describe(fitted[0])
    assert content["record"] == {"note": "mine"} and content["settings"]["batch_size"] == 128
    assert {"python", "torch", "pyro-ppl", "pyrovae"} == set(content["versions"])
    assert content["settings"]["protocol"]["dataset"] == "digits"


def test_a_report_is_kept_with_its_table(fitted, digits):
    folder, fit = fitted
    with pytest.raises(pv.InputError, match="was not evaluated yet"):
        runs.load_report(folder)
    report = pv.evaluate(fit.model, fit.guide, digits.test[:40], num_particles=30)
    runs.save_report(folder, report)
    back = runs.load_report(folder)
    for name, column in report.table().items():
        assert torch.allclose(column, back.table()[name], rtol=0, atol=0, equal_nan=True), name
    assert back.protocol == report.protocol and back.to_dict() == report.to_dict()


def test_a_report_kept_before_records_said_what_they_are(fitted, digits):
    folder, fit = fitted
    report = pv.evaluate(fit.model, fit.guide, digits.test[:20], num_particles=30, method="importance")
    report = replace(report, digits=None)  # which was not looked at then
    older = report.to_dict() | {"way": report.strategy}
    del older["strategy"]
    storage.update(folder, {"report.json": json.dumps(older).encode(), "report.csv": report.to_csv().encode()})
    back = runs.reports(folder)["report"]
    assert back.to_dict() == report.to_dict() and back.to_csv() == report.to_csv()


def test_other_programs_are_refused(fitted):
    vae = make(latent=3)
    with pytest.raises(pv.InputError, match="does not fit these programs"):
        runs.load(fitted[0], vae.model, vae.guide)


def test_nothing_altered_is_loaded(fitted, tmp_path):
    content, files = storage.read(fitted[0])
    storage.write(tmp_path / "copy", content, files)
    for path in sorted((tmp_path / "copy").iterdir()):
        whole = bytearray(path.read_bytes())
        for place in (0, len(whole) // 2, len(whole) - 1):
            altered = whole.copy()
            altered[place] ^= 4
            path.write_bytes(altered)
            vae = make()
            with pytest.raises(pv.InputError, match="copy"):
                runs.load(tmp_path / "copy", vae.model, vae.guide)
        path.write_bytes(whole)
    vae = make()
    runs.load(tmp_path / "copy", vae.model, vae.guide)


class TestOneLine:
    """A run of the command line needs nothing but its folder."""

    def test_it_is_the_fit_of_the_programs_built_by_hand(self, run, digits):
        back = pv.runs.load(run)
        encoder, decoder = pv.networks.mlp((8, 8), 16), pv.networks.mlp(2, 16)
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(2),
            decoder=pv.Conditional(pv.families.binomial(16), (8, 8), decoder),
            encoder=pv.Conditional(pv.families.normal(), 2, encoder),
        )
        by_hand = runs.load(run, vae.model, vae.guide)
        assert back.history == by_hand.history and len(back.history) == 2
        reports = [pv.evaluate(f.model, f.guide, digits.test[:40], num_particles=20) for f in (back, by_hand)]
        assert torch.equal(reports[0].log_evidence, reports[1].log_evidence)

    def test_its_data_are_those_it_was_fitted_on(self, run):
        data = pv.runs.dataset(run)
        assert data.train.protocol.to_dict() == runs.describe(run)["settings"]["protocol"]
        assert len(data.test) == 300

    def test_other_rows_are_refused(self, run, tmp_path):
        copy = rewritten(run, tmp_path, lambda content: content["settings"]["protocol"].update(sha256="0" * 64))
        for bring in (runs.load, runs.dataset):
            with pytest.raises(pv.InputError, match=r"fitted on other rows of digits \(SHA-256 00000000, now"):
                bring(copy)

    def test_a_run_from_python_says_what_to_do(self, fitted):
        for bring in (runs.load, runs.dataset):
            with pytest.raises(
                pv.InputError, match=r"was fitted in Python; use pyrovae.runs.load\(folder, model, guide"
            ):
                bring(fitted[0])
        with pytest.raises(pv.InputError, match="give both programs, model and guide, or neither"):
            runs.load(fitted[0], make().model)

    def test_a_run_of_a_file_says_what_to_do(self, run, tmp_path):
        copy = rewritten(
            run, tmp_path, lambda content: content["record"].update(program={"path": "mine.py", "sha256": "0" * 64})
        )
        with pytest.raises(pv.InputError, match="is a run of your own programs; give --program mine"):
            runs.load(copy)

    def test_what_a_run_of_long_ago_lacks_is_filled(self, run, tmp_path):
        """The first records had no guide, objective or precision; the format of the folder is still the first."""

        def old(content):
            for name in ("guide", "objective", "precision"):
                del content["record"][name]
            del content["settings"]["precision"], content["settings"]["compile"]

        copy = rewritten(run, tmp_path, old)
        assert storage.FORMAT == 1
        back, now = runs.load(copy), runs.load(run)
        for (name, value), (_, other) in zip(weights(back).items(), weights(now).items(), strict=True):
            assert torch.equal(value, other), name
        assert cli.main(["evaluate", str(copy), "--particles", "20", "--num", "10"]) == 0
        assert cli.main(["fit", "--resume", "--epochs", "3", "--out", str(copy)]) == 0


def weights(fit):
    return dict(fit.model.scope["params"])


def rewritten(run, folder, change):
    """A copy of a run in which ``run.json`` says something else."""
    content, files = storage.read(run)
    change(content)
    storage.write(folder / "copy", content, files)
    return folder / "copy"


def test_every_report_of_a_run_by_name(fitted, digits, tmp_path):
    copy = rewritten(fitted[0], tmp_path, lambda content: None)
    before = set(runs.reports(copy))
    assert all(name.startswith("report") for name in before)
    fit = fitted[1]
    report = pv.evaluate(fit.model, fit.guide, digits.valid[:40], num_particles=25)
    runs.save_report(copy, report, "valid")
    kept = pv.runs.reports(copy)
    assert kept["valid"].to_dict() == report.to_dict() and set(kept) == before | {"valid"}
    poor = pv.evaluate(fit.model, fit.guide, digits.valid[:40], num_particles=1, method="importance")
    better = pv.evaluate(fit.model, fit.guide, digits.valid[:40], num_particles=200)
    for one in (better, poor):  # the last is no better for that
        runs.save_report(copy, one)
    assert set(runs.reports(copy)) == before | {"valid", "report-auto-200", "report-importance-1"}
    assert runs.load_report(copy).to_dict() == better.to_dict()


UNFINISHED = {
    "interrupted": ({"epoch": 1, "interrupted": True}, "its fit was interrupted: .* after 1 of 3 epochs; pyrovae fit"),
    "diverged": ({"epoch": 2, "step": 5}, r"diverged, was killed or runs still.* 2 of 3 epochs; .*fit --resume --out"),
}


@pytest.mark.parametrize(("progress", "message"), UNFINISHED.values(), ids=UNFINISHED)
def test_a_fit_that_did_not_come_to_its_end_says_so(progress, message, fitted, tmp_path):
    copy = rewritten(fitted[0], tmp_path, lambda content: content["progress"].update(progress))
    vae = make()
    with pytest.warns(pv.UnfinishedFit, match=message):
        back = runs.load(copy, vae.model, vae.guide)
    assert back.interrupted == (progress.get("interrupted") or False)


def test_a_fit_that_diverged_says_so(tmp_path):
    """The folder holds the last good weights; loading it says that these are not those of a whole fit."""
    vae, x = make(), torch.full((40, 8, 8), 3.0)
    with pytest.raises(FloatingPointError):
        pv.fit(vae.model, vae.guide, x, epochs=5, out=tmp_path / "run", optimizer=lambda ps: torch.optim.SGD(ps, 1e30))
    with pytest.warns(pv.UnfinishedFit, match="diverged"):
        runs.load(tmp_path / "run", vae.model, vae.guide)


def test_a_fit_that_patience_ended_is_whole(fitted, tmp_path):
    copy = rewritten(fitted[0], tmp_path, lambda content: content["progress"].update(epoch=2, stopped=True))
    vae = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs.load(copy, vae.model, vae.guide)


def encoder(seed):
    with preserve_rng_state():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))


def hidden_in(module):
    """A function that gives the module without naming it: it lies in a file of its own."""
    file = types.ModuleType("nets")
    file.net = module
    return lambda: file.net


def test_modules_that_programs_call_without_naming_them_are_kept(tmp_path):
    """Their batch-norm statistics are no parameters, and are in the run all the same."""
    x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0)) + 2

    def pair(take):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0).to_event(1), obs=x)

        def guide(x):
            pyro.module("encoder", take())
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(take()(x), 0.5).to_event(1))

        return model, guide

    first, second = encoder(0), encoder(1)
    hidden = hidden_in(first), hidden_in(second)
    fit = pv.fit(*pair(hidden[0]), x, epochs=3, batch_size=32, out=tmp_path / "run", progress=False)
    assert first.training and int(first[1].num_batches_tracked) == 9
    back = runs.load(tmp_path / "run", *pair(hidden[1]))
    assert torch.equal(second[1].running_mean, first[1].running_mean) and second.training
    reports = [pv.evaluate(one.model, one.guide, x, num_particles=20, progress=False) for one in (fit, back)]
    assert torch.equal(reports[0].log_evidence, reports[1].log_evidence)
