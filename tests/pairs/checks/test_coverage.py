"""Where programs draw: guides narrower than the prior are refused, draws outside it weigh nothing, edges are named."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from examples.moving import EXACT, above, up_to
from examples.moving import X as BOUNDS
from examples.moving import pair as moving_pair

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.checks import looks
from pyrovae.pairs.checks.coverage import check_guide_covers, check_off_edges
from pyrovae.pairs.context import isolated
from pyrovae.pairs.particles import Particles

X = torch.linspace(-0.8, 0.8, 5)
BINS = 200_000


def pair(prior, guide, likelihood=lambda z: dist.Normal(z, 0.5)):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", likelihood(z), obs=x)

    def q(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    return model, q


def ones(x):
    return torch.ones(len(x))


def normal(x, scale=1.0):
    return dist.Normal(x, scale)


def log_evidence(prior, low, high):
    """log p(x) under x ~ N(z, 1/2) by the midpoint rule."""
    width = (high - low) / BINS
    z = low + (torch.arange(BINS).double() + 0.5) * width
    log_joint = prior.log_prob(z)[:, None] + dist.Normal(z[:, None], 0.5).log_prob(X.double())
    return log_joint.logsumexp(0) + math.log(width)


ONE = torch.tensor(1.0).double()
WIDE = {  # prior of the model, the same alone in double, its least and greatest value
    "exponential": (lambda x: dist.Exponential(ones(x)), dist.Exponential(ONE), 0.0, 30.0),
    "half-normal": (lambda x: dist.HalfNormal(ones(x)), dist.HalfNormal(ONE), 0.0, 30.0),
    "gamma": (lambda x: dist.Gamma(2 * ones(x), 1.0), dist.Gamma(2 * ONE, ONE), 0.0, 30.0),
    "weibull": (lambda x: dist.Weibull(ones(x), 2.0), dist.Weibull(ONE, 2 * ONE), 0.0, 30.0),
    "pareto": (lambda x: dist.Pareto(0.5 * ones(x), 3.0), dist.Pareto(0.5 * ONE, 3 * ONE), 0.5, 30.0),
    "uniform": (lambda x: dist.Uniform(-0.5 * ones(x), 1.0), dist.Uniform(-ONE / 2, ONE), -0.5, 1.0),
    "beta": (lambda x: dist.Beta(2 * ones(x), 2.0), dist.Beta(2 * ONE, 2 * ONE), 0.0, 1.0),
    "angle": (lambda x: dist.VonMises(0 * ones(x), 1.0), dist.VonMises(0 * ONE, ONE), -math.pi, math.pi),
    "truncated by a transform": (
        lambda x: dist.TransformedDistribution(dist.Uniform(0 * ones(x), 1.0), [T.AffineTransform(-0.5, 1.0)]),
        dist.Uniform(-ONE / 2, ONE / 2),
        -0.5,
        0.5,
    ),
}


@pytest.mark.parametrize(("prior", "alone", "low", "high"), WIDE.values(), ids=WIDE)
def test_draws_outside_the_prior_weigh_nothing(prior, alone, low, high):
    """A normal guide for a prior of part of the line: log p(x) by quadrature, within 4 standard errors of each datum."""
    report = pv.evaluate(*pair(prior, normal), X, num_particles=20_000)
    assert ((report.log_evidence - log_evidence(alone, low, high)).abs() < 4 * report.mc_se_log_evidence).all()
    assert (report.elbo == -math.inf).all()


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("measure", [pv.annealed_evidence, pv.gaps])
def test_a_path_may_not_cross_the_edge_of_a_support(name, measure):
    with pytest.raises(InputError, match=r"site 'z'.*(outside the support of the prior|has no bijection)"):
        measure(*pair(WIDE[name][0], normal), X)


@pytest.mark.parametrize("prior", ["exponential", "uniform", "beta"])
def test_guides_of_the_same_support_are_inside(prior):
    makers = {"exponential": lambda x: dist.Gamma(ones(x), 1.0), "uniform": WIDE["uniform"][0], "beta": WIDE["beta"][0]}
    with isolated(*pair(WIDE[prior][0], makers[prior])) as (model, guide, _):
        particles = Particles(model, guide, (X,), strategy="vectorized")
        looks.check_inside(particles.shown)


NARROW = {  # prior, guide
    "half by a transform": (
        lambda x: dist.Uniform(0 * ones(x), 1.0),
        lambda x: dist.TransformedDistribution(dist.Beta(ones(x), 1.0), [T.AffineTransform(0.0, 0.5)]),
    ),
    "above a threshold": (
        normal,
        lambda x: dist.TransformedDistribution(normal(x), [T.ExpTransform(), T.AffineTransform(-1.0, 1.0)]),
    ),
    "an angle for a real": (normal, lambda x: dist.VonMises(x, 1.0)),
    "a class that is never drawn": (
        lambda x: dist.Categorical(torch.ones(len(x), 3)),
        lambda x: dist.Categorical(torch.tensor([0.5, 0.5, 0.0]).expand(len(x), 3)),
    ),
    "a coin with one side": (
        lambda x: dist.Bernoulli(0.5 * ones(x)),
        lambda x: dist.Bernoulli(ones(x)),
    ),
}


@pytest.mark.parametrize(("prior", "guide"), NARROW.values(), ids=NARROW)
def test_narrow_guides_are_refused(prior, guide):
    programs = pair(prior, guide, lambda z: dist.Normal(z.float() * 0.01, 2.0))
    with pytest.raises(InputError, match=r"site 'z': the guide \(.*cannot draw all that the prior"):
        with isolated(*programs) as (model, q, _), pyro.validation_enabled(False):
            torch.manual_seed(0)
            particles = Particles(model, q, (10 * X,), strategy="vectorized")
            check_guide_covers(particles.shown)


def test_a_guide_may_be_as_narrow_as_the_posterior():
    """x ~ U(z - 1, z + 1) leaves z within 1 of x: a guide that draws there alone is exact."""
    prior, guide = lambda x: dist.Uniform(-5 * ones(x), 5.0), lambda x: dist.Uniform(x - 1, x + 1)
    report = pv.evaluate(*pair(prior, guide, lambda z: dist.Uniform(z - 1, z + 1)), X, num_particles=50)
    torch.testing.assert_close(report.log_evidence, torch.full((5,), math.log(0.1)).double(), rtol=0, atol=1e-5)


def test_classes_of_probability_zero_weigh_nothing():
    prior = torch.tensor([0.6, 0.4, 0.0])
    likelihood = lambda z: dist.Normal(z.float(), 1.0)  # noqa: E731
    for family in (dist.Categorical, lambda probs: dist.Categorical(logits=probs.log())):
        model, guide = pair(
            lambda x, family=family: family(prior.expand(len(x), 3)),
            lambda x: dist.Categorical(torch.ones(len(x), 3)),
            likelihood,
        )
        report = pv.evaluate(model, guide, X, num_particles=20_000, method="importance")
        exact = (dist.Normal(torch.arange(2.0)[:, None], 1.0).log_prob(X) + prior[:2, None].log()).logsumexp(0)
        assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()
        assert (report.elbo == -math.inf).all()


EDGES = {
    "beta": lambda x: dist.Beta(0.01 * ones(x), 0.01),
    "relaxed": lambda x: dist.RelaxedBernoulli(torch.tensor(0.05), 0.5 * ones(x)),
    "gamma": lambda x: dist.Gamma(0.001 * ones(x), 1.0),
}


@pytest.mark.parametrize("guide", EDGES.values(), ids=EDGES)
def test_draws_that_pile_up_on_an_edge_are_refused(guide):
    torch.manual_seed(0)
    with pytest.raises(
        InputError, match=r"site 'z': \d+\.\d% of the guide's draws .* lie on the edge of their support"
    ):
        pv.evaluate(*pair(guide, guide), X, num_particles=50)


def test_vertices_of_a_simplex_are_edges():
    few = lambda x: dist.Dirichlet(torch.full((len(x), 3), 0.01))  # noqa: E731
    torch.manual_seed(0)
    with pytest.raises(InputError, match="lie on the edge of their support in float32"):
        pv.evaluate(*pair(few, few, lambda z: dist.Normal(z[..., 0], 1.0)), X, num_particles=50)


@pytest.mark.parametrize("guide", [lambda x: dist.Uniform(0 * ones(x), 1.0), lambda x: dist.HalfNormal(ones(x))])
def test_common_families_are_off_their_edges(guide):
    with isolated(*pair(guide, guide)) as (model, q, _):
        particles = Particles(model, q, (X,), strategy="vectorized")
        check_off_edges(particles.example, particles.structure)


@pytest.mark.parametrize("seed", range(6))
def test_what_piles_up_little_is_not_refused_by_chance(seed):
    """Jeffreys' prior has 3 of 10,000 draws on its edges in float32."""
    jeffreys = lambda x: dist.Beta(0.5 * ones(x), 0.5)  # noqa: E731
    torch.manual_seed(seed)
    with isolated(*pair(jeffreys, jeffreys)) as (model, guide, _):
        check = partial(looks.check_edges, Particles(model, guide, (X,), strategy="vectorized").shown)
        for _ in range(20):
            check()


def test_a_family_covers_itself_however_heavy_its_tails():
    pairs = pair(lambda x: dist.InverseGamma(0.01 * ones(x), 0.01), lambda x: dist.InverseGamma(2 * ones(x), 2.0))
    with isolated(*pairs) as (model, guide, _):
        looks.check_supports(Particles(model, guide, (X,), strategy="vectorized").shown)


def test_a_logit_that_underflows_is_no_probability_of_zero():
    programs = pair(
        lambda x: dist.Categorical(logits=torch.tensor([0.0, -120.0]).expand(len(x), 2)),
        lambda x: dist.Categorical(torch.ones(len(x), 2)),
        lambda z: dist.Normal(z.float(), 1.0),
    )
    assert pv.evaluate(*programs, X, num_particles=200).elbo.isfinite().all()


SELDOM = {  # prior, guide: what the guide cannot draw the prior seldom does, but a datum may lie there
    "beyond four": (lambda x: dist.Normal(0 * x, 1.0), lambda x: dist.Uniform(0 * x - 4, 4.0)),
    "a long tail": (lambda x: dist.Gamma(2 * ones(x), 1.0), lambda x: dist.Uniform(0 * x, 12.0)),
    "large counts": (lambda x: dist.Poisson(ones(x)), lambda x: dist.Binomial(6, 0.5 * ones(x))),
    "a rare class": (
        lambda x: dist.Categorical(torch.tensor([0.6999, 0.3, 0.0001]).expand(len(x), 3)),
        lambda x: dist.Categorical(torch.tensor([0.5, 0.5, 0.0]).expand(len(x), 3)),
    ),
    "a rare coin": (lambda x: dist.Bernoulli(1e-4 * ones(x)), lambda x: dist.Bernoulli(0 * x)),
    "a logit of minus infinity": (
        lambda x: dist.Categorical(torch.ones(len(x), 2)),
        lambda x: dist.Categorical(logits=torch.tensor([0.0, -math.inf]).expand(len(x), 2)),
    ),
}


@pytest.mark.parametrize(("prior", "guide"), SELDOM.values(), ids=SELDOM)
def test_what_the_prior_seldom_draws_counts_too(prior, guide):
    with pytest.raises(InputError, match=r"site 'z': the guide \(.*cannot draw all that the prior"):
        pv.evaluate(*pair(prior, guide, lambda z: dist.Normal(z.float(), 1.0)), X, num_particles=50)


def test_a_later_block_is_looked_at_too():
    x = torch.tensor([0.0, 1.0, 0.5, -0.5, 2.0, 3.0, 2.5, 3.0])
    programs = pair(lambda x: dist.Uniform(0 * x - 2, 2.0), lambda x: dist.Uniform(0 * x - 2, 1.0 + (x < 1.5).float()))
    with pytest.raises(InputError, match="site 'z': the guide"):
        pv.evaluate(*programs, x, num_particles=50, batch_size=4)


def test_a_mixture_of_angles_is_an_angle():
    def circular(x):
        components = dist.VonMises(torch.tensor([-1.0, 1.0]).double().expand(len(x), 2), 2.0)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(x), 2).double()), components)

    report = pv.evaluate(*pair(circular, lambda x: dist.Normal(x, 2.5)), X, num_particles=20_000)
    exact = log_evidence(circular(X[:1]), -math.pi, math.pi)
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()


def on_circle(x):
    return dist.VonMises(0 * ones(x), 0.5)


def at_three(guide):
    """Angles about 3, told by their sine and cosine: a third of each posterior is across the seam."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", on_circle(x))
            pyro.sample("x", dist.Normal(torch.stack([z.cos(), z.sin()], -1), 0.3).to_event(1), obs=x)

    def q(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(torch.atan2(x[:, 1], x[:, 0])))

    angle = torch.tensor([3.0, 3.1, -3.0])
    return model, q, torch.stack([angle.cos(), angle.sin()], -1)


MEASURES = {
    "evaluate": lambda *pair: pv.evaluate(*pair, num_particles=50),
    "fit": lambda *pair: pv.fit(*pair, epochs=1),
    "log_terms": lambda *pair: pv.log_terms(*pair, num_particles=2),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_an_angle_across_the_seam_that_a_guide_on_the_line_misses_is_refused(measure):
    model, guide, x = at_three(lambda centre: dist.Normal(centre, 0.3))
    with pytest.raises(InputError, match=r"site 'z': the guide \(Normal\) draws beyond the support of an angle \(VonM"):
        measure(model, guide, x)


def test_angles_that_wrap_are_taken():
    """log p(x) within 4 standard errors of the midpoint rule over the circle."""
    model, guide, x = at_three(lambda centre: dist.VonMises(centre, 8.0))
    report = pv.evaluate(model, guide, x, num_particles=4000)
    z = (torch.arange(BINS).double() + 0.5) / BINS * 2 * math.pi - math.pi
    points = torch.stack([z.cos(), z.sin()], -1)
    likelihood = dist.Normal(points[:, None], 0.3).log_prob(x.double()).sum(-1)
    log_joint = dist.VonMises(torch.tensor(0.0).double(), torch.tensor(0.5).double()).log_prob(z)[:, None] + likelihood
    exact = log_joint.logsumexp(0) + math.log(2 * math.pi / BINS)
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()


BEYOND = {  # prior, guide, whether the guide reaches beyond the prior's support
    "normal for positive": (lambda x: dist.HalfNormal(ones(x)), lambda x: dist.Normal(x + 9, 0.1), True),
    "gamma for unit": (lambda x: dist.Beta(ones(x), 1.0), lambda x: dist.Gamma(9 * ones(x), 90.0), True),
    "counts for few": (lambda x: dist.Binomial(5, 0.5 * ones(x)), lambda x: dist.Poisson(0.1 * ones(x)), True),
    "its own": (lambda x: dist.HalfNormal(ones(x)), lambda x: dist.Gamma(ones(x), 1.0), False),
    "the line": (lambda x: dist.Normal(0 * x, 1.0), lambda x: dist.StudentT(3.0, x, 1.0), False),
    "classes": (lambda x: dist.Bernoulli(ones(x) / 2), lambda x: dist.Bernoulli(ones(x) / 3), False),
}


@pytest.mark.parametrize(("prior", "guide", "is_beyond"), BEYOND.values(), ids=BEYOND)
def test_an_elbo_that_is_minus_infinity_is_told_though_no_draw_shows_it(prior, guide, is_beyond):
    report = pv.evaluate(*pair(prior, guide, lambda z: dist.Normal(z, 5.0)), X, num_particles=50)
    assert report.elbo.isfinite().all()
    told = "reaches beyond the prior" in report.summary()
    assert told == is_beyond == (report.beyond is not None)


def test_angles_are_told_by_where_they_are_drawn():
    def prior(x):
        return dist.VonMises(0 * x, 0.5)

    programs = pair(prior, lambda x: dist.Normal(0 * x, 0.8), lambda z: dist.Normal(z, 5.0))
    told = pv.evaluate(*programs, X, num_particles=200).beyond
    assert "(Normal, finite reals) reaches beyond the prior (VonMises, -pi to pi)" in told


# ----------------------------------------------------------------------------------- supports that move with a datum


def test_what_the_likelihood_rules_out_need_not_be_covered():
    assert pv.evaluate(*EXACT, BOUNDS, num_particles=20, progress=False).log_evidence.isfinite().all()
    model, guide = moving_pair(up_to, lambda x: dist.Pareto(x, 2.0))
    assert pv.evaluate(model, guide, BOUNDS, num_particles=20, progress=False).log_evidence.isfinite().all()


@pytest.mark.parametrize("seed", range(4))
def test_what_it_allows_must_be_though_most_of_what_is_missed_is_ruled_out(seed):
    """Of the prior's draws below x none matters, of those above x + 3 each does."""
    model, guide = moving_pair(up_to, lambda x: dist.Uniform(x, x + 3))
    with pytest.raises(InputError, match=r"site 'z': the guide \(Uniform.*cannot draw all that the prior"):
        pv.evaluate(model, guide, BOUNDS, num_particles=20, seed=seed, progress=False)


def nested(guide):
    """z ~ Gamma(2, 1), y ~ U(0, z)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2 * ones(x), 1.0))
            y = pyro.sample("y", dist.Uniform(0 * z, z))
            pyro.sample("x", dist.Normal(y, 0.5), obs=x)

    def program(x):
        with pyro.plate("data", len(x)):
            guide(x)

    return model, program


def inwards(x):
    z = pyro.sample("z", dist.Gamma(2 * ones(x), 1.0))
    pyro.sample("y", dist.Uniform(0 * z, z))


def outwards(x):
    y = pyro.sample("y", dist.Exponential(ones(x)))
    pyro.sample("z", above(dist.Exponential(ones(x)), y))


def apart(x):
    pyro.sample("y", dist.Exponential(ones(x)))
    pyro.sample("z", dist.Gamma(2 * ones(x), 1.0))


@pytest.mark.parametrize("guide", [inwards, outwards, apart])
def test_latents_below_latents(guide):
    """y is exponential; 4 standard errors of each datum."""
    report = pv.evaluate(*nested(guide), X, num_particles=20_000, progress=False)
    exact = 0.125 - X + torch.special.log_ndtr((X - 0.25) / 0.5)
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()
    assert (report.elbo == -math.inf).all() if guide is apart else report.elbo.isfinite().all()


def test_draws_are_looked_at_together_where_one_bounds_another():
    for guide in (inwards, outwards):
        annealed = pv.annealed_evidence(*nested(guide), X, num_temperatures=20, num_chains=20, progress=False)
        exact = 0.125 - X + torch.special.log_ndtr((X - 0.25) / 0.5)
        assert ((annealed.log_evidence - exact).abs() < 5 * annealed.mc_se_log_evidence).all()
    with pytest.raises(InputError, match=r"site 'y': \d+\.\d% of the draws .* outside the support of the prior"):
        pv.annealed_evidence(*nested(apart), X, num_temperatures=2, progress=False)
