"""Likelihoods whose support moves with a latent: a draw from which the datum is impossible weighs nothing."""

import math

import pyro
import pyro.distributions as dist
import torch
from strangers.constrained import pair
from strangers.stranger import BY_WEIGHTS, Stranger, discrete, noise, refuse
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform

LENGTHS = torch.tensor([0.25, 1.0, 2.0, 3.5, 0.5, 1.5])
SEEN = torch.tensor([0.0, 1.0, 2.0, 5.0, 3.0, 4.0])
IMPOSSIBLE = ("impossible", "minus infinity", "zero")
# A Gaussian over all that the prior can be has draws that the datum rules out; so have these guides, but for a bound.
CURVED = refuse("x", *IMPOSSIBLE, by=("gaps",))
WIDE = CURVED | refuse("x", *IMPOSSIBLE, by=("fit",))
FAR = ("calibrate", "bidirectional")  # data simulated may lie where such a guide draws nothing
NEVER = torch.full((6,), -math.inf, dtype=torch.float64)


def t(value):
    return torch.tensor(value)


def above(base, loc):
    """A draw of a distribution, and so much more."""
    return dist.TransformedDistribution(base, [AffineTransform(loc, 1.0)])


def below(base, loc):
    return dist.TransformedDistribution(base, [AffineTransform(loc, -1.0)])


def known(prior, likelihood, family, x, log_evidence, **more):
    """One latent z for each datum, and log p(x) in closed form."""
    return Stranger(*pair(prior, likelihood, family), (x,), log_evidence, **more)


def up_to(z):
    return dist.Uniform(torch.zeros_like(z), z)


# --------------------------------------------------------------------------------------------------- x below z


def uniform_below_gamma():
    """x ~ U(0, z), z ~ Gamma(2, 1): p(x) = exp(-x), and z - x is exponential given x."""
    return known(
        lambda: dist.Gamma(t(2.0), 1.0),
        up_to,
        lambda x, tilt: above(dist.Exponential(tilt.expand(len(x))), x),
        LENGTHS,
        lambda x: -x,
        elbo=-LENGTHS.double(),
        exact=True,
        guide_mean={"z": LENGTHS.double() + 1},
        posterior_mean={"z": LENGTHS.double() + 1},
        refused=CURVED,
    )


def uniform_below_pareto():
    """Conjugate: the posterior is a Pareto from the greater of one and x on."""
    low = LENGTHS.double().clamp_min(1.0)
    return known(
        lambda: dist.Pareto(t(1.0), t(3.0)),
        up_to,
        lambda x, tilt: dist.Pareto(x.clamp_min(1.0), 4.0 * tilt.expand(len(x))),
        LENGTHS,
        lambda x: math.log(0.75) - 4 * x.double().clamp_min(1.0).log(),
        elbo=math.log(0.75) - 4 * low.log(),
        exact=True,
        guide_mean={"z": low * 4 / 3},
        posterior_mean={"z": low * 4 / 3},
        refused=CURVED,
    )


def uniform_below_gamma_by_gamma():
    """The guide knows no bound: it draws z below x too."""
    return known(
        lambda: dist.Gamma(t(2.0), 1.0),
        up_to,
        lambda x, tilt: dist.Gamma(2 + x, tilt.expand(len(x))),
        LENGTHS,
        lambda x: -x,
        elbo=NEVER,
        guide_mean={"z": LENGTHS.double() + 2},
        posterior_mean={"z": LENGTHS.double() + 1},
        refused=WIDE,
        skipped=FAR,
    )


# --------------------------------------------------------------------------------------------------- x above z


def pareto_above_uniform():
    """x ~ Pareto(z, 2), z ~ U(0, 5): below its scale torch's density goes on."""
    return _pareto(lambda x, tilt: dist.Uniform(0 * x, x.clamp_max(5.0) + 0 * tilt), CURVED)


def pareto_above_uniform_by_uniform():
    """The guide knows no bound."""
    return _pareto(lambda x, tilt: dist.Uniform(0 * x, 5.0 + 0 * tilt + 0 * x), WIDE, elbo=NEVER, skipped=FAR)


def _pareto(family, refused, **more):
    def log_evidence(x):
        x = x.double()
        return (2 / 15 * x.clamp_max(5.0) ** 3 / x**3).log()

    x = LENGTHS + 0.5
    posterior = {"z": x.double().clamp_max(5.0) * 0.75}
    return known(
        lambda: dist.Uniform(t(0.0), 5.0),
        lambda z: dist.Pareto(z, 2.0),
        family,
        x,
        log_evidence,
        posterior_mean=posterior,
        refused=refused,
        **more,
    )


def exponential_after_normal():
    """x = z + an exponential: log p(x) by the error function."""
    return _waits(lambda x, tilt: below(dist.Exponential(tilt.expand(len(x))), x), CURVED)


def exponential_after_normal_by_normal():
    """The guide knows no bound, and the density of a shifted exponential is the larger, the more x is below z."""
    return _waits(lambda x, tilt: dist.Normal(x - 1.5, 1.25 * tilt), WIDE, elbo=NEVER, skipped=FAR)


def _waits(family, refused, **more):
    def log_evidence(x):
        x = x.double()
        return 0.5 - x + torch.special.log_ndtr(x - 1)

    return known(
        lambda: dist.Normal(t(0.0), 1.0),
        lambda z: above(dist.Exponential(torch.ones_like(z)), z),
        family,
        LENGTHS,
        log_evidence,
        refused=refused,
        **more,
    )


# ------------------------------------------------------------------------------------------------ counts and classes


def animals_seen():
    """Of Poisson(4) each is seen by one half: x ~ Poisson(2), and what is unseen is Poisson(2) too."""
    return _animals(lambda x, tilt: above(dist.Poisson(2.0 * tilt.expand(len(x))), x), exact=True)


def animals_seen_by_poisson():
    """The guide draws fewer than were seen."""
    elbo = torch.where(SEEN == 0, -2.0, NEVER)
    return _animals(lambda x, tilt: dist.Poisson((x + 2) * tilt), elbo=elbo, wide=True)


def _animals(family, wide=False, **more):
    log_evidence = lambda x: dist.Poisson(t(2.0).double()).log_prob(x.double())  # noqa: E731
    more.setdefault("elbo", log_evidence(SEEN))
    return known(
        lambda: dist.Poisson(t(4.0)),
        lambda n: dist.Binomial(n, t(0.5)),
        family,
        SEEN,
        log_evidence,
        guide_mean={"z": SEEN.double() + 2},
        posterior_mean={"z": SEEN.double() + 2},
        refused=discrete("z") | (refuse("x", *IMPOSSIBLE, by=("fit",)) if wide else {}),
        **more,
    )


def sites_occupied():
    """A species that is there with probability 0.6 is seen at each of three visits with 0.4, else never."""
    visits = torch.tensor([0.0, 0.0, 1.0, 2.0, 0.0, 3.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(t(0.6)))
            pyro.sample("x", dist.Binomial(3, 0.4 * z), obs=x)

    def guide(x):
        share = pyro.param("share", t(0.3), constraint=constraints.unit_interval)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.where(x > 0, 0.9, share)))

    elbo = 0.3 * (t(0.6 * 0.6**3 / 0.3)).log() + 0.7 * t(0.4 / 0.7).log()
    likelihood = dist.Binomial(3, t(0.4).double())
    return Stranger(
        model,
        guide,
        (visits,),
        lambda x: (0.6 * likelihood.log_prob(x.double()).exp() + 0.4 * (x == 0)).log(),
        elbo=torch.where(visits == 0, elbo.double(), NEVER),
        guide_mean={"z": torch.where(visits > 0, 0.9, 0.3).double()},
        refused=discrete("z") | refuse("x", *IMPOSSIBLE, by=("fit",)),
    )


# ------------------------------------------------------------------------------------------------- latents below latents


def below_a_latent(guide_of, **more):
    """z ~ Gamma(2, 1), y ~ U(0, z), so that y is exponential; x is normal around it."""
    x = noise(91, 6) * 0.75 + 0.75

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(t(2.0), 1.0))
            y = pyro.sample("y", dist.Uniform(torch.zeros_like(z), z))
            pyro.sample("x", dist.Normal(y, 0.5), obs=x)

    def guide(x):
        tilt = pyro.param("tilt", t(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            guide_of(x, tilt)

    def log_evidence(x):
        x = x.double()
        return 0.125 - x + torch.special.log_ndtr((x - 0.25) / 0.5)

    return Stranger(model, guide, (x,), log_evidence, **more)


def nested_latents():
    """The guide nests them as the model does."""

    def guide_of(x, tilt):
        z = pyro.sample("z", dist.Gamma(2 + 0.5 * x.clamp_min(0), tilt.expand(len(x))))
        pyro.sample("y", dist.Uniform(torch.zeros_like(z), z))

    return below_a_latent(guide_of)


def nested_latents_from_below():
    """The guide draws y first, and z above it: of nested supports as well, but the other way round."""

    def guide_of(x, tilt):
        y = pyro.sample("y", dist.Gamma(1.5 + 0 * x, tilt / (0.5 + 0.25 * x.clamp_min(0))))
        pyro.sample("z", above(dist.Exponential(torch.ones_like(y)), y))

    return below_a_latent(guide_of)


def nested_latents_apart():
    """The guide draws them without regard to each other: half of its draws weigh nothing."""

    def guide_of(x, tilt):
        pyro.sample("z", dist.Gamma(2.5 + 0 * x, tilt))
        pyro.sample("y", dist.Gamma(1.5 + 0 * x, 1.5))

    refused = refuse("y", "support", by=("annealed", "bidirectional", "gaps", "surgery", "fit"))
    return below_a_latent(guide_of, elbo=NEVER, refused=refused)


# ----------------------------------------------------------------------------------------------- holes, and refusals


def holes_above():
    """Three lengths above one bound from three on, some of them missing: what is seen alone bounds it."""
    x = torch.tensor(
        [[3.5, math.nan, 4.0], [7.0, 5.0, 6.5], [math.nan, math.nan, 9.0], [3.25, 8.0, math.nan], 3 * [math.nan]]
    )

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(t(3.0), 6.0))
            scale = z[..., None].expand(*z.shape, 3)
            pyro.sample("x", dist.Pareto(scale, 2.0).mask(~x.isnan()).to_event(1), obs=x)

    def guide(x):
        still = 0 * pyro.param("still", t(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(3.0 + still, x.nan_to_num(nan=6.0).amin(-1).clamp_max(6.0)))

    def log_evidence(x):
        seen, x = ~x.isnan(), x.double()
        power, top = 2 * seen.sum(-1) + 1, x.nan_to_num(nan=6.0).amin(-1).clamp_max(6.0)
        each = torch.where(seen, math.log(2.0) - 3 * x.nan_to_num(nan=1.0).log(), 0.0).sum(-1)
        return each + ((top**power - 3.0**power) / (3 * power)).log()

    return Stranger(model, guide, (x,), log_evidence, refused=CURVED, skipped=("simulated",))


def lengths_below_zero():
    """No latent makes a negative length possible."""
    x = LENGTHS.clone()
    x[3] = -0.5
    model, guide = pair(
        lambda: dist.Gamma(t(2.0), 1.0), up_to, lambda x, tilt: above(dist.Exponential(tilt.expand(len(x))), x.abs())
    )
    by = set(BY_WEIGHTS) - {"bidirectional"} | {"surgery", "fit", "predictive_check"}
    return Stranger(model, guide, (x,), refused=refuse("x", "outside", by=sorted(by)))


def guide_that_stops_short():
    """z is above x, and the guide knows; but it ends at one more."""
    found = uniform_below_gamma()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(x, x + 1))

    refused = refuse("z", "support", "cannot draw", by=BY_WEIGHTS[:-1])
    return Stranger(found.model, guide, (LENGTHS,), refused=refused)


PROGRAMS = {
    f.__name__: f
    for f in (
        uniform_below_gamma,
        uniform_below_pareto,
        uniform_below_gamma_by_gamma,
        pareto_above_uniform,
        pareto_above_uniform_by_uniform,
        exponential_after_normal,
        exponential_after_normal_by_normal,
        animals_seen,
        animals_seen_by_poisson,
        sites_occupied,
        nested_latents,
        nested_latents_from_below,
        nested_latents_apart,
        holes_above,
        lengths_below_zero,
        guide_that_stops_short,
    )
}
