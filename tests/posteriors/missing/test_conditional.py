"""Conditional inference where conditionals are known: means, covariances, nats and coverage; and by other routes."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.forked import forked

import pyrovae as pv
from pyrovae.base.errors import InputError

GUIDES = ("exact", "narrow", "complete")


def some_missing(problem):
    """The first rows in which an entry is missing."""
    return [row for row in range(1, 60) if not problem.observed[row].all()]


@pytest.mark.parametrize("name", GUIDES)
def test_means_and_covariances_are_those_of_the_conditional(problem, completions, name):
    found, away, spread = completions[name], [], []
    for row in some_missing(problem):
        exact = problem.exact(row)
        draws = found.draws[:, row][:, exact.missing]
        error = draws.std(0) * (1 / len(draws) + 1 / found.report.ess[row]) ** 0.5
        away.append((draws.mean(0) - exact.mean) / error)
        sd = exact.covariance.diagonal().sqrt()
        spread.append(((draws.T.cov().reshape(len(sd), -1) - exact.covariance) / (sd[:, None] * sd)).flatten())
        assert ((found.mean[row][exact.missing] - exact.mean).abs() < 4 * error).all()  # which is better than draws'
    # 4 standard errors, and their mean square near one.
    assert torch.cat(away).abs().max() < 4
    assert 0.5 < torch.cat(away).square().mean() < 1.5
    assert torch.cat(spread).abs().max() < 4 * math.sqrt(2 / 300)


@pytest.mark.parametrize("name", GUIDES)
def test_the_nats_of_what_was_hidden(problem, completions, name):
    found = completions[name]
    exact = torch.stack([problem.exact(row).log_density for row in range(len(found))])
    away = (found.density.log_density - exact).abs()
    assert (away <= 4 * found.density.mc_se_log_density + 1e-9).all()  # 4 standard errors
    assert found.density.log_density[0] == 0  # of no entry
    assert found.fraction_unreliable == found.density.fraction_unreliable == 0
    rough = (found.by_draws - exact)[~problem.observed[: len(found)].all(1)]
    assert rough.median().abs() < 0.1 and rough.mean() < 0.1  # by 300 draws alone, not too high
    hidden = pv.hide(problem.x[: len(found)], problem.observed[: len(found)])
    evidence = problem.oracle.log_evidence(hidden)
    error = found.report.mc_se_log_evidence
    assert ((found.report.log_evidence - evidence).abs() <= 4 * error + 1e-9).all()


def test_intervals_cover(problem, completions):
    draws, missing = completions["exact"].draws, ~problem.observed
    low, high = (draws.quantile(q, 0) for q in (0.05, 0.95))
    inside = ((low <= problem.x) & (problem.x <= high))[missing].double()
    assert 0.88 < inside.mean() < 0.92


def test_what_was_observed_stays_and_nothing_observed_is_the_prior(problem, completions):
    found = completions["exact"]
    assert torch.equal(found.draws[:, problem.observed], problem.x.expand(300, -1, -1)[:, problem.observed])
    assert not found.sd[problem.observed].any()
    program, draws = problem.oracle.complete, found.draws[:, 1]
    sd = (program.loadings.square().sum(1) + program.noise_scale.square()).sqrt()
    # 4 standard errors of the mean and of the standard deviation of normals.
    assert ((draws.mean(0) - program.bias).abs() < 4 * sd / 300**0.5).all()
    assert ((draws.std(0) - sd).abs() < 4 * sd / 600**0.5).all()
    assert found.report.log_evidence[1].abs() < 1e-9


def test_a_guide_of_complete_data_proposes_by_a_guess(completions):
    assert completions["complete"].is_filled and not completions["narrow"].is_filled
    assert "does not read missing entries" in completions["complete"].summary()
    assert set(completions["narrow"].route) - {"encoder"}  # others had to be found


def test_chains_agree_with_resampled_draws(problem, completions):
    rows = slice(2, 12)
    pair = problem.oracle.complete.model, problem.oracle.complete.guide
    found = pv.conditional(*pair, problem.x[rows], problem.observed[rows], method="gibbs", num_draws=800)
    assert found.report is None and set(found.route) == {"gibbs"}
    for row in range(10):
        exact = problem.exact(row + 2)
        sd, ess = exact.covariance.diagonal().sqrt(), found.mixing.ess[row].clamp(max=800)
        # 4 standard errors of a mean of so many effective draws as log p(x_o, z) has.
        assert ((found.draws[:, row][:, exact.missing].mean(0) - exact.mean).abs() < 4 * sd / ess.sqrt()).all()
        drawn = completions["exact"].draws[:, row + 2][:, exact.missing]
        both = sd * (1 / ess + 1 / 300).sqrt()
        assert ((found.draws[:, row][:, exact.missing].mean(0) - drawn.mean(0)).abs() < 4 * both).all()
    assert "Metropolis-within-Gibbs, chains of each datum: 4" in found.summary()


def test_annealed_chains_hand_their_ends_back(problem):
    rows = slice(2, 8)
    found = pv.conditional(
        problem.oracle.complete.model,
        problem.oracle.complete.guide,
        problem.x[rows],
        problem.observed[rows],
        method="annealed",
        num_draws=300,
    )
    assert set(found.route) == {"annealed"}
    for row in range(6):
        exact = problem.exact(row + 2)
        error = found.draws[:, row][:, exact.missing].std(0) / found.report.ess[row].clamp(max=300).sqrt()
        assert ((found.mean[row][exact.missing] - exact.mean).abs() < 4 * error).all()  # 4 standard errors


@pytest.mark.parametrize("num_latents", [6, 24])
@pytest.mark.parametrize("odds", [0.5, 0.9])
def test_modes_that_the_first_guess_does_not_lead_to_are_found(num_latents, odds):
    oracle, guide = forked(num_latents, odds)
    x, _ = oracle.draw(20, seed=0)
    observed = torch.arange(num_latents) > 1  # nothing of the first two, which say the mode
    found = pv.conditional(oracle.model, guide, x, observed, num_draws=1000)
    identity = torch.eye(num_latents).double()
    known, all_of_it = oracle.marginal(identity[2:]).log_prob(x[:, 2:]), oracle.log_evidence(x)
    error, nats = found.report.log_evidence - known, found.density.log_density - (all_of_it - known)
    # 4.5 standard errors, of 20 data; half of the mass is 0.69 nat.
    assert (error.abs() <= 4.5 * found.report.mc_se_log_evidence + 1e-6).all() and not found.unreliable.any()
    assert (nats.abs() <= 4.5 * found.density.mc_se_log_density + 1e-6).all()
    first = (found.draws[:, :, 0] > found.draws[:, :, 1]).double().mean()
    # 20 x 1000 draws, which count for fewer by their weights: 5 standard errors of 2000.
    assert (first - odds).abs() < 5 * (odds * (1 - odds) / 2000) ** 0.5


@pytest.mark.parametrize("name", ["bernoulli mixture", "gaussian mixture"])
def test_classes_are_summed_out_and_drawn_by_their_probabilities(name):
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(30, seed=0)
    observed = pv.data.mcar(x.shape, 0.5, seed=1)
    found = pv.conditional(oracle.model, oracle.guide, x, observed, num_draws=400)
    assert set(found.route) == {"summed"}
    (site,) = found.values
    num_classes = int(found.values[site].max()) + 1
    shares = torch.stack([(found.values[site] == k).double().mean(0) for k in range(num_classes)])
    # What each class says of the observed entries, by the evidence of the data with that class alone.
    log_joint = torch.stack([class_density(oracle, pv.hide(x, observed), k) for k in range(num_classes)])
    exact = log_joint.softmax(0)
    assert ((shares - exact).abs() <= 4.5 * (exact * (1 - exact) / 400).sqrt() + 1 / 400).all()  # 4.5 standard errors
    torch.testing.assert_close(found.report.log_evidence, log_joint.logsumexp(0), rtol=1e-6, atol=1e-6)


def class_density(oracle, x, k):
    model = pv.observed_entries(oracle.model)
    run = pyro.poutine.trace(pyro.poutine.condition(model, data={"k": torch.full((len(x),), k)})).get_trace(x)
    run.compute_log_prob()
    return sum(site["log_prob"] for site in run.nodes.values() if site["type"] == "sample" and "log_prob" in site)


def test_classes_and_continuous_latents_together():
    """A mixture of two planes: the class goes with its own slope, and each datum's two draws fit each other."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=torch.zeros(2)))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = torch.stack([z, (2.0 * k - 1) * z], -1)
            pyro.sample("x", dist.Normal(loc, 0.1).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=torch.zeros(len(x), 2)))
            pyro.sample("z", dist.Normal(x[:, 0].nan_to_num(), 0.3))

    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, math.nan]])
    found = pv.conditional(model, guide, x, num_draws=400)
    k, second = found.values["k"], found.draws[:, 2, 1]
    assert (k[:, 0] == 1).all() and (k[:, 1] == 0).all()
    assert abs(k[:, 2].double().mean() - 0.5) < 4 * (0.25 / 400) ** 0.5  # 4 standard errors
    assert ((second > 0) == (k[:, 2] == 1)).all()
    torch.testing.assert_close(found.values["z"][:, 2], second.abs(), rtol=0, atol=0.6)


def test_labels_are_passed_on_as_they_are():
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            loc = (z + y[:, None]).expand(*z.shape[:-1], 3)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x.nan_to_num() - y[:, None]).mean(-1, keepdim=True) / 2, 1.0).to_event(1))

    x, y = torch.zeros(4, 3), torch.tensor([0.0, 0.0, 10.0, 10.0])
    x = x + y[:, None]
    found = pv.conditional(model, guide, (x, y), torch.tensor([True, True, False]))
    torch.testing.assert_close(found.mean[:, 2], y, rtol=0, atol=0.4)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"observed": torch.ones(6)}, "observed must hold booleans, True for an entry that is observed, got float32"),
        ({"observed": torch.ones(5).bool()}, r"observed must have the shape of the data, \(4, 6\), or \(6,\) for all"),
        ({"observed": 3}, "observed must hold booleans, True for an entry that is observed, got int"),
        (
            {"method": "gibs"},
            "method is one of importance, laplace, adaptive, auto, annealed, gibbs, got 'gibs' did you",
        ),
        ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(problem, how, message):
    with pytest.raises(InputError, match=message):
        pv.conditional(problem.oracle.complete.model, problem.oracle.guide, problem.x[:4], **how)


def test_a_part_of_an_event_without_a_masked_form_is_refused_by_name():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("words", pv.families.multinomial(5).build(1, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    with pytest.raises(InputError, match="site 'words': Multinomial has no density of a part of an event"):
        pv.conditional(model, guide, torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([True, False, True]))
