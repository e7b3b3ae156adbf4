"""Programs as users write them, plain Pyro files that know nothing of pyrovae, through fit, evaluate and compare."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

import pyrovae as pv

FILES = sorted((Path(__file__).parent / "users").glob("*.py"))


def load(path):
    """The file's module, new at each call, and so with weights that nobody has trained."""
    spec = importlib.util.spec_from_file_location(f"user_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_users_file_is_fitted_evaluated_and_compared(path):
    reports = {}
    for epochs in (1, 20):
        torch.manual_seed(0)  # of what parameters are first made of
        module = load(path)
        train, test = module.data(300), module.data(340)
        test = tuple(column[300:] for column in test)
        fitted = pv.fit(module.model, module.guide, train, epochs=epochs, batch_size=50, progress=False)
        reports[f"{epochs} epochs"] = pv.evaluate(fitted.model, fitted.guide, test, num_particles=200, progress=False)
    first, last = reports.values()
    for report in (first, last):
        assert report.log_evidence.isfinite().all()
        slack = 4 * (report.mc_se_log_evidence.square() + report.mc_se_elbo.square()).sqrt()
        assert (report.elbo <= report.log_evidence + slack + 1e-3).all()
    table = pv.compare(reports)
    assert table.rows[0].name == "20 epochs" and math.isfinite(table.rows[1].difference)
    assert last.fraction_unreliable <= 0.1, str(last)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_users_file_is_short_and_plain(path):
    text = path.read_text()
    assert text.count("\n") <= 60 and "pyrovae" not in text
