"""The mixture of guide and prior: its density, its bound, its evidence, and the pairs it must refuse."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.zoo import ZOO

from pyrovae.base.errors import InputError
from pyrovae.evidence.evaluate import evaluate
from pyrovae.evidence.proposals.defensive import defended
from pyrovae.evidence.proposals.widened import widened
from pyrovae.evidence.report import Report
from pyrovae.pairs.context import isolated
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.terms import sum_by_role
from pyrovae.programs.oracles import ppca

ORACLE = ppca(20, 3)
X, _ = ORACLE.draw(100, seed=1)
EXACT = ORACLE.log_evidence(X)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def account(guide, x=X, *, model=ORACLE.model, **options):
    return evaluate(
        model,
        guide,
        x,
        **{"num_particles": 1000, "progress": False, "method": "importance", "defensive": 0.1, **options},
    )


def table(model, guide, x, share, *, num_particles=500, way="vectorized"):
    with isolated(model, guide) as (model, guide, _):
        torch.manual_seed(0)
        return sum_by_role(defended(Particles(model, guide, (x,), plate="data", strategy=way), share)(num_particles))


def far_guide(x):
    """A guide so far from the prior that each draw tells where it is from."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_full((3,), 100.0), 1.0).to_event(1))


@pytest.mark.parametrize("way", ["vectorized", "tiled", "looped"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_density_and_share_of_the_mixture(way, share):
    terms = table(ORACLE.model, far_guide, X, share, way=way, num_particles=60)
    is_prior = terms.log_prior > -100
    log_guide = dist.Normal(0.0, 1.0).log_prob(torch.zeros(())) * 3  # of its centre: no draw is more probable
    assert torch.allclose((terms.log_guide - terms.log_prior)[is_prior], torch.tensor(share).double().log())
    assert (terms.log_guide[~is_prior] <= math.log1p(-share) + log_guide + 1e-12).all()
    assert (terms.log_guide[~is_prior] > -30).all()
    error = math.sqrt(share * (1 - share) / is_prior.numel())
    assert abs(float(is_prior.double().mean()) - share) < 4 * error  # 4 standard errors
    assert not (is_prior[0] == is_prior).all() and not (is_prior[:, :1] == is_prior).all()


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_weights_are_bounded(share):
    terms = table(ORACLE.model, widened(ORACLE.guide, 0.2), X, share)
    assert (terms.log_weight <= terms.log_likelihood - math.log(share) + 1e-12).all()
    assert (terms.log_weight > terms.log_likelihood - math.log(share) - 0.01).any()  # where the guide has no tails


def test_exact_evidence():
    # 4 standard errors of the mean over data, plus the bias that the report states.
    for guide in (ORACLE.guide, widened(ORACLE.guide, 0.8), ORACLE.mean_field_guide()):
        report = account(guide)
        values = report.to_dict()["log_evidence"]
        error = float((report.log_evidence - EXACT).mean())
        assert values["mc_se"] > 0 and abs(error) < 4 * values["mc_se"] - values["bias"]


def test_identities():
    report, close = account(ORACLE.mean_field_guide(0.8)), {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(report.log_evidence, report.elbo + report.kl_posterior, **close)
    torch.testing.assert_close(report.elbo, report.reconstruction - report.kl_prior, **close)
    assert report.kl_prior_analytic.isnan().all()  # a mixture has none


def test_it_mends_a_guide_that_is_too_narrow():
    heavy = ppca(20, 3, collinearity=0.9)
    x, _ = heavy.draw(200, seed=1)
    errors = [
        float((account(heavy.mean_field_guide(), x, model=heavy.model, defensive=d).log_evidence).mean())
        - float(heavy.log_evidence(x).mean())
        for d in (0.0, 0.1)
    ]
    assert errors[0] < -0.1 and abs(errors[1]) < abs(errors[0]) / 4


SOME = [
    "functions",
    "pyro-module",
    "hierarchical",
    "two-observed",
    "pixels-left",
    "pixels-right",
    "sequential-inside",
    "subsample-given",
    "discrete-and-continuous",
    "convolution",
    "hard-wired",
]


@pytest.mark.parametrize("name", SOME)
def test_programs_of_every_style(name):
    # Two shares of the prior, independent draws: 4.5 standard errors of the difference for each of 5 data.
    case = ZOO[name]()
    options = {"model": case.model, "plate": case.plate, "num_particles": 400 if case.way == "looped" else 4000}
    a, b = (
        account(case.guide, case.args, defensive=share, seed=seed, **options) for share, seed in ((0.1, 0), (0.7, 1))
    )
    se = (a.mc_se_log_evidence.square() + b.mc_se_log_evidence.square()).sqrt()
    assert ((a.log_evidence - b.log_evidence).abs() < 4.5 * se).all()
    assert a.strategy == b.strategy == case.way and (a.elbo != b.elbo).all()


def test_the_report_says_it(tmp_path):
    report = account(widened(ORACLE.guide, 0.8), num_particles=30)
    assert "0.9 guide + 0.1 prior" in report.summary() and report.to_dict()["defensive"] == 0.1
    assert "prior" not in account(ORACLE.guide, num_particles=30, defensive=0.0).summary().split("effective")[1]
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json").defensive == 0.1


# ------------------------------------------------------------------------------------------ refusals


def exponential_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def exponential_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Exponential(torch.ones(len(x))))


REFUSED = {  # name: (model, guide, options, message)
    "supports": (
        exponential_model,
        exponential_guide,
        {},
        "site 'z': the guide \\(Exponential, from 0\\) cannot draw all that the prior",
    ),
    "one-by-one": (exponential_model, exponential_model, {"vectorize": False}, "leave vectorize=False out"),
    "all-prior": (exponential_model, exponential_model, {"defensive": 1.0}, "from 0 to below 1; got 1.0"),
    "negative": (exponential_model, exponential_model, {"defensive": -0.1}, "from 0 to below 1; got -0.1"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refusals(case):
    model, guide, options, message = case
    with pytest.raises(InputError, match=message):
        account(guide, torch.zeros(20), model=model, num_particles=5, **options)


def test_a_density_that_is_not_a_number_names_the_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, torch.where(z > 1, math.nan, 1.0)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((len(x),), -5.0), 0.1))

    with pytest.raises(FloatingPointError, match="site 'x': log density in the model is nan"):
        account(guide, torch.zeros(20), model=model)
