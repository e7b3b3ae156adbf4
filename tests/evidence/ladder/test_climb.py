"""The ladder: evidence that better proposals repair, datum by datum, honest about what each datum took."""

import math
import re
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError, UntrustedEvidence
from pyrovae.base.random import common_random_numbers
from pyrovae.evidence.ladder import climb
from pyrovae.evidence.ladder.climb import MORE
from pyrovae.evidence.ladder.estimates import AWAY, num_turned, pilot_cost
from pyrovae.evidence.ladder.rungs import PILOT, search_cost
from pyrovae.programs.oracles import ppca

ORACLE, HEAVY = ppca(20, 3), ppca(20, 3, collinearity=0.9)
X, _ = ORACLE.draw(60, seed=1)


def quiet(model, guide, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustedEvidence)
        return pv.evaluate(model, guide, *args, progress=False, **options)


@pytest.mark.parametrize("width", [0.5, 0.8])
def test_gaussian_posteriors_are_found_exactly(width):
    report = quiet(ORACLE.model, pv.widened(ORACLE.guide, width, shift=0.3), X)
    repaired = torch.tensor([route == "Laplace" for route in report.route])
    assert repaired.double().mean() > 0.5
    assert (report.log_evidence - ORACLE.log_evidence(X))[repaired].abs().max() < 1e-10
    assert (report.pareto_k[repaired] == -math.inf).all() and report.mc_se_log_evidence[repaired].max() < 1e-8


def _banana(noise):
    """z in the plane, x its height above a parabola: Gaussian where the noise is large."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            bend = z[..., 0].square() if noise < 1 else 0.0
            pyro.sample("x", dist.Normal(z[..., 1] - bend, noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 0.4).expand([len(x), 2]).to_event(1))

    return model, guide, torch.linspace(-1, 1, 120)


@pytest.mark.parametrize("noise", [0.1, 1.0], ids=["passed over", "tried"])
def test_a_few_rows_show_whether_laplaces_pilot_is_worth_it_for_all(monkeypatch, noise):
    sizes, pilot = [], climb.pilot
    monkeypatch.setattr(climb, "pilot", lambda latents, *rest: sizes.append(latents.num_data) or pilot(latents, *rest))
    report = quiet(*_banana(noise), method="adaptive", budget=3500)
    assert sizes == [30, 120]  # of every fourth row; then of all, by Newton's proposal or by Laplace's
    assert {route == "Laplace" for route in report.route} == {noise == 1.0}
    if noise < 1:  # elsewhere the guide's tails are looked at for some
        paid = report.cost % 1000  # whether K draws followed or not
        assert (paid - paid.min() == pilot_cost(((2,),)) * (torch.arange(120) % 4 == 0)).all()


def test_a_row_climbs_alike_alone_and_among_many_under_common_random_numbers():
    model, guide, x = _banana(0.1)
    with common_random_numbers():
        among = quiet(model, guide, x, method="adaptive", dtype="float64")
        alone = quiet(model, guide, x[:3], method="adaptive", dtype="float64")
    assert among.route[:3] == alone.route
    torch.testing.assert_close(among.log_evidence[:3], alone.log_evidence, rtol=0, atol=1e-8)


def test_annealing_starts_at_its_own_datum_where_the_guide_is_exact_for_some():
    def guide(x):
        exact = ORACLE.posterior(x)
        scale = torch.where(x[:, :1] < 0, 1.5, 1.0)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(exact.mean, scale_tril=scale[..., None] * exact.scale_tril))

    x = X[:12][X[:12, 0].argsort()]  # the last rows are those for which the guide is exact
    report = quiet(ORACLE.model, guide, x, num_particles=100, method="annealed")
    off = (report.log_evidence - ORACLE.log_evidence(x)).abs()
    assert (off < 5 * report.mc_se_log_evidence + 1e-3).all()


def test_the_elbo_and_its_parts_stay_those_of_the_guide():
    guide = pv.widened(ORACLE.guide, 0.5)
    plain, report = (quiet(ORACLE.model, guide, X, method=method) for method in ("importance", "auto"))
    for name in ("elbo", "reconstruction", "kl_prior", "kl_prior_analytic", "mc_se_elbo"):
        torch.testing.assert_close(getattr(report, name), getattr(plain, name), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(report.kl_posterior, report.log_evidence - report.elbo, rtol=1e-12, atol=1e-12)
    assert (report.mc_se_kl_posterior >= report.mc_se_elbo * (1 - 1e-12))[report.columns["route"] > 0].all()


def test_what_the_encoder_does_well_stays_as_it_is():
    plain, report = (
        quiet(ORACLE.model, pv.widened(ORACLE.guide, 1.3), X, method=method) for method in ("importance", "auto")
    )
    assert set(report.route) == {"encoder"}
    torch.testing.assert_close(report.log_evidence, plain.log_evidence, rtol=0, atol=0)
    looked = PILOT + AWAY + num_turned(((3,),)) + search_cost(3)
    assert (report.columns["cost"] == 1000 + looked).all() and (plain.columns["cost"] == 1000).all()


def test_each_datum_says_its_route_and_its_cost():
    report = quiet(HEAVY.model, HEAVY.mean_field_guide(), HEAVY.draw(80, seed=1)[0])
    routes = report.routes()
    assert sum(route["num_data"] for route in routes.values()) == 80 and len(report.route) == 80
    assert len(routes) > 1 and all(route in (*routes, "encoder") for route in report.route)
    assert (report.cost >= 1000 + PILOT).all() and report.cost.max() > 2000
    lines = report.summary().splitlines()
    head = next(line for line in lines if line.startswith("route"))
    assert "of them unreliable" in head and "decoder passes per datum" in head
    assert report.to_dict()["routes"] == routes


def test_a_report_with_routes_comes_back(tmp_path):
    report = quiet(HEAVY.model, HEAVY.mean_field_guide(), HEAVY.draw(30, seed=1)[0])
    report.save(tmp_path / "report.json")
    again = pv.Report.load(tmp_path / "report.json")
    assert again.route == report.route and again.method == "auto" and torch.equal(again.cost, report.cost)
    assert set(report.to_dataframe()["route"]) == set(report.route)
    assert "Laplace" in (tmp_path / "report.csv").read_text()


METHODS = {
    "importance": {"encoder"},
    "laplace": {"encoder", "Laplace"},
    "adaptive": {"encoder", "Laplace", "Newton", "moments", "mixture"},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_how_far_data_may_climb(method):
    oracle = pv.oracles.mixture_prior(1, 2)
    x, _ = oracle.draw(20, seed=0)
    report = quiet(oracle.model, pv.widened(oracle.guide, 0.4), x, method=method, num_particles=200)
    assert set(report.route) <= METHODS[method] and report.method == method
    assert any(route != "encoder" for route in report.route) or method == "importance"


def test_draws_that_do_not_vouch_for_themselves_are_followed_by_more():
    oracle = pv.oracles.mixture_prior(3, 2)
    x, _ = oracle.draw(300, seed=0)
    report = quiet(oracle.model, pv.widened(oracle.guide, 0.5), x, method="adaptive", num_particles=50)
    climbed = torch.tensor([route != "encoder" for route in report.route])
    more = report.columns["num_weights"] == (1 + MORE) * 50
    assert 2 < more.sum() < climbed.sum() / 2 and (report.columns["num_weights"][~more] == 50).all()
    cost = {name: report.cost[which & climbed].min() for name, which in {"more": more, "few": ~more}.items()}
    assert cost["more"] >= cost["few"] + MORE * 50
    z = (report.log_evidence - oracle.log_evidence(x)) / report.mc_se_log_evidence
    assert z[more].abs().max() < 4 and abs(z[more].mean()) < 4 / more.sum().sqrt()


@pytest.mark.parametrize(("misses", "route"), [(False, "mixture"), (True, "annealed")])
def test_more_draws_decide_where_a_pilot_doubts_what_draws_vouch_for(monkeypatch, misses, route):
    """Where it shows that a mode is missed, no number of draws decides: chains do."""

    def doubts(*args):
        looked, every = climb_pilot(*args), torch.ones(5, dtype=torch.bool)
        return looked._replace(pareto_k=torch.full((5,), 0.9), exact=~every, misses=misses & every)

    climb_pilot = climb.pilot
    monkeypatch.setattr(climb, "pilot", doubts)
    x, _ = ORACLE.draw(5, seed=0)
    report = quiet(ORACLE.model, pv.widened(ORACLE.guide, 0.5), x, num_particles=200)
    assert set(report.route) == {route}
    assert misses or (report.columns["num_weights"] == (1 + MORE) * 200).all()
    assert ((report.log_evidence - ORACLE.log_evidence(x)).abs() < 4 * report.mc_se_log_evidence + 1e-6).all()


def test_annealed_anneals_all():
    x, _ = ORACLE.draw(3, seed=0)
    report = quiet(ORACLE.model, pv.widened(ORACLE.guide, 1.2), x, method="annealed")
    assert set(report.route) == {"annealed"} and report.cost.min() > 20_000
    assert ((report.log_evidence - ORACLE.log_evidence(x)).abs() < 4 * report.mc_se_log_evidence + 1e-6).all()


def test_a_budget_is_kept():
    guide = pv.widened(HEAVY.guide, 0.4)
    x, _ = HEAVY.draw(20, seed=1)
    for budget in (1000, 4000, 8000):
        report = quiet(HEAVY.model, guide, x, budget=budget)
        assert (report.cost <= budget).all()
    with pytest.raises(InputError, match="budget is decoder passes for each datum, at least the 1000"):
        quiet(HEAVY.model, guide, x, budget=999)


STAYING = {
    "an angle": (
        lambda: dist.VonMises(0.0, torch.tensor(1.0)),
        lambda x: dist.VonMises(x, 8.0),
        r"site 'z' has no bijection with unconstrained space \(VonMises\)",
    ),
    "counts": (
        lambda: dist.Poisson(torch.tensor(3.0)),
        lambda x: dist.Poisson(0.2 + 0 * x),
        r"site 'z' \(Poisson\) has no finite number of values",
    ),
}


@pytest.mark.parametrize(("prior", "of_x", "reason"), STAYING.values(), ids=STAYING)
def test_pairs_that_cannot_climb_say_why(prior, of_x, reason):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior().expand([len(x)]))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", of_x(x))

    report = quiet(model, guide, torch.tensor([1.0, 2.5]))
    assert set(report.route) == {"encoder"}
    assert re.search(f"all data stay at the encoder: {reason}", report.summary())


def test_programs_that_demand_all_their_rows():
    """A hard-wired plate, and a parameter for each datum: rows climb among the others."""
    n = len(X)
    scale = 0.4 * torch.ones(n, 1, dtype=torch.float64)

    def model(x):
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ ORACLE.loadings.T + ORACLE.bias, ORACLE.noise_scale).to_event(1), obs=x)

    def guide(x):
        q = ORACLE.posterior(x)
        with pyro.plate("data", n):
            spread = pyro.param("scale", scale)
            pyro.sample("z", dist.Normal(q.mean, spread * q.stddev).to_event(1))

    report = quiet(model, guide, X)
    assert "Laplace" in report.route
    repaired = torch.tensor([route == "Laplace" for route in report.route])
    assert (report.log_evidence - ORACLE.log_evidence(X))[repaired].abs().max() < 1e-8


def test_few_particles_are_not_biased_upwards():
    """Mean over data and seeds of p-hat / p within 4 standard errors of one, at K = 50."""
    ratios = []
    for seed in range(5):
        x, _ = HEAVY.draw(100, seed=seed)
        report = quiet(HEAVY.model, HEAVY.mean_field_guide(0.8), x, num_particles=50, seed=seed)
        ratios.append((report.log_evidence - HEAVY.log_evidence(x)).exp())
    ratio = torch.cat(ratios)
    assert ratio.mean() < 1 + 4 * ratio.std() / len(ratio) ** 0.5


def test_an_unknown_method():
    with pytest.raises(InputError, match="method is one of importance, laplace, adaptive, auto, annealed, got 'ais'"):
        quiet(ORACLE.model, ORACLE.guide, X, method="ais")


def test_what_the_guide_gave_is_kept_where_no_gradient_is_known():
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z / 2

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("no derivative of this")

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(Halved.apply(z), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.2))

    report = quiet(model, guide, torch.tensor([0.3, -1.0]))
    plain = quiet(model, guide, torch.tensor([0.3, -1.0]), method="importance")
    assert torch.equal(report.log_evidence, plain.log_evidence)
    assert "all data stay at the encoder: no derivative of this" in report.summary()


def test_the_routes_of_blocks_are_those_of_their_data():
    guide = pv.widened(HEAVY.guide, 0.4)
    x, _ = HEAVY.draw(30, seed=1)
    report = quiet(HEAVY.model, guide, x, batch_size=8)
    assert len(report.route) == 30 and report.route.count("Laplace") > 15
    assert ((report.log_evidence - HEAVY.log_evidence(x)).abs() < 5 * report.mc_se_log_evidence + 1e-6).all()


# -------------------------------------------------------------------------------------------- posteriors that are hard

DOUBLE = torch.float64


def _pole():
    """The density is infinite at the posterior's mode, z = 0, and yet integrable."""

    def likelihood(z):
        return dist.Normal(z, z.abs().sqrt())

    z = torch.linspace(0, 4, 40_001, dtype=DOUBLE)  # z = s^2 takes the pole out
    log_joint = -z.pow(4) / 2 - z.square() / 2 + math.log(4 / (2 * math.pi))
    return likelihood, torch.zeros(3, dtype=DOUBLE), torch.trapezoid(log_joint.exp(), z).log().expand(3)


def _flat():
    """The Hessian is singular at the posterior's mode, z = 0."""
    x = torch.full((3,), 0.125, dtype=DOUBLE)

    def likelihood(z):
        return dist.Normal(z.square(), torch.tensor(0.5, dtype=DOUBLE))

    z = torch.linspace(-8, 8, 40_001, dtype=DOUBLE)
    log_joint = dist.Normal(0.0, 1.0).log_prob(z) + likelihood(z).log_prob(x[0])
    return likelihood, x, torch.trapezoid(log_joint.exp(), z).log().expand(3)


@pytest.mark.parametrize("build", [_pole, _flat])
@pytest.mark.parametrize("num_data", [1, 3])
def test_modes_that_have_no_curvature(build, num_data):
    likelihood, x, exact = build()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), dtype=DOUBLE), 1.0))
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 + 0 * x, 0.25))

    report = quiet(model, guide, x[:num_data], num_particles=4000)
    off = (report.log_evidence - exact[:num_data]).abs()
    assert ((off < 4 * report.mc_se_log_evidence + 1e-6) | report.unreliable).all()
    assert num_data == 1 or not report.unreliable.all()


def _wide(num_dims, off):
    """As many coordinates as are wanted, the guide beside the posterior by so much."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(num_dims), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + off, 0.5**0.5).to_event(1))

    x = torch.randn(2, num_dims, generator=torch.Generator().manual_seed(0))
    return model, guide, x, dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1)


def test_so_many_coordinates_that_no_curvature_is_looked_at():
    *pair, x, exact = _wide(5000, 0.1)
    report = quiet(*pair, x, num_particles=100, method="adaptive")
    assert set(report.route) == {"encoder"} and report.unreliable.all() and (report.log_evidence < exact).all()
    *pair, x, exact = _wide(250, 0.1)
    report = quiet(*pair, x, num_particles=100)
    assert set(report.route) == {"annealed"} and (report.cost > 20_000).all()
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence + 1e-3).all()


def test_with_fewer_than_25_particles_data_climb_but_nothing_vouches_for_them():
    oracle = pv.oracles.mixture_prior(1, 2)
    x, _ = oracle.draw(10, seed=0)
    with pytest.warns(UntrustedEvidence, match=r"undefined for fewer than 25 particles.*raise num_particles"):
        report = pv.evaluate(oracle.model, pv.widened(oracle.guide, 0.4), x, num_particles=10, progress=False)
    assert set(report.route) != {"encoder"}
    assert report.unreliable[report.num_weights < 25].all() and (report.num_weights < 25).any()


@pytest.mark.parametrize("num_particles", [2, 3, 4, 10])
def test_few_draws_have_an_error(num_particles):
    x, _ = HEAVY.draw(20, seed=1)
    report = quiet(HEAVY.model, HEAVY.mean_field_guide(), x, num_particles=num_particles, method="adaptive")
    assert set(report.route) != {"encoder"} and report.mc_se_log_evidence.isfinite().all()


def test_a_density_that_is_nan_far_out_leaves_the_guides_evidence():
    """The guide hardly draws there, better proposals do."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, (z + 2.5).sqrt()), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.2))

    x = torch.linspace(-1, 1, 30)
    plain, report = (quiet(model, guide, x, method=method) for method in ("importance", "auto"))
    assert report.log_evidence.isfinite().all() and "a density is NaN at draws" in report.summary()
    stays = torch.tensor([route == "encoder" for route in report.route])
    assert stays.any() and torch.equal(report.log_evidence[stays], plain.log_evidence[stays])
    assert (report.cost[stays] > 2000).all()  # what was tried is counted


def test_where_no_rung_beats_the_guide_data_are_annealed_from_it():
    """Two modes far apart in one of many coordinates, and a guide that draws from both, too wide in the others."""
    ends, zeros = torch.tensor([-6.0, 6.0]), torch.zeros(23)

    def two_sided(scale, n=()):
        modes = dist.Normal(ends.expand(*n, 2), 0.5)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(*n, 2)), modes)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("side", two_sided(0.5))
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("side", two_sided(0.5, (len(x),)))
            pyro.sample("z", dist.Normal(x / 2 + 0.5, 0.6).to_event(1))

    x = torch.randn(4, 23, generator=torch.Generator().manual_seed(1))
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1)
    report = quiet(model, guide, x)
    assert "annealed" in report.route
    ok = ~report.unreliable
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence)[ok].all()


def test_a_sum_over_one_value_is_exact_and_reliable():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(1)))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(len(x), 1)))

    report = quiet(model, guide, torch.linspace(-1, 1, 5))
    assert not report.unreliable.any()


def test_runs_of_every_value_of_a_discrete_latent_are_counted():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(8)))
            z = pyro.sample("z", dist.Normal(k.float(), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(len(x), 8)))
            pyro.sample("z", dist.Normal(x, 0.1))

    x = torch.linspace(0, 7, 10)
    for budget in (1300, 3000, 30_000):
        assert (quiet(model, guide, x, budget=budget).cost <= budget).all()
    report = quiet(model, guide, x)
    assert (report.cost[torch.tensor([route != "encoder" for route in report.route])] > 8 * 1000).all()


def test_a_posterior_on_the_edge_of_a_support_is_doubted():
    """Ten of ten under a Beta prior that piles up at 1: most of the mass is nearer to it than float32 reaches."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(0.05, 0.05).expand([len(x)]))
            pyro.sample("x", dist.Binomial(10, z), obs=x)

    def guide(x):
        base = dist.Normal(4 * (x - 5) / 5, 1.5)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, dist.transforms.SigmoidTransform()))

    x = torch.tensor([10.0, 10.0, 5.0, 4.0])
    report = quiet(model, guide, x)
    counts = torch.tensor([math.comb(10, int(k)) for k in x]).double().log()
    beta = (
        torch.lgamma(x + 0.05) + torch.lgamma(10.05 - x) - math.lgamma(10.1) + math.lgamma(0.1) - 2 * math.lgamma(0.05)
    )
    off = (report.log_evidence - counts - beta.double()).abs()
    assert ((off < 4 * report.mc_se_log_evidence + 0.01) | report.unreliable).all()
    assert report.unreliable[:2].all() and not report.unreliable[2:].any()
    assert "edge of a support" in report.summary()


def test_few_effective_draws_vouch_for_nothing():
    oracle = ppca(20, 3)
    report = quiet(oracle.model, pv.widened(oracle.guide, 1.2), X[:10])
    weak = report.columns | {"ess": torch.full_like(report.ess, 3.0)}
    assert not report.unreliable.any() and pv.Report(**{**vars(report), "columns": weak}).unreliable.all()


BUDGETS = [800, 900, 1500, 2000, 2600, 3000, 3400, 4000, 5000]


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_is_missed_is_said_within_any_budget_that_pays_for_a_look(budget):
    """Signs of six latents, of which the guide knows one exactly, and says nothing is wrong."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(6), 2.0).expand(x.shape).to_event(1))
            pyro.sample("x", dist.Normal(z.abs(), 0.5).to_event(1), obs=x)

    def guide(x):
        variance = 1 / (2.0**-2 + 0.5**-2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(4 * variance * x, variance**0.5).to_event(1))

    x = 2 + torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    report = quiet(model, guide, x, num_particles=500, budget=budget)
    truth = (math.log(2) + dist.Normal(0.0, math.hypot(2.0, 0.5)).log_prob(x.double())).sum(-1)
    assert (report.cost <= budget).all()
    assert (report.unreliable | ((report.log_evidence - truth).abs() < 4 * report.mc_se_log_evidence + 1e-3)).all()
    stays = torch.tensor([route == "encoder" for route in report.route])
    assert stays.all() == (budget < 2000) and report.pareto_k[stays].isnan().all()
    torch.testing.assert_close(report.kl_posterior, report.log_evidence - report.elbo, rtol=1e-12, atol=1e-12)
