"""Latents above zero, between two ends, on a circle and on a simplex."""

import dataclasses
import math

import pyro
import pyro.distributions as dist
import torch
from strangers.stranger import BY_DENSITIES, BY_WEIGHTS, Stranger, line, noise, positive, refuse, square, summed, unit
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform, SigmoidTransform

COUNTS = torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 8.0])
REALS = noise(1, 6)
SUPPORT = ("support", "cannot draw", "outside")
NARROW = (*BY_WEIGHTS[:-1],)  # a guide that cannot draw all: its ELBO is sound, its weights are not


def pair(prior, likelihood, family):
    """One latent z for each datum; the guide is ``family(x, tilt)`` with a parameter that starts at one."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        tilt = pyro.param("tilt", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(x, tilt))

    return model, guide


def one(prior, likelihood, family, x, grid, log_prior=None, log_guide=None, **more) -> Stranger:
    """That pair with its numbers by quadrature; densities are those of torch, in double precision."""
    log_prior = log_prior or (lambda z: prior().log_prob(z))

    def joint(z, x):
        return log_prior(z)[:, None] + likelihood(z[:, None]).log_prob(x)

    def density(z, x):
        return family(x, torch.ones((), dtype=torch.float64)).log_prob(z[:, None])

    density = log_guide or density
    return summed(
        *pair(prior, likelihood, family), (x,), grid, joint, density if log_guide is not False else None, **more
    )


def named(site):
    return lambda points: {site: points}


def poisson(z):
    return dist.Poisson(z)


def noisy(z):
    return dist.Normal(z, 0.5)


def t(value):
    return torch.tensor(value)


def gamma_counts():
    """Conjugate: the guide is the posterior."""
    return one(
        lambda: dist.Gamma(t(2.0), 1.0),
        poisson,
        lambda x, tilt: dist.Gamma(x + 2, 2 * tilt.expand(len(x))),
        COUNTS,
        positive(),
        values=named("z"),
        exact=True,
    )


def gamma_by_lognormal():
    return one(
        lambda: dist.Gamma(t(2.0), 1.0),
        poisson,
        lambda x, tilt: dist.LogNormal((x / 2 + 0.75).log(), 0.6 * tilt),
        COUNTS,
        positive(),
        values=named("z"),
        exact=False,
    )


def exponential_by_gamma():
    return one(
        lambda: dist.Exponential(t(0.5)),
        poisson,
        lambda x, tilt: dist.Gamma(0.8 * x + 1, 1.2 * tilt.expand(len(x))),
        COUNTS,
        positive(),
        values=named("z"),
    )


def half_normal_scale():
    """A standard deviation, by a gamma guide."""
    return one(
        lambda: dist.HalfNormal(t(1.0)),
        lambda z: dist.Normal(0.0, z + 0.25),
        lambda x, tilt: dist.Gamma(1.5 + x.abs(), 1.5 * tilt.expand(len(x))),
        REALS,
        positive(),
        values=named("z"),
    )


def weibull_rate():
    return one(
        lambda: dist.Weibull(t(1.0), t(2.0)),
        lambda z: dist.Exponential(z),
        lambda x, tilt: dist.LogNormal(-0.3 * x - 0.1, 0.6 * tilt),
        COUNTS / 2 + 0.25,
        positive(),
        values=named("z"),
    )


def half_cauchy_level():
    """A prior without a mean."""
    return one(
        lambda: dist.HalfCauchy(t(1.0)),
        noisy,
        lambda x, tilt: dist.Gamma(2 + 3 * x.abs(), 2.5 * tilt.expand(len(x))),
        REALS + 1,
        positive(high=10.0),
        values=named("z"),
    )


def inverse_gamma_variance():
    return one(
        lambda: dist.InverseGamma(t(3.0), t(2.0)),
        lambda z: dist.Normal(0.0, z.sqrt()),
        lambda x, tilt: dist.InverseGamma(torch.full_like(x, 3.5), (2 + x**2 / 2) * tilt),
        REALS,
        positive(high=8.0),
        values=named("z"),
        exact=True,
    )


def pareto_shifted():
    """A support from one on; the guide is an exponential moved there."""
    return one(
        lambda: dist.Pareto(t(1.0), t(2.0)),
        poisson,
        lambda x, tilt: dist.TransformedDistribution(
            dist.Gamma(0.5 * x + 1, tilt.expand(len(x))), [AffineTransform(1.0, 1.0)]
        ),
        COUNTS,
        positive(start=1.0),
        log_guide=lambda z, x: dist.Gamma(0.5 * x + 1, 1.0).log_prob(z[:, None] - 1),
        values=named("z"),
    )


def beta_votes():
    """Conjugate: the guide is the posterior."""
    return one(
        lambda: dist.Beta(t(2.0), t(3.0)),
        lambda z: dist.Binomial(8, z),
        lambda x, tilt: dist.Beta((2 + x) * tilt, 11 - x),
        COUNTS,
        unit(),
        values=named("z"),
        exact=True,
    )


def beta_by_kumaraswamy():
    return one(
        lambda: dist.Beta(t(2.0), t(3.0)),
        lambda z: dist.Binomial(8, z),
        lambda x, tilt: dist.Kumaraswamy((1.5 + 0.5 * x) * tilt, 8 - 0.75 * x),
        COUNTS,
        unit(),
        log_guide=lambda z, x: _kumaraswamy(z[:, None], 1.5 + 0.5 * x, 8 - 0.75 * x),
        values=named("z"),
    )


def _kumaraswamy(z, a, b):
    return a.log() + b.log() + (a - 1) * z.log() + (b - 1) * torch.log1p(-(z**a))


def kumaraswamy_by_beta():
    return one(
        lambda: dist.Kumaraswamy(t(2.0), t(3.0)),
        lambda z: dist.Binomial(8, z),
        lambda x, tilt: dist.Beta((2 + 0.75 * x) * tilt, 9 - 0.75 * x),
        COUNTS,
        unit(),
        log_prior=lambda z: _kumaraswamy(z, t(2.0).double(), t(3.0).double()),
        values=named("z"),
    )


def uniform_by_beta():
    return one(
        lambda: dist.Uniform(t(0.0), t(1.0)),
        lambda z: dist.Normal(z, 0.5),
        lambda x, tilt: dist.Beta(1.5 * tilt + 0 * x, 1.5 + 0 * x),
        REALS,
        unit(),
        values=named("z"),
    )


def uniform_by_squashed_normal():
    """The same support by a transform."""
    return one(
        lambda: dist.Uniform(t(0.0), t(1.0)),
        lambda z: dist.Normal(z, 0.5),
        lambda x, tilt: dist.TransformedDistribution(dist.Normal(0.5 * x, 1.5 * tilt), [SigmoidTransform()]),
        REALS,
        unit(),
        log_guide=lambda z, x: dist.Normal(0.5 * x, 1.5).log_prob(z.logit()[:, None]) - (z * (1 - z)).log()[:, None],
        values=named("z"),
    )


# ------------------------------------------------------------------------------------- guides of another support


def wide(prior, likelihood, family, x, grid, *, site="z", causes=SUPPORT, **more):
    """The guide also draws what the prior cannot: weights of zero there, an ELBO of minus infinity; or a refusal."""
    elbo = torch.full((len(x),), -math.inf, dtype=torch.float64)
    refused = refuse(site, *causes, by=(*BY_WEIGHTS, "surgery", "fit", "calibrate"), or_right=True)
    skipped = ("calibrate", "predictive_check", "posterior", "fit")
    return one(prior, likelihood, family, x, grid, log_guide=False, elbo=elbo, refused=refused, skipped=skipped, **more)


def exponential_by_normal():
    return wide(
        lambda: dist.Exponential(t(1.0)), noisy, lambda x, tilt: dist.Normal(x, 0.75 * tilt), REALS + 0.5, positive()
    )


def unvalidated_exponential_by_normal():
    """Validation off, so that the density goes on below zero without a word."""
    return wide(
        lambda: dist.Exponential(t(1.0), validate_args=False),
        noisy,
        lambda x, tilt: dist.Normal(x, 0.75 * tilt),
        REALS + 0.5,
        positive(),
        log_prior=lambda z: -z,
    )


def gamma_by_student():
    return wide(
        lambda: dist.Gamma(t(3.0), t(2.0)),
        noisy,
        lambda x, tilt: dist.StudentT(5.0, x, 0.5 * tilt),
        REALS + 1,
        positive(),
    )


def odd_gamma_by_normal():
    """(z ** 2) is a number on both sides of zero: a Gamma density of three goes on below it, validation off."""

    class Unchecked(dist.Gamma):
        def log_prob(self, z):
            return math.log(4.0) + torch.log(z**2) - 2 * z

    return wide(
        lambda: Unchecked(t(3.0), t(2.0), validate_args=False),
        noisy,
        lambda x, tilt: dist.Normal(x, 0.75 * tilt),
        REALS + 1,
        positive(),
        log_prior=lambda z: math.log(4.0) + torch.log(z**2) - 2 * z,
    )


def weibull_by_laplace():
    return wide(
        lambda: dist.Weibull(t(1.0), t(2.0)),
        noisy,
        lambda x, tilt: dist.Laplace(x, 0.5 * tilt),
        REALS + 0.5,
        positive(),
    )


def half_normal_by_normal():
    return wide(
        lambda: dist.HalfNormal(t(1.0)), noisy, lambda x, tilt: dist.Normal(x, 0.75 * tilt), REALS + 0.5, positive()
    )


def pareto_by_lognormal():
    return wide(
        lambda: dist.Pareto(t(1.0), t(2.0)),
        poisson,
        lambda x, tilt: dist.LogNormal(0.25 * (x + 1.5).log(), 0.8 * tilt),
        COUNTS,
        positive(start=1.0),
    )


def beta_by_normal():
    return wide(
        lambda: dist.Beta(t(2.0), t(2.0)), noisy, lambda x, tilt: dist.Normal(0.5 + 0 * x, 0.4 * tilt), REALS, unit()
    )


def uniform_by_normal():
    return wide(
        lambda: dist.Uniform(t(0.0), t(1.0)),
        noisy,
        lambda x, tilt: dist.Normal(0.5 + 0 * x, 0.5 * tilt),
        REALS,
        unit(),
    )


class TruncatedNormal(dist.Normal):
    """A normal from zero on, as people write it: the density is shifted by a constant, the support is declared."""

    support = constraints.positive

    def log_prob(self, value):
        return super().log_prob(value) - torch.special.log_ndtr(self.loc / self.scale)

    def rsample(self, shape=()):
        u = torch.rand(self._extended_shape(shape)) * 0.9999 + 5e-5
        low = torch.special.ndtr(-self.loc / self.scale)
        return self.loc + self.scale * torch.special.ndtri(low + (1 - low) * u)

    def expand(self, shape, _instance=None):
        return TruncatedNormal(self.loc.expand(shape), self.scale.expand(shape), validate_args=False)


def truncated_by_normal():
    return wide(
        lambda: TruncatedNormal(t(0.5), t(1.0), validate_args=False),
        noisy,
        lambda x, tilt: dist.Normal(x, 0.75 * tilt),
        REALS + 0.5,
        positive(),
    )


def narrow(prior, likelihood, family, x, site="z"):
    """The guide cannot draw all that the prior can: the evidence that it misses leaves no trace in its weights."""
    return Stranger(
        *pair(prior, likelihood, family),
        (x,),
        refused=refuse(site, *SUPPORT, by=NARROW),
        skipped=("surgery", "fit", "log_terms", "calibrate", "posterior", "predictive_check", "reference"),
    )


def normal_by_lognormal():
    return narrow(lambda: dist.Normal(t(0.0), 1.0), noisy, lambda x, tilt: dist.LogNormal(0 * x, tilt), REALS)


def uniform_by_half():
    return narrow(lambda: dist.Uniform(t(0.0), t(1.0)), noisy, lambda x, tilt: dist.Uniform(0 * x, 0.5 + 0 * x), REALS)


def gamma_by_late_exponential():
    """Narrow by a transform: nothing below one."""
    return narrow(
        lambda: dist.Gamma(t(2.0), 1.0),
        poisson,
        lambda x, tilt: dist.TransformedDistribution(
            dist.Exponential(tilt.expand(len(x))), [AffineTransform(1.0, 1.0)]
        ),
        COUNTS,
    )


def normal_by_squashed():
    """Narrow by a transform: only between minus two and two."""
    return narrow(
        lambda: dist.Normal(t(0.0), 1.0),
        noisy,
        lambda x, tilt: dist.TransformedDistribution(
            dist.Normal(x, tilt), [SigmoidTransform(), AffineTransform(-2.0, 4.0)]
        ),
        REALS,
    )


# --------------------------------------------------------------------------------------------- piling up at the edge

EDGE = ("float64", "double", "float32", "precision", "edge", "boundary", "end of", "rounds", "rounded")


def ends(extra, **more):
    """Half the draws of a Beta(0.01, 0.01) are zero or one in float32. x is Beta-binomial."""
    a = 0.01

    def log_evidence(x):
        x = x.double()
        choose = math.lgamma(9.0) - torch.lgamma(x + 1) - torch.lgamma(9 - x)
        return choose + _log_beta(x + a, 8 - x + a) - _log_beta(t(a).double(), t(a).double())

    return Stranger(
        *pair(
            lambda: dist.Beta(t(a), t(a)),
            lambda z: dist.Binomial(8, z),
            lambda x, tilt: dist.Beta((x + a + extra) * tilt, 8 - x + a + extra),
        ),
        (COUNTS,),
        log_evidence,
        refused=refuse("z", *EDGE, by=(*BY_WEIGHTS, *BY_DENSITIES, "calibrate", "reference"), or_right=True),
        **more,
    )


def beta_at_the_ends():
    """Conjugate: the guide is the posterior."""
    found = ends(0.0)
    return dataclasses.replace(found, elbo=found.truth)


def beta_near_the_ends():
    """A guide that is a little less drawn to the ends than the posterior: weights of finite variance."""
    return ends(0.005)


def _log_beta(a, b):
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def dirichlet_at_the_corners():
    """Words of one topic: most coordinates of a Dirichlet(0.01) are zero in float32. Conjugate."""
    a, words = torch.full((3,), 0.01), torch.tensor([[2.0, 0, 0], [0, 2, 0], [1, 1, 0], [0, 1, 1]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(a))
            pyro.sample("x", dist.Multinomial(2, z), obs=x)

    def guide(x):
        tilt = pyro.param("tilt", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet((a + x) * tilt))

    return Stranger(
        model,
        guide,
        (words,),
        lambda x: dirichlet_multinomial(x, a.double()),
        elbo=dirichlet_multinomial(words, a.double()),
        refused=refuse("z", *EDGE, by=(*BY_WEIGHTS, *BY_DENSITIES, "calibrate", "reference"), or_right=True),
    )


def dirichlet_multinomial(x, a):
    x = x.double()
    total = x.sum(-1)
    return (
        torch.lgamma(total + 1)
        - torch.lgamma(x + 1).sum(-1)
        + torch.lgamma(a.sum())
        - torch.lgamma(a.sum() + total)
        + (torch.lgamma(a + x) - torch.lgamma(a)).sum(-1)
    )


# ------------------------------------------------------------------------------------------------ simplex and circle


def topics():
    """Dirichlet and multinomial: the guide is the posterior."""
    a, words = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[2.0, 1, 2], [0, 5, 0], [1, 0, 4], [5, 0, 0]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(a))
            pyro.sample("x", dist.Multinomial(5, z), obs=x)

    def guide(x):
        more = pyro.param("more", a.clone(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(more + x))

    mean = (a + words).double() / 11
    return Stranger(
        model,
        guide,
        (words,),
        lambda x: dirichlet_multinomial(x, a.double()),
        elbo=dirichlet_multinomial(words, a.double()),
        guide_mean={"z": mean},
        posterior_mean={"z": mean},
        exact=True,
    )


def simplex_by_logistic_normal():
    """Three shares by a logistic normal guide, two-dimensional quadrature."""
    a, words = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[2.0, 1, 2], [0, 5, 0], [1, 0, 4], [5, 0, 0]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(a))
            pyro.sample("x", dist.Multinomial(5, z), obs=x)

    def guide(x):
        spread = pyro.param("spread", torch.tensor(1.25), constraint=constraints.positive)
        loc = (x[..., :2] + 1.0).log() - 0.5
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogisticNormal(loc, spread.expand(2)))

    return Stranger(model, guide, (words,), lambda x: dirichlet_multinomial(x, a.double()))


def wind(prior, family, **more):
    """An angle, seen through the two coordinates of a noisy point."""
    x = noise(2, 6, 2) + torch.tensor([-1.0, 0.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(torch.stack([z.cos(), z.sin()], -1), 0.75).to_event(1), obs=x)

    def guide(x):
        tight = pyro.param("tight", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(torch.atan2(x[..., 1], x[..., 0]), tight))

    def joint(z, x):
        points = torch.stack([z.cos(), z.sin()], -1)[:, None]
        return prior().log_prob(z)[:, None] + dist.Normal(points, 0.75).log_prob(x).sum(-1)

    def density(z, x):
        return family(torch.atan2(x[..., 1], x[..., 0]), torch.ones(())).log_prob(z[:, None])

    known = more.pop("known", True)
    return summed(model, guide, (x,), line(-math.pi, math.pi), joint, density if known else None, **more)


ANGLE = ("angle", "circle", "circular", "bijection", "von mises", "VonMises")


def wind_by_von_mises():
    return wind(
        lambda: dist.VonMises(t(0.5), t(0.5)),
        dist.VonMises,
        refused=refuse("z", *ANGLE, by=("annealed", "bidirectional", "gaps"), or_right=True),
    )


def wind_by_laplace():
    """The density of an angle goes on beyond pi: draws out there would be counted twice."""
    return wind(
        lambda: dist.VonMises(t(0.5), t(0.5)),
        lambda loc, tight: dist.Laplace(loc, 1.0 * tight),
        known=False,
        refused=refuse("z", *ANGLE, *SUPPORT, by=(*BY_WEIGHTS, "surgery", "fit"), or_right=True),
        skipped=("calibrate", "posterior", "predictive_check", "fit", "reference"),
    )


def wind_uniform_by_von_mises():
    """A uniform angle: both programs draw from -pi to pi."""
    return wind(
        lambda: dist.Uniform(t(-math.pi), t(math.pi), validate_args=False),
        dist.VonMises,
        refused=refuse("z", *ANGLE, *SUPPORT, or_right=True),
    )


def direction():
    """A unit vector by a projected normal; quadrature over its angle."""
    x = noise(3, 6, 2) + torch.tensor([0.5, 0.5])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ProjectedNormal(torch.tensor([0.5, 0.0])))
            pyro.sample("x", dist.Normal(z, 0.75).to_event(1), obs=x)

    def guide(x):
        pull = pyro.param("pull", torch.tensor(0.8))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.ProjectedNormal(pull * x))

    def joint(angle, x):
        z = torch.stack([angle.cos(), angle.sin()], -1)
        prior = dist.ProjectedNormal(torch.tensor([0.5, 0.0]).double()).log_prob(z)
        return prior[:, None] + dist.Normal(z[:, None], 0.75).log_prob(x).sum(-1)

    def density(angle, x):
        z = torch.stack([angle.cos(), angle.sin()], -1)
        return dist.ProjectedNormal(0.8 * x).log_prob(z[:, None].expand(-1, len(x), -1))

    return summed(
        model,
        guide,
        (x,),
        line(-math.pi, math.pi),
        joint,
        density,
        refused=refuse(
            "z", "sphere", "bijection", "direction", "inverse", by=("annealed", "bidirectional", "gaps"), or_right=True
        ),
    )


def rate_and_share():
    """Two sites of two supports, one likelihood; two-dimensional quadrature."""
    x = COUNTS

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(t(3.0), 1.0))
            share = pyro.sample("share", dist.Beta(t(2.0), t(2.0)))
            pyro.sample("x", dist.Poisson(rate * share), obs=x)

    def guide(x):
        tilt = pyro.param("tilt", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(3 + 0.8 * x, 1.25 * tilt.expand(len(x))))
            pyro.sample("share", dist.Beta(1.5 + 2 / (1 + rate), 2 + 0 * rate))

    def joint(z, x):
        rate, share = z.unbind(-1)
        prior = dist.Gamma(3.0, 1.0).log_prob(rate) + dist.Beta(2.0, 2.0).log_prob(share)
        return prior[:, None] + dist.Poisson((rate * share)[:, None]).log_prob(x)

    def density(z, x):
        rate, share = z.unbind(-1)
        first = dist.Gamma(3 + 0.8 * x, 1.25).log_prob(rate[:, None])
        return first + dist.Beta(1.5 + 2 / (1 + rate), 2.0).log_prob(share)[:, None]

    grid = square(positive(-8.0, 4.0, 301), unit(14.0, 301))
    return summed(
        model, guide, (x,), grid, joint, density, values=lambda z: {"rate": z[:, 0], "share": z[:, 1]}, exact=False
    )


PROGRAMS = {
    f.__name__: f
    for f in (
        gamma_counts,
        gamma_by_lognormal,
        exponential_by_gamma,
        half_normal_scale,
        weibull_rate,
        half_cauchy_level,
        inverse_gamma_variance,
        pareto_shifted,
        beta_votes,
        beta_by_kumaraswamy,
        kumaraswamy_by_beta,
        uniform_by_beta,
        uniform_by_squashed_normal,
        topics,
        simplex_by_logistic_normal,
        wind_by_von_mises,
        wind_uniform_by_von_mises,
        direction,
        rate_and_share,
        exponential_by_normal,
        unvalidated_exponential_by_normal,
        gamma_by_student,
        odd_gamma_by_normal,
        weibull_by_laplace,
        half_normal_by_normal,
        pareto_by_lognormal,
        beta_by_normal,
        uniform_by_normal,
        truncated_by_normal,
        wind_by_laplace,
        normal_by_lognormal,
        uniform_by_half,
        gamma_by_late_exponential,
        normal_by_squashed,
        beta_at_the_ends,
        beta_near_the_ends,
        dirichlet_at_the_corners,
    )
}
