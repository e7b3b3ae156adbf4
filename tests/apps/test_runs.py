"""A run brought back is the fit it was."""

import json

import pytest
import torch

import pyrovae as pv
from pyrovae.apps import runs
from pyrovae.base import storage


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
    reports = [pv.evaluate(f.model, f.guide, digits.test, num_particles=20) for f in (fit, back)]
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
    report = pv.evaluate(fit.model, fit.guide, digits.test, num_particles=30)
    runs.save_report(folder, report)
    back = runs.load_report(folder)
    for name, column in report.table().items():
        assert torch.allclose(column, back.table()[name], rtol=0, atol=0, equal_nan=True), name
    assert back.protocol == report.protocol and back.to_dict() == report.to_dict()


def test_a_report_kept_before_records_said_what_they_are(fitted, digits):
    folder, fit = fitted
    report = pv.evaluate(fit.model, fit.guide, digits.test[:20], num_particles=30)
    older = report.to_dict() | {"way": report.strategy}
    del older["strategy"]
    storage.update(folder, {"report.json": json.dumps(older).encode(), "report.csv": report.to_csv().encode()})
    back = runs.load_report(folder)
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
