"""A report's columns: made of a few data at a time, and one place to add another."""

import copy
import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.moving import ones, pair, up_to

from pyrovae.base.errors import InputError, UntrustedEvidence
from pyrovae.base.records import mean_and_se
from pyrovae.evidence.evaluate import COLUMNS, evaluate, importance_sampling, in_slices
from pyrovae.evidence.importance import Weights
from pyrovae.evidence.numerics.running_sums import Moments
from pyrovae.evidence.plan import WEIGHTS_AT_ONCE
from pyrovae.evidence.proposals.widened import widened
from pyrovae.evidence.report import Report
from pyrovae.programs.oracles import ppca


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_slices_are_the_whole(monkeypatch):
    log_weight, resolution = 3 * doubles(200, 9), torch.full((9,), 1e-12).double()
    block = Weights(log_weight, Moments(log_weight[:2], log_weight[:2]), resolution, resolution)
    assert min(WEIGHTS_AT_ONCE.values()) >= 2**16
    monkeypatch.setitem(WEIGHTS_AT_ONCE, "cpu", 200 * 4)
    widths = []

    def reduce(*columns):
        widths.append(columns[0].shape[1])
        return importance_sampling(*columns)

    sliced, whole = in_slices(reduce, block), importance_sampling(log_weight, resolution)
    assert widths == [4, 4, 1]
    for name, column in whole.items():
        torch.testing.assert_close(sliced[name], column, rtol=1e-12, atol=1e-12)


def test_a_new_estimator_is_one_line_of_columns(monkeypatch, tmp_path):
    """A function of the log weights, named in COLUMNS, is in every form of a report, and comes back from a file."""
    monkeypatch.setitem(COLUMNS, "log_evidence_best", lambda log_weight, tail: log_weight.amax(0))
    monkeypatch.setitem(COLUMNS, "mc_se_log_evidence_best", lambda log_weight, tail: 0 * log_weight[0] + 0.5)
    oracle = ppca(5, 2)
    x, _ = oracle.draw(4, seed=0)
    report = evaluate(oracle.model, widened(oracle.guide, 1.3), x, num_particles=30, progress=False)
    best = report.log_evidence_best
    assert torch.equal(report.table()["log_evidence_best"], best) and "log_evidence_best" in dir(report)
    assert report.to_dict()["log_evidence_best"] == mean_and_se(best, torch.full((4,), 0.5))
    (line,) = (line for line in report.summary().splitlines() if line.startswith("log_evidence_best"))
    assert line.split()[1:] == [f"{best.mean():.3f}", f"{best.std() / 2:.3f}", "0.2500"]
    report.save(tmp_path / "report.json")
    monkeypatch.undo()
    assert torch.equal(Report.load(tmp_path / "report.json").log_evidence_best, best)


def test_what_is_no_column_is_told():
    report = Report({"elbo": torch.zeros(2).double()}, 1, 0, "tiled", {})
    assert torch.equal(copy.deepcopy(report).elbo, report.elbo)
    with pytest.raises(AttributeError, match="a report has no 'evidence'; its columns are elbo"):
        report.evidence


def test_what_all_data_share_is_bound_to_the_programs():
    def model(x, scale):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, scale):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, scale))

    with pytest.raises(InputError, match=r"got an int; .*functools\.partial"):
        evaluate(model, guide, (torch.zeros(3), 3), progress=False)
    pair = (functools.partial(program, scale=1) for program in (model, guide))
    assert evaluate(*pair, torch.zeros(3), num_particles=5, progress=False).elbo.isfinite().all()


def test_data_of_which_all_draws_weigh_nothing_are_spoken_of():
    """The guide draws but one in thousands above x, and the look that lets the pair pass meets it."""
    model, guide = pair(up_to, lambda x: dist.Exponential(ones(x)))
    x = torch.tensor([0.5, 4.0])
    with pytest.warns(UntrustedEvidence, match="all 3 draws have weight zero for 1 of 2 data, the first is row 1"):
        report = evaluate(model, guide, x, num_particles=3, method="importance", progress=False)
    assert report.log_evidence[1] == -torch.inf
