"""What becomes of the data of all blocks together that nothing vouches for."""

import warnings

import torch

import pyrovae as pv
from pyrovae.base.errors import InputError, UntrustedEvidence


def quiet(model, guide, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustedEvidence)
        return pv.evaluate(model, guide, *args, progress=False, **options)


def test_data_of_all_blocks_are_annealed_together_and_come_back_to_their_rows():
    """Exact evidence of every row, from blocks of seven, where some of each block are annealed at the end."""
    oracle = pv.oracles.mixture_prior(1, 2)
    x, _ = oracle.draw(16, seed=0)
    report = quiet(oracle.model, pv.widened(oracle.guide, 0.5), x, method="annealed", batch_size=7)
    assert set(report.route) == {"annealed"}
    z = (report.log_evidence - oracle.log_evidence(x)) / report.mc_se_log_evidence
    assert (z.abs()[~report.unreliable] < 4).all() and report.fraction_unreliable < 0.2
    torch.testing.assert_close(report.kl_posterior, report.log_evidence - report.elbo, rtol=1e-12, atol=1e-12)


def test_where_waiting_data_cannot_be_run_together_their_draws_are_kept(monkeypatch):
    def refused(*_):
        raise InputError("not so many")

    monkeypatch.setattr("pyrovae.evidence.ladder.repair.Repair._latents", refused)
    oracle = pv.oracles.mixture_prior(1, 2)
    report = quiet(oracle.model, oracle.guide, oracle.draw(10, seed=0)[0], method="annealed", batch_size=7)
    assert report.staying == "not so many" and "annealed" not in report.route and report.log_evidence.isfinite().all()
