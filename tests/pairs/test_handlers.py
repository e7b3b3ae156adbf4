"""Handlers: a tempered KL is logged whole, masked entries are filled, and bfloat16 is for products alone."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from examples.kernels import in_kernels
from examples.moving import above
from examples.small import make_data, make_vae
from pyro.infer import Trace_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.graphs.graph import compiler_missing
from pyrovae.pairs.handlers import Placed, Redrawn, in_precision, scorable, tempered, with_prior
from pyrovae.pairs.traces import TracePair, site_log_prob
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
        missing = gradient(scorable(model), torch.where(seen, complete, torch.nan))
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
@pytest.mark.parametrize(("name", "graphs"), in_kernels(of=["bfloat16"]), indirect=["graphs"])
def test_rounded_products_are_compiled_too(request, name, graphs):
    """The step in kernels or not; the evaluation as traced."""
    x, last, fits = make_data(200), [], {}
    for compile in (False, True):
        vae = make_vae(hidden=64)
        settings = {"epochs": 5, "batch_size": 50, "precision": name, "seed": 0}
        fits[compile] = pv.fit(vae.model, vae.guide, x, compile=compile, **settings)
        assert fits[compile].settings["compile"] is compile
    request.getfixturevalue("graphs_as_traced")
    for compile, fitted in fits.items():
        programs = [in_precision(program, "bfloat16") for program in (fitted.model, fitted.guide)]
        report = pv.evaluate(*programs, x, num_particles=200, compile=compile, progress=False)
        last.append(report.log_evidence.mean())
    assert abs(last[0] - last[1]) < 0.02


# ------------------------------------------------------------------------ missing entries under supports that move


def bounded(likelihood):
    """Three entries beyond one bound, which the guide knows; NaN where missing."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(torch.tensor(3.0), 6.0))
            each = likelihood(z[..., None].expand(*z.shape, 3), pyro.param("alpha", torch.tensor(2.0)))
            pyro.sample("x", each.mask(~x.isnan()).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(torch.full((len(x),), 3.0), x.nan_to_num(6.0).amin(-1).clamp_max(6.0)))

    return model, guide


HOLES = torch.tensor([[3.5, torch.nan, 4.0], [7.0, 5.0, 6.5], [torch.nan, torch.nan, 9.0], [torch.nan] * 3])
BOUNDED = {
    "pareto": lambda z, alpha: dist.Pareto(z, alpha),
    "shifted exponential": lambda z, alpha: above(dist.Exponential(alpha.expand(z.shape)), z),
    "uniform": lambda z, alpha: dist.Uniform(z, z + 9 * alpha),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_holes_beyond_a_bound_change_no_number(name):
    """The rows that miss nothing have the same gradient and evidence beside those that do."""
    model, guide = bounded(BOUNDED[name])
    fitted = pv.fit(model, guide, HOLES, epochs=2, batch_size=4, progress=False)
    assert all(row["elbo"] == pytest.approx(row["objective"]) for row in fitted.history)
    found = pv.evaluate(fitted.model, fitted.guide, HOLES, num_particles=5000, progress=False)
    assert found.log_evidence.isfinite().all() and found.elbo.isfinite().all()
    assert abs(found.log_evidence[3]) < 1e-5  # nothing is seen


def test_evidence_beyond_a_bound_with_holes():
    """4 standard errors; p(x) is the integral of a power of the bound."""
    found = pv.evaluate(*bounded(BOUNDED["pareto"]), HOLES, num_particles=5000, progress=False)
    seen, x = ~HOLES.isnan(), HOLES.double()
    power, top = 2 * seen.sum(-1) + 1, x.nan_to_num(6.0).amin(-1).clamp_max(6.0)
    each = torch.where(seen, math.log(2.0) - 3 * x.nan_to_num(1.0).log(), 0.0).sum(-1)
    exact = each + ((top**power - 3.0**power) / (3 * power)).log()
    assert ((found.log_evidence - exact).abs() < 4 * found.mc_se_log_evidence + 1e-5).all()


def test_a_hole_in_a_share_of_shares_is_filled():
    """No one number is in a simplex of three."""
    x = torch.tensor([[0.2, 0.3, 0.5], [torch.nan] * 3])
    weight = torch.ones(3, requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=~x.isnan().any(-1)):
            pyro.sample("x", dist.Dirichlet(weight.expand(2, 3), validate_args=False), obs=x)

    poutine.trace(scorable(model)).get_trace(x).log_prob_sum().backward()
    assert weight.grad.isfinite().all() and weight.grad.abs().sum() > 0


# ----------------------------------------------------------------------------------- outcomes that a class rules out


def occupancy(x, z):
    with pyro.plate("data", len(x)):
        there = pyro.sample("z", z)
        pyro.sample("x", dist.Binomial(3, 0.4 * there), obs=x)


def test_a_class_of_probability_zero_rules_an_outcome_out():
    x = torch.tensor([0.0, 2.0, 2.0])
    of_class = dist.Binomial(3, 0.4).log_prob(x[2])
    model = scorable(occupancy)
    z = torch.tensor([0.0, 0.0, 1.0])
    with poutine.trace() as tracer, Placed({"z": z}):
        model(x, dist.Bernoulli(torch.full((3,), 0.5)))
    found = site_log_prob(tracer.trace.nodes["x"])
    torch.testing.assert_close(found, torch.stack([torch.tensor(0.0), torch.tensor(-torch.inf), of_class]))


def test_a_network_that_saturates_rules_nothing_out():
    x = torch.tensor([1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0))
            pyro.sample("x", dist.Bernoulli((z - 200).sigmoid()), obs=x)

    trace = poutine.trace(scorable(model)).get_trace(x)
    assert site_log_prob(trace.nodes["x"]).isfinite().all()


def test_another_prior_gives_the_evidence_of_the_model_that_has_it():
    """A factor model under z ~ N(0, 4 I) is one whose loadings are twice as large."""
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(40, seed=0)
    wide = pv.oracles.LinearGaussian(2 * oracle.loadings, oracle.bias, oracle.noise_scale)
    model = with_prior(oracle.model, z=dist.Normal(torch.zeros(2).double(), 2.0).to_event(1))
    report = pv.evaluate(model, oracle.guide, x, num_particles=2000, progress=False)
    error = (report.log_evidence - wide.log_evidence(x)).abs()
    assert (error < 4 * report.mc_se_log_evidence + 1e-6).all()
    assert (report.log_evidence - oracle.log_evidence(x)).abs().max() > 0.1  # the prior was replaced


def test_another_prior_may_be_a_module_with_weights_of_its_own():
    vae, x = make_vae(), make_data(8)
    mixture = pv.priors.GaussianMixture(2, num_components=3, seed=1)
    own = pv.VAE(mixture, vae.decoder, vae.encoder)
    pairs = (with_prior(vae.model, z=mixture), vae.guide), (own.model, own.guide)
    found = [pv.evaluate(*pair, x, num_particles=50, method="importance", progress=False) for pair in pairs]
    torch.testing.assert_close(found[0].log_evidence, found[1].log_evidence)


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"w": dist.Normal(0.0, 1.0)}, "site 'w' is not drawn by the model"),
        (
            {"z": dist.Normal(torch.zeros(3), 1.0).to_event(1)},
            r"site 'z': one latent has the shape \(2,\) in the model",
        ),
    ],
    ids=["no such site", "another shape"],
)
def test_a_prior_that_has_no_place_is_refused(priors, words):
    vae, x = make_vae(), make_data(8)
    with pyro.get_param_store().scope(), pytest.raises(InputError, match=words):
        with_prior(vae.model, **priors)(x)


def test_draws_are_made_anew_for_all_that_comes_after_them():
    """Those that are recorded, and those that a later site reads; what is observed stays, as do rows and named values."""

    def program(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x), requires_grad=True), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.deterministic("twice", 2 * b)
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    x = torch.randn(3).requires_grad_()
    seen = []

    def held(value, fn):
        seen.append(type(fn).__name__)
        return value.detach()

    with Redrawn(held):
        trace = poutine.trace(program).get_trace(x)
    assert seen == ["Normal", "Normal"]
    assert not any(trace.nodes[name]["value"].requires_grad for name in ("a", "b", "twice"))
    assert not trace.nodes["b"]["fn"].loc.requires_grad
    assert trace.nodes["x"]["value"] is x


def test_a_name_is_no_prior():
    with pytest.raises(InputError, match="z: give a distribution, or a function that returns one, got 'laplace'"):
        with_prior(make_vae().model, z="laplace")
