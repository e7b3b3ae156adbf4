"""Handlers: a tempered KL is logged whole, masked entries are filled, and bfloat16 is for products alone."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from examples.small import make_data, make_vae
from pyro.infer import Trace_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.pairs.graphs import compiler_missing
from pyrovae.pairs.handlers import in_precision, masked_filled, tempered
from pyrovae.pairs.traces import TracePair
from pyrovae.training.objectives.bounds import terms


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
    reconstruction, kl = terms(TracePair(*Trace_ELBO()._get_trace(vae.model, vae.guide, (x,), {}))).tolist()
    assert loss(tempered(vae.model, 0.25), tempered(vae.guide, 0.25)) == pytest.approx(
        0.25 * kl - reconstruction, rel=1e-5
    )
    pyro.clear_param_store()


# ------------------------------------------------------------------------------------ missing entries


def masked_pairs():
    """A linear-Gaussian pair with missing entries, masked in three ways; x: (N, 3) with NaN where missing."""

    def with_handler(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with poutine.mask(mask=seen.all(-1)):
                pyro.sample("x", dist.Normal(pyro.param("w", torch.ones(3)) * z, 1.0).to_event(1), obs=x)

    def with_distribution(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            likelihood = dist.Normal(pyro.param("w", torch.ones(3)) * z, 1.0).mask(seen).to_event(1)
            pyro.sample("x", likelihood, obs=x)

    def with_inner_plate(x, seen):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, 3), 1.0).to_event(1))
            with pyro.plate("entry", 3, dim=-1), poutine.mask(mask=seen):
                mean = (pyro.param("w", torch.ones(3)) * z).squeeze(-2)
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    return {"handler": with_handler, "distribution": with_distribution, "inner plate": with_inner_plate}


@pytest.mark.parametrize("name", masked_pairs())
@pytest.mark.global_params
def test_missing_values_under_a_mask_give_the_gradient_of_the_rest(name):
    model = masked_pairs()[name]
    seen = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    complete = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))

    def guide(x, seen):
        dim = -2 if name == "inner plate" else -1
        shape = (40, 1, 3) if name == "inner plate" else (40, 3)
        with pyro.plate("data", len(x), dim=dim):
            pyro.sample("z", dist.Normal(torch.zeros(shape), 1.0).to_event(1))

    def gradient(program, x):
        pyro.clear_param_store()
        torch.manual_seed(0)
        Trace_ELBO().loss_and_grads(program, guide, x, seen)
        return dict(pyro.get_param_store().named_parameters())["w"].grad.clone()

    expected = gradient(model, complete)
    with pyro.validation_enabled(False):
        missing = gradient(masked_filled(model), torch.where(seen, complete, torch.nan))
    assert expected.abs().min() > 0
    torch.testing.assert_close(missing, expected)


def test_a_pair_with_missing_data_fits():
    model = masked_pairs()["distribution"]

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.nan_to_num() / 2 + pyro.param("b", torch.zeros(3)), 0.7).to_event(1))

    seen = torch.rand(60, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    x = torch.where(seen, torch.randn(60, 3, generator=torch.Generator().manual_seed(1)), torch.nan)
    fitted = pv.fit(model, guide, (x, seen), epochs=3)
    assert fitted.history[-1]["elbo"] < 0
    assert pv.evaluate(fitted.model, fitted.guide, (x, seen), num_particles=50).log_evidence.isfinite().all()


# ----------------------------------------------------------------------------------------- precision

PRODUCTS = {
    "linear": (nn.Linear(64, 8), (5, 64)),
    "convolution": (nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
    "transposed convolution": (nn.ConvTranspose2d(3, 4, 3), (2, 3, 8, 8)),
    "by its function": (lambda x: nn.functional.linear(x, x), (4, 64)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_that_of_rounded_inputs_and_comes_back_in_float32(name):
    product, shape = PRODUCTS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact, rounded = product(x), in_precision(product, "bfloat16")(x)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 1e-5 < error < 2e-2


def test_all_else_is_left_alone():
    x = torch.full((3,), 1 / 3)
    assert torch.equal(in_precision(lambda x: (x + x).exp().sum().log(), "bfloat16")(x), (x + x).exp().sum().log())
    double = torch.randn(4, 4, dtype=torch.float64)
    linear = nn.functional.linear
    assert torch.equal(in_precision(linear, "bfloat16")(double, double), linear(double, double))
    weight = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.LowRankMultivariateNormal(torch.zeros(64), weight, torch.full((64,), 0.01))
    scored = in_precision(lambda x: type(normal)(normal.loc, weight, torch.full((64,), 0.01)).log_prob(x), "bfloat16")
    assert torch.equal(scored(normal.mean), normal.log_prob(normal.mean))  # a covariance is no layer
    assert in_precision(torch.sum, "float32") is torch.sum
    with pytest.raises(pv.InputError, match="precision must be one of float32, bfloat16, got 'fp8'"):
        in_precision(torch.sum, "fp8")


def test_a_fit_in_bfloat16_trains_and_its_evidence_is_that_of_float32():
    vae, x = make_vae(hidden=64), make_data(400)
    fitted = pv.fit(vae.model, vae.guide, x, epochs=20, batch_size=50, precision="bfloat16", seed=0)
    assert fitted.settings["precision"] == "bfloat16"
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"] + 0.5
    assert all(value.dtype == torch.float32 for value in vae.parameters())
    programs = [in_precision(program, "bfloat16") for program in (fitted.model, fitted.guide)]
    rounded, exact = (pv.evaluate(*pair, x, num_particles=200) for pair in (programs, (fitted.model, fitted.guide)))
    gap = (rounded.log_evidence - exact.log_evidence).mean().abs()
    assert 0 < gap < 0.05


@pytest.mark.skipif(compiler_missing(torch.device("cpu")) is not None, reason="needs a C++ compiler")
def test_rounded_products_are_compiled_too():
    x, last = make_data(200), []
    for compile in (False, True):
        vae = make_vae(hidden=64)
        settings = {"epochs": 5, "batch_size": 50, "precision": "bfloat16", "seed": 0}
        fitted = pv.fit(vae.model, vae.guide, x, compile=compile, **settings)
        assert fitted.settings["compile"] is compile
        programs = [in_precision(program, "bfloat16") for program in (fitted.model, fitted.guide)]
        report = pv.evaluate(*programs, x, num_particles=200, compile=compile, progress=False)
        last.append(report.log_evidence.mean())
    assert abs(last[0] - last[1]) < 0.02
