"""Tempering scales the KL by beta, around both programs, and is logged whole."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from small import make_data, make_vae

import pyrovae as pv
from pyrovae.inference.handlers import tempered
from pyrovae.inference.measures import read_terms


def test_warm_up_weighs_the_kl_and_logs_it_whole():
    vae, x = make_vae(), make_data(64)
    still = {"optimizer": lambda ps: torch.optim.SGD(ps, lr=0.0), "epochs": 2, "batch_size": 64}
    rows = pv.fit(vae.model, vae.guide, x, kl_warmup=2, **still).history
    plain = pv.fit(vae.model, vae.guide, x, **still).history
    assert [row["beta"] for row in rows] == [0.5, 1.0]
    assert rows[0]["elbo"] == pytest.approx(plain[0]["elbo"], rel=1e-6)
    assert rows[0]["objective"] == pytest.approx(rows[0]["reconstruction"] - 0.5 * rows[0]["kl_prior"], rel=1e-6)
    assert rows[1]["objective"] == pytest.approx(rows[1]["elbo"], rel=1e-6)


def test_tempered_around_both_programs_scales_log_prior_and_log_guide():
    vae, x = make_vae(), make_data(8)

    def loss(model, guide):
        torch.manual_seed(0)
        return Trace_ELBO().loss(model, guide, x)

    torch.manual_seed(0)
    terms = read_terms(*Trace_ELBO()._get_trace(vae.model, vae.guide, (x,), {}))
    reconstruction, kl = (float(term) for term in terms)
    assert loss(tempered(vae.model, 0.25), tempered(vae.guide, 0.25)) == pytest.approx(
        0.25 * kl - reconstruction, rel=1e-5
    )
    pyro.clear_param_store()
