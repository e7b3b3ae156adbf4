"""bfloat16 is for products alone: densities keep the precision of the data, and the evidence hardly moves."""

import pytest
import torch
from examples.small import make_data, make_vae
from torch import nn

import pyrovae as pv
from pyrovae.pairs.graphs import compiler_missing
from pyrovae.pairs.handlers import in_precision

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
