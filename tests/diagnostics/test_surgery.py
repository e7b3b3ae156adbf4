"""The KL taken apart, against brute-force integrals over the mixture of all data's posteriors, and by every style of program."""

import json
import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from examples.codes import (
    CODES,
    SCALE,
    SHIFT,
    A,
    diagonal,
    doubles,
    model,
)
from torch.distributions.transforms import TanhTransform

import pyrovae as pv
from pyrovae.base.errors import InputError, Interrupted
from pyrovae.diagnostics import aggregate_posterior as aggregate
from pyrovae.diagnostics.surgery import surgery

PARTS = ("mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl")


def brute_force(x, covariance, points=301):
    """The four parts by the trapezoidal rule over z, from the densities written out."""
    mean = x @ A.T + SHIFT
    grid = torch.linspace(-8, 8, points, dtype=torch.float64)
    step = (grid[1] - grid[0]).item()
    precision, logdet = covariance.inverse(), torch.logdet(covariance).item()
    density = torch.zeros(points, points, dtype=torch.float64)
    for m in mean:
        u, v = (grid - m[0])[:, None], (grid - m[1])[None]
        square = precision[0, 0] * u**2 + 2 * precision[0, 1] * u * v + precision[1, 1] * v**2
        density += torch.exp(-square / 2 - logdet / 2) / (2 * math.pi) / len(mean)
    assert abs(density.sum() * step**2 - 1) < 1e-10

    def entropy(p, size):
        return -torch.special.xlogy(p, p).sum().item() * size

    joint = entropy(density, step**2)
    marginals = [entropy(density.sum(dim) * step, step) for dim in (0, 1)]
    within = math.log(2 * math.pi * math.e) + logdet / 2
    second_moment = mean.square().sum(-1).mean().item() + covariance.trace().item()
    cross = math.log(2 * math.pi) + second_moment / 2
    values = (joint - within, cross - joint, sum(marginals) - joint, cross - sum(marginals))
    return dict(zip(PARTS, values, strict=True))


@pytest.mark.parametrize("name", CODES)
def test_parts_are_the_integrals(name):
    """Each within 4 Monte-Carlo standard errors, which are below 0.02 nat; seed 0."""
    program, guide, covariance = CODES[name]
    x = doubles(250, 2)
    account = surgery(program, guide, x, num_draws=20)
    exact = brute_force(x, covariance)
    divided = name in ("diagonal", "two sites")
    for part in PARTS if divided else PARTS[:2]:
        mean, mc_se, _ = getattr(account, part)
        assert abs(mean - exact[part]) < 4 * mc_se, part
        assert mc_se < 0.02
    assert (account.reason is None) == divided
    if not divided:
        assert all(math.isnan(number) for part in PARTS[2:] for number in getattr(account, part))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_add_up_on_the_same_draws(dtype):
    account = surgery(model, diagonal, doubles(90, 2).to(dtype), num_queries=40)
    kl = account.kl_prior.mean
    total = account.mutual_information.mean + account.total_correlation.mean + account.dimension_wise_kl.mean
    assert abs(total / kl - 1) < 1e-10
    assert abs((account.mutual_information.mean + account.marginal_kl.mean) / kl - 1) < 1e-10
    assert abs(sum(d.kl.mean for d in account.dimensions) / kl - 1) < 1e-10
    assert abs(sum(d.marginal_kl.mean for d in account.dimensions) / account.dimension_wise_kl.mean - 1) < 1e-10


def test_rate_distortion_and_kl_per_dimension_are_those_of_closed_form():
    x = doubles(200, 2)
    account = surgery(model, diagonal, x, num_draws=20)
    mean = x @ A.T + SHIFT
    kl = (mean.square() + SCALE.square() - 1).mean(0) / 2 - SCALE.log()
    for dimension, expected in zip(account.dimensions, kl.tolist(), strict=True):
        assert abs(dimension.kl.mean - expected) < 4 * dimension.kl.mc_se
    squares = ((x - mean).square() + SCALE.square()).sum(-1).mean().item()
    distortion = 2 * math.log(0.5) + math.log(2 * math.pi) + squares / (2 * 0.25)
    assert abs(account.distortion.mean - distortion) < 4 * account.distortion.mc_se
    assert account.rate == account.kl_prior
    assert [d.name for d in account.dimensions] == ["z[0]", "z[1]"]
    torch.testing.assert_close(torch.tensor([d.mean_variance for d in account.dimensions]).double(), mean.var(0))


@pytest.mark.parametrize("num_queries", [60, 24])
def test_errors_are_calibrated(num_queries):
    """Over 100 seeds z-scores have mean 0 within 4 / sqrt(100) and sd 1 within 3.5 / sqrt(200)."""
    x = doubles(60, 2)
    exact = brute_force(x, SCALE.square().diag())
    runs = [surgery(model, diagonal, x, num_draws=3, num_queries=num_queries, seed=seed) for seed in range(100)]
    for part in PARTS:
        z = torch.tensor([(getattr(run, part).mean - exact[part]) / getattr(run, part).mc_se for run in runs])
        assert abs(z.mean()) < 0.4, part
        assert abs(z.std() - 1) < 0.25, part


def test_the_error_over_data_is_that_of_other_data(monkeypatch):
    """Over 100 data sets the sd of each part is its data SE within 3.5 / sqrt(200), to first order in 1/N."""
    monkeypatch.setattr("pyrovae.diagnostics.priors.better.FEWEST", 1000)  # no mixture is fitted: it is not looked at
    runs = [surgery(model, diagonal, doubles(100, 2, seed=seed), seed=seed) for seed in range(100)]
    for part in ("kl_prior", *PARTS, "distortion"):
        estimates = torch.tensor([getattr(run, part) for run in runs])
        ratio = estimates[:, 0].std() / estimates[:, 2].square().mean().sqrt()
        assert abs(ratio - 1) < 0.25, part


# ------------------------------------------------------------------------------------------------------ discrete codes


def test_a_discrete_code_is_that_of_enumeration():
    """All of q(k|x_n), k = 1..C, written out; within 4 Monte-Carlo standard errors below 0.02 nat, seed 0."""
    weights, means = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([-1.0, 0.5, 1.5]).double()
    mixture = pv.oracles.FiniteMixture(weights, means, lambda mean: dist.Normal(mean, 0.8))
    x, _ = mixture.draw(200, seed=0)
    account = surgery(mixture.model, mixture.guide, x, num_draws=30)
    log_joint = weights.log() - (x[:, None] - means).square() / (2 * 0.64)
    q = log_joint.softmax(1)
    aggregate_q = q.mean(0)
    information = (q * (q / aggregate_q).log()).sum(1).mean()
    marginal = (aggregate_q * (aggregate_q / weights).log()).sum()
    for estimate, exact in ((account.mutual_information, information), (account.marginal_kl, marginal)):
        assert abs(estimate.mean - exact) < 4 * estimate.mc_se
        assert estimate.mc_se < 0.02
    assert account.reason is None and abs(account.total_correlation.mean) < 1e-12
    assert "0 of 1 dimensions (Var E[z_j|x] > 0.01); 1 have no mean" in account.summary()
    (dimension,) = account.dimensions
    assert dimension.name == "k" and math.isnan(dimension.mean_variance) and not dimension.active


# ------------------------------------------------------------------------------------------------------ collapse


def coded(scale_of_code, family=None):
    """A guide whose last coordinates are the prior whatever x is, and whose first ones follow it."""

    def guide(x):
        loc = x * torch.tensor(scale_of_code)
        scale = torch.tensor([0.5 if s else 1.0 for s in scale_of_code])
        with pyro.plate("data", len(x)):
            pyro.sample("z", (family or dist.Normal)(loc, scale).to_event(1))

    def program(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", (family or dist.Normal)(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    return program, guide


def squashed(loc, scale):
    """A family whose mean torch does not know."""
    return dist.TransformedDistribution(dist.Normal(loc, scale), [TanhTransform()])


CODED = {
    "healthy": ([1.0, 0.8, 0.5], ()),
    "collapsed": ([0.0, 0.0, 0.0], ("z[0]", "z[1]", "z[2]")),
    "one left": ([0.0, 0.8, 0.0], ("z[0]", "z[2]")),
}


@pytest.mark.parametrize("family", [None, squashed], ids=["mean known", "mean from draws"])
@pytest.mark.parametrize("name", CODED)
def test_collapsed_dimensions_are_named_and_healthy_ones_are_not(name, family):
    scale_of_code, collapsed = CODED[name]
    account = surgery(*coded(scale_of_code, family), torch.randn(400, 3, generator=torch.manual_seed(0)))
    assert account.collapsed == collapsed
    assert account.active_units == 3 - len(collapsed)
    assert f"collapsed: {len(collapsed)} of 3 (KL < 0.01 nat and inactive)" in account.summary()
    assert all(name in account.summary() for name in collapsed)
    assert (account.mutual_information.mean < 1e-6) == (name == "collapsed")


def test_threshold_is_that_of_active_units():
    program, guide = coded([1.0, 0.5, 0.2])
    x = torch.randn(400, 3, generator=torch.manual_seed(0))
    assert [surgery(program, guide, x, threshold=t).active_units for t in (0.01, 0.1, 0.5, 2.0)] == [3, 2, 1, 0]


def test_saturated_information_is_flagged():
    def sharp(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1e-3).to_event(1))

    account = surgery(model, sharp, doubles(30, 2))
    assert account.saturated
    assert abs(account.mutual_information.mean - math.log(30)) < 1e-6
    assert f"log N = {math.log(30):.3f}" in account.summary() and "WARNING" in account.summary()
    healthy = surgery(model, diagonal, doubles(100, 2))
    assert not healthy.saturated and "WARNING" not in healthy.summary()


def test_same_seed_same_numbers_and_nothing_left_behind():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.bernoulli(), 4, pv.networks.mlp(2, 8, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp(4, 8, seed=1)),
    ).train()
    x = torch.bernoulli(torch.full((60, 4), 0.4), generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    a, b, c = (surgery(vae.model, vae.guide, x, num_queries=20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state) and vae.training
    assert a.to_json() == b.to_json() != c.to_json()
    assert a.num_queries == 20 and len(a) == 60
    rows = a.per_datum["row"]
    assert torch.equal(rows, rows.unique()) and not torch.equal(rows, c.per_datum["row"])
    report = pv.evaluate(vae.model, vae.guide, x, num_particles=50)
    assert abs(report.kl_prior.mean().item() - a.kl_prior.mean) < 4 * a.kl_prior.mc_se
    assert abs(-report.reconstruction.mean().item() - a.distortion.mean) < 4 * a.distortion.mc_se


def test_per_datum_terms_are_of_the_rows_they_name():
    x = doubles(50, 2)
    account = surgery(model, diagonal, x, num_draws=400, num_queries=20)
    mean = (x @ A.T + SHIFT)[account.per_datum["row"]]
    kl = ((mean.square() + SCALE.square() - 1) / 2 - SCALE.log()).sum(-1)
    assert (account.per_datum["kl_prior"] - kl).abs().max() < 0.5  # 5 standard errors of 400 draws
    assert kl.std() > 0.5


def test_records_as_plain_values():
    account = surgery(model, diagonal, doubles(40, 2))
    values = json.loads(account.to_json())
    assert values == account.to_dict()
    assert values["kl_prior"] == account.kl_prior._asdict()
    assert values["log_num_data"] == math.log(40) and values["num_queries"] == 40
    assert values["dimensions"][1]["name"] == "z[1]" and values["active_units"] == 2
    assert str(account) == account.summary() and "2 of 2 active" in repr(account)


# ------------------------------------------------------------------------------------------------------ refusals


def masked(x):
    with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0):
        pyro.sample("z", dist.Normal(x, 1.0).to_event(1))


def conditional(x, label):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(label[:, None] * torch.ones(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def bounded(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(-torch.ones(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def undefined(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), math.nan).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


TWENTY = doubles(20, 2)

REFUSED = {
    "one datum": (model, diagonal, doubles(1, 2), {}, "at least 2 data, got 1"),
    "one draw": (model, diagonal, TWENTY, {"num_draws": 1}, "num_draws must be at least 2, got 1"),
    "one query": (model, diagonal, TWENTY, {"num_queries": 1}, "num_queries must be from 2 to the 20"),
    "half a draw": (model, diagonal, TWENTY, {"num_draws": 2.5}, "num_draws must be a whole number, got 2.5"),
    "half a query": (
        model,
        diagonal,
        TWENTY,
        {"num_queries": 2.5},
        "num_queries must be a whole number or None, got 2.5",
    ),
    "too many queries": (model, diagonal, TWENTY, {"num_queries": 21}, "num_queries must be from 2 to the 20"),
    "no block": (model, diagonal, TWENTY, {"batch_size": 0}, "batch_size must be at least 1"),
    "masked": (model, masked, TWENTY, {}, "site 'z' is masked in the model at 0 of 40 places and in the guide at"),
    "covariates": (
        conditional,
        lambda x, label: diagonal(x),
        (TWENTY, TWENTY[:, 0]),
        {},
        "site 'z': the prior is not the same for all data",
    ),
    "support": (bounded, diagonal, TWENTY, {}, "site 'z': the guide draws outside the support of the prior, for"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    program, guide, data, settings, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        surgery(program, guide, data, **settings)


def test_a_parameter_for_each_datum_is_refused():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", lambda: TWENTY.clone()), 0.5).to_event(1))

    with pytest.raises(InputError, match=r"site 'z': its log density goes with the place of a row .* ELBO surgery"):
        surgery(model, guide, TWENTY)


def test_a_density_that_is_not_a_number_is_named():
    with pytest.raises(FloatingPointError, match="site 'z': log density in the model is nan"):
        surgery(undefined, diagonal, TWENTY)


def test_queries_in_parts_change_nothing_but_noise_and_an_interrupt_keeps_them(monkeypatch):
    """What is scored in parts of ten queries is within its errors (5 SE) of the whole; parts that are done are kept."""
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(40, seed=0)
    whole = surgery(oracle.model, oracle.mean_field_guide(), x, num_draws=20)
    monkeypatch.setattr("pyrovae.diagnostics.surgery.QUERIES_AT_ONCE", 10)
    parts = surgery(oracle.model, oracle.mean_field_guide(), x, num_draws=20)
    for name in ("kl_prior", "mutual_information", "marginal_kl", "total_correlation"):
        ours, theirs = getattr(parts, name), getattr(whole, name)
        assert 0 < abs(ours.mean - theirs.mean) < 5 * math.hypot(ours.mc_se, theirs.mc_se)

    scored = []
    score = aggregate.Aggregation.score

    def stops(self, drawn, **options):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(drawn)
        return score(self, drawn, **options)

    monkeypatch.setattr(aggregate.Aggregation, "score", stops)
    with pytest.raises(Interrupted) as caught:
        surgery(oracle.model, oracle.mean_field_guide(), x, num_draws=20)
    partial = caught.value.partial
    assert partial.num_queries == 20 and partial.num_data == 40
    assert abs(partial.kl_prior.mean - whole.kl_prior.mean) < 5 * math.hypot(
        partial.kl_prior.mc_se, whole.kl_prior.mc_se
    )
    rows = partial.per_datum["row"]
    torch.testing.assert_close(partial.per_datum["kl_prior"], parts.per_datum["kl_prior"][rows])
