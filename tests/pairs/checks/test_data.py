"""Data outside of a support are refused by row, unless some latent allows them; a fit wants them possible at all."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.moving import EXACT, WIDE, X, above, beyond, ones, pair, up_to

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.checks import looks
from pyrovae.pairs.checks.data import check_support
from pyrovae.pairs.context import isolated
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.traces import plain_traces
from pyrovae.programs.distributions.exponential import Bernoulli, ContinuousBernoulli

ADVICE = {  # distribution -> what to do about grey or large values
    "bernoulli": (dist.Bernoulli(0.5), 0.5, r"at \(0,\); binarize the data \(.*'threshold'\)$"),
    "ours": (
        Bernoulli(logits=torch.zeros(1)),
        0.5,
        "; binarize the data .*, or use the continuous Bernoulli for values",
    ),
    "continuous": (ContinuousBernoulli(torch.zeros(1)), 16.0, r"; divide the data by their maximum \(divisor=\)$"),
    "poisson": (dist.Poisson(1.0), 0.5, r"at \(0,\)$"),
}


@pytest.mark.parametrize(("fn", "value", "message"), ADVICE.values(), ids=ADVICE)
def test_data_outside_a_support_come_with_advice(fn, value, message):
    site = {"value": torch.tensor([value]), "fn": fn, "mask": None}
    with pytest.raises(InputError, match=message):
        check_support("x", site)


# ----------------------------------------------------------------------------------- supports that move with a latent


def log_evidence(model, guide, x, **settings):
    return pv.evaluate(model, guide, x, num_particles=20_000, progress=False, **settings)


def test_draws_that_rule_a_datum_out_weigh_nothing():
    """4 standard errors of each datum; p(x) = exp(-x)."""
    report = log_evidence(*WIDE, X)
    assert ((report.log_evidence + X).abs() < 4 * report.mc_se_log_evidence).all()
    assert (report.elbo == -math.inf).all() and (report.reconstruction == -math.inf).all()
    assert report.kl_prior.isfinite().all()


def test_a_density_that_goes_on_outside_does_not_count_there():
    """x = z + an exponential: torch's density of it below z is above one."""
    guide = lambda x: dist.Normal(x - 1, 1.0)  # noqa: E731
    report = log_evidence(*pair(beyond, guide, lambda: dist.Normal(torch.tensor(0.0), 1.0)), X)
    exact = 0.5 - X + torch.special.log_ndtr(X - 1)
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()


@pytest.mark.parametrize("strategy", ["vectorized", "tiled", "looped"])
def test_so_it_is_however_particles_are_run(strategy):
    with isolated(*WIDE) as (model, guide, _):
        torch.manual_seed(0)
        terms = Particles(model, guide, (X,), strategy=strategy).log_terms(200)
    impossible = terms.likelihood["x"] == -math.inf
    assert impossible.any() and not impossible.all()
    assert terms.likelihood["x"][~impossible].isfinite().all()


def test_one_particle_of_one_datum_at_a_time():
    report = pv.evaluate(*WIDE, X, num_particles=100, vectorize=False, progress=False)
    assert ((report.log_evidence + X).abs() < 4 * report.mc_se_log_evidence).all()


def test_a_guide_whose_support_moves_with_the_datum_is_exact():
    report = pv.evaluate(*EXACT, X, num_particles=50, progress=False)
    torch.testing.assert_close(report.elbo.float(), -X)
    assert (report.pareto_k == -math.inf).all()


def moved_pareto(z):
    return dist.Pareto(z, 2.0)


OUTSIDE = {  # likelihood, data, which value is named
    "below a bound that stands": (up_to, [1.0, -0.5], r"Uniform .*, the first is -0.5 at \(1,\)"),
    "below one that moves": (moved_pareto, [1.0, -3.0], r"Pareto .*, the first is -3 at \(1,\)"),
    "no number": (up_to, [math.nan, 1.0], r"Uniform .*, the first is nan at \(0,\)"),
    "below a shift that stands": (
        lambda z: above(dist.Exponential(z), 2.0 + 0 * z),
        [3.0, 1.0],
        r"\(AffineTransform of Exponential, from 0\), the first is 1 at \(1,\)",
    ),
    "half a count": (
        lambda z: dist.Binomial(z.round().detach() + 3, torch.tensor(0.5)),
        [0.0, 0.5],
        r"Binomial .* whole numbers\), the first is 0.5 at \(1,\)",
    ),
}


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize(("likelihood", "data", "message"), OUTSIDE.values(), ids=OUTSIDE)
def test_data_that_no_latent_allows_are_refused_by_row(likelihood, data, message, validation):
    model, guide = pair(likelihood, lambda x: dist.Gamma(2 * ones(x), 1.0))
    for measure in (pv.evaluate, pv.annealed_evidence, pv.predictive_check):
        with pyro.validation_enabled(validation), pytest.raises(InputError, match=rf"site 'x': 1 of 2 .*{message}"):
            measure(model, guide, torch.tensor(data), progress=False)


def test_the_looks_leave_the_random_numbers_as_they_are():
    with isolated(*WIDE) as (model, guide, _):
        torch.manual_seed(3)
        outside = plain_traces(model, guide, (X,)).joint["x"]["fn"].high < X
        expected = torch.get_rng_state()
        torch.manual_seed(3)
        Particles(model, guide, (X,), strategy="looped")
        assert outside.any() and torch.equal(torch.get_rng_state(), expected)


def test_a_fit_says_what_to_draw_instead():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(2 + x, pyro.param("rate", torch.tensor(1.0)).expand(len(x))))

    message = (
        r"site 'x': \d of 4 rows.*, are impossible under latents that the guide drew: Uniform has no density there"
    )
    with pytest.raises(InputError, match=message + r".*AffineTransform\(loc=x, scale=1\)"):
        pv.fit(WIDE[0], guide, X, epochs=1, progress=False)


def test_a_guide_that_seldom_rules_a_datum_out_is_refused_before_the_first_step():
    """One draw in a hundred; the run over all data may well miss it."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(x.log() + 2.33, pyro.param("scale", torch.tensor(1.0))))

    with pytest.raises(InputError, match=r"site 'x': .* are impossible under latents that the guide drew"):
        pv.fit(WIDE[0], guide, X, epochs=1, progress=False)


def test_observations_that_are_computed_from_latents_want_no_end():
    def model(x, likelihood):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", likelihood(z), obs=x - z)

    below = dist.TransformedDistribution(dist.Exponential(ones(X)), [torch.distributions.AffineTransform(X, -1.0)])

    def guide(x, _):
        with pyro.plate("data", len(x)):
            pyro.sample("z", below)

    data = X, lambda z: dist.Exponential(torch.ones_like(z))
    with isolated(model, guide) as (p, q, _):
        with pytest.raises(InputError, match=r"site 'x' observes something that changes with the latents, and Exponen"):
            looks.check_weights(Particles(p, q, data).shown)
        real = Particles(p, lambda x, _: guide_of_reals(x), (X, lambda z: dist.Normal(0 * z, 1.0)))
        assert real.log_terms(3).likelihood["x"].isfinite().all()


def guide_of_reals(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))
