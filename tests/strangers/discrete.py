"""Latents that are classes, coins and counts, alone and beside real numbers; and guides of another base measure."""

import math

import pyro
import pyro.distributions as dist
import torch
from strangers.constrained import COUNTS, SUPPORT, pair
from strangers.stranger import BY_WEIGHTS, Stranger, bits, discrete, noise, refuse, summed, whole
from torch import nn

REALS = noise(11, 6)
MEANS = torch.tensor([-2.0, 0.0, 1.5])
PRIOR = torch.tensor([0.5, 0.25, 0.25])
MEASURE = ("density", "mass", "discrete", "continuous", "relax", "support")


def logits_of(x):
    """Scores of three classes, not quite the posterior's."""
    return torch.stack([-x - 0.5, 0 * x, 0.75 * x - 0.5], -1)


def mixture(guide_class, prior=PRIOR, **more):
    """One of three normals, by enumeration."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(prior))
            pyro.sample("x", dist.Normal(MEANS[k.long()], 1.0), obs=x)

    def guide(x):
        pull = pyro.param("pull", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("k", guide_class(x + pull))

    def joint(k, x):
        return prior.double().log()[:, None] + dist.Normal(MEANS.double()[:, None], 1.0).log_prob(x)

    def density(k, x):
        return guide_class(x).logits.log_softmax(-1).T

    known = more.pop("known", True)
    more.setdefault("refused", discrete("k"))
    values = (lambda k: {"k": k}) if known else None
    return summed(model, guide, (REALS,), whole(3), joint, density if known else None, values, **more)


def classes():
    return mixture(lambda x: dist.Categorical(logits=logits_of(x)), exact=False)


def classes_by_their_posterior():
    """Responsibilities: the guide is the posterior."""

    def posterior(x):
        return dist.Categorical(logits=PRIOR.log() + dist.Normal(MEANS, 1.0).log_prob(x[..., None]))

    return mixture(posterior, exact=True)


def class_never_drawn():
    """A logit of minus infinity: one class is never drawn by the guide."""
    gone = torch.tensor([0.0, 0.0, -math.inf])
    return mixture(
        lambda x: dist.Categorical(logits=logits_of(x) + gone),
        known=False,
        refused=refuse("k", *SUPPORT, "class", "never", by=(*BY_WEIGHTS[:-1], "fit")) | discrete("k"),
        skipped=("log_terms", "surgery", "posterior", "predictive_check", "calibrate", "reference"),
    )


def class_that_is_not():
    """A class of prior probability zero, which the guide draws: weights of zero, and an ELBO of minus infinity."""
    prior = torch.tensor([0.625, 0.375, 0.0])
    return mixture(
        lambda x: dist.Categorical(logits=logits_of(x)),
        prior,
        known=False,
        elbo=torch.full((6,), -math.inf, dtype=torch.float64),
        refused=refuse("k", *SUPPORT, "class", "zero", "impossible", by=(*BY_WEIGHTS, "surgery"), or_right=True)
        | discrete("k"),
        skipped=("calibrate", "predictive_check"),
    )


def long_class_by_normal():
    """A density for a mass: a normal guide of a class."""
    return mixture(
        lambda x: dist.Normal(1 + 0 * x, 0.5),
        known=False,
        refused=refuse("k", *MEASURE),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


# ------------------------------------------------------------------------------------------ vectors of zeros and ones

WEIGHTS = torch.tensor([1.0, -0.75, 2.0])


def switches(family, prior=None, known=True, refused=None, **more):
    """Three coins that switch three effects on; all eight states by enumeration."""
    prior = prior or (lambda: dist.Bernoulli(torch.full((3,), 0.25)).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z @ WEIGHTS, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor([0.5, -0.5, 1.0]))
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(x[..., None] * slope - 1))

    def joint(z, x):
        coins = dist.Bernoulli(torch.full((3,), 0.25).double()).log_prob(z).sum(-1)
        return coins[:, None] + dist.Normal((z @ WEIGHTS.double())[:, None], 1.0).log_prob(x)

    def density(z, x):
        return dist.Bernoulli(logits=x[:, None] * torch.tensor([0.5, -0.5, 1.0]) - 1).log_prob(z[:, None]).sum(-1)

    values = (lambda z: {"z": z}) if known else None
    return summed(
        model,
        guide,
        (REALS,),
        bits(3),
        joint,
        density if known else None,
        values,
        refused=refused or discrete("z"),
        **more,
    )


def coins():
    return switches(lambda logits: dist.Bernoulli(logits=logits).to_event(1), exact=False)


def coins_by_relaxed():
    return switches(
        lambda logits: dist.RelaxedBernoulli(torch.tensor(0.5), logits=logits).to_event(1),
        known=False,
        refused=refuse("z", *MEASURE),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


def coins_by_squashed_normal():
    """Numbers between zero and one, by a transform."""
    sigmoid = torch.distributions.transforms.SigmoidTransform()
    return switches(
        lambda logits: dist.TransformedDistribution(dist.Normal(logits, 1.0), [sigmoid]).to_event(1),
        known=False,
        refused=refuse("z", *MEASURE),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


def coins_by_continuous_bernoulli():
    return switches(
        lambda logits: dist.ContinuousBernoulli(logits=logits).to_event(1),
        known=False,
        refused=refuse("z", *MEASURE),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


def one_hot(family, known=True, refused=None, **more):
    """The same mixture with a one-hot code."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.OneHotCategorical(PRIOR))
            pyro.sample("x", dist.Normal(k @ MEANS, 1.0), obs=x)

    def guide(x):
        tilt = pyro.param("tilt", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("k", family(logits_of(x) + tilt))

    def joint(k, x):
        return PRIOR.double().log()[:, None] + dist.Normal(MEANS.double()[:, None], 1.0).log_prob(x)

    def density(k, x):
        return logits_of(x).log_softmax(-1).T

    values = (lambda k: {"k": torch.eye(3)}) if known else None
    return summed(
        model,
        guide,
        (REALS,),
        whole(3),
        joint,
        density if known else None,
        values,
        refused=refused or discrete("k"),
        **more,
    )


def one_hot_codes():
    return one_hot(lambda logits: dist.OneHotCategorical(logits=logits))


def one_hot_straight_through():
    """Draws are one-hot, gradients pass as if they were not."""
    return one_hot(
        lambda logits: dist.OneHotCategoricalStraightThrough(logits=logits),
        refused=discrete("k") | refuse("k", *MEASURE, by=("evaluate", "repaired"), or_right=True),
    )


def one_hot_by_relaxed():
    return one_hot(
        lambda logits: dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=logits),
        known=False,
        refused=refuse("k", *MEASURE),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


def one_hot_by_dirichlet():
    return one_hot(
        lambda logits: dist.Dirichlet(logits.exp()),
        known=False,
        refused=refuse("k", *MEASURE),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


# ------------------------------------------------------------------------------------------------------------- counts


def counted(prior, likelihood, family, x, log_guide=None, known=True, refused=None, most=80, **more):
    """A count for each datum; sums over 0, 1, ..., 79."""

    def joint(k, x):
        return prior().log_prob(k)[:, None] + likelihood(k[:, None]).log_prob(x)

    def density(k, x):
        return family(x, torch.ones(())).log_prob(k[:, None])

    model, guide = pair(prior, likelihood, family)
    return summed(
        model,
        guide,
        (x,),
        whole(most),
        joint,
        density if known else None,
        (lambda k: {"z": k}) if known else None,
        refused=refused or discrete("z"),
        **more,
    )


def poisson_events():
    return counted(
        lambda: dist.Poisson(torch.tensor(3.0)),
        lambda k: dist.Normal(k, 1.0),
        lambda x, tilt: dist.Poisson((0.5 * x.clamp_min(0) + 1.5) * tilt),
        2 * REALS + 3,
    )


def geometric_waits():
    """A geometric prior by a negative binomial guide: the same whole numbers."""
    return counted(
        lambda: dist.Geometric(torch.tensor(0.25)),
        lambda k: dist.Normal(k, 1.5),
        lambda x, tilt: dist.NegativeBinomial(3 * tilt.expand(len(x)), logits=0.25 * x - 0.75),
        2 * REALS + 3,
        most=200,
    )


def abundance():
    """Animals counted, some unseen: of Poisson(4) each is seen by one half, so that what is unseen is Poisson(2)."""

    def model(x):
        with pyro.plate("data", len(x)):
            unseen = pyro.sample("unseen", dist.Poisson(torch.tensor(2.0)))
            pyro.sample("x", dist.Poisson(1.0 + 0.5 * unseen), obs=x)

    def guide(x):
        rate = pyro.param("rate", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("unseen", dist.Poisson(rate + 0.25 * x))

    def joint(k, x):
        return dist.Poisson(2.0).log_prob(k)[:, None] + dist.Poisson(1.0 + 0.5 * k[:, None]).log_prob(x)

    return summed(
        model,
        guide,
        (COUNTS,),
        whole(80),
        joint,
        lambda k, x: dist.Poisson(2.0 + 0.25 * x).log_prob(k[:, None]),
        lambda k: {"unseen": k},
        refused=discrete("unseen"),
    )


def binomial_by_shorter():
    """The guide's counts end at three, the prior's at five."""
    return counted(
        lambda: dist.Binomial(5, torch.tensor(0.5)),
        lambda k: dist.Normal(k, 1.0),
        lambda x, tilt: dist.Binomial(3, torch.sigmoid(x - 1) * tilt.clamp_max(1.0)),
        REALS + 2,
        known=False,
        most=6,
        refused=refuse("z", *SUPPORT, by=BY_WEIGHTS[:-1]) | discrete("z"),
        skipped=("log_terms", "surgery", "fit", "posterior", "predictive_check", "calibrate", "reference"),
    )


def binomial_by_poisson():
    """The guide's counts do not end: weights of zero, or a refusal."""
    return counted(
        lambda: dist.Binomial(5, torch.tensor(0.5)),
        lambda k: dist.Normal(k, 1.0),
        lambda x, tilt: dist.Poisson((x.clamp_min(0) + 1) * tilt),
        REALS + 2,
        known=False,
        most=6,
        elbo=torch.full((6,), -math.inf, dtype=torch.float64),
        refused=refuse("z", *SUPPORT, by=(*BY_WEIGHTS, "surgery"), or_right=True) | discrete("z"),
        skipped=("fit", "calibrate", "predictive_check"),
    )


def wrong_measure(prior, family):
    model, guide = pair(prior, lambda z: dist.Normal(1.0 * z, 1.0), family)
    return Stranger(
        model,
        guide,
        (REALS,),
        refused=refuse("z", *MEASURE),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


def poisson_by_gamma():
    return wrong_measure(
        lambda: dist.Poisson(torch.tensor(3.0)), lambda x, tilt: dist.Gamma(tilt.expand(len(x)) * 3, 1.0)
    )


def normal_by_coin():
    """A mass for a density."""
    return wrong_measure(lambda: dist.Normal(torch.tensor(0.0), 1.0), lambda x, tilt: dist.Bernoulli(logits=x * tilt))


def gamma_by_poisson():
    return wrong_measure(
        lambda: dist.Gamma(torch.tensor(3.0), 1.0), lambda x, tilt: dist.Poisson(3 * tilt.expand(len(x)))
    )


# -------------------------------------------------------------------------------------------------------------- mixed


def class_and_position():
    """A class, and a position given it; the guide's position leans on its class through a network."""
    means, net = torch.tensor([-1.5, 1.5]), nn.Linear(2, 1)
    nn.init.constant_(net.weight, 0.5)
    nn.init.zeros_(net.bias)

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.25, 0.75])))
            z = pyro.sample("z", dist.Normal(means[k], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=torch.stack([-x, x], -1)))
            seen = x.expand(k.shape)
            pyro.sample("z", dist.Normal(net(torch.stack([seen, means[k]], -1)).squeeze(-1), 0.75))

    def log_evidence(x):
        x = x.double()
        each = dist.Normal(means.double(), 2**0.5).log_prob(x[:, None]) + torch.tensor([0.25, 0.75]).double().log()
        return each.logsumexp(-1)

    mean = torch.stack([-REALS, REALS], -1).softmax(-1) @ means
    return Stranger(
        model,
        guide,
        (REALS,),
        log_evidence,
        guide_mean={"z": 0.5 * REALS + 0.5 * mean},
        refused=discrete("k"),
        exact=False,
    )


PROGRAMS = {
    f.__name__: f
    for f in (
        classes,
        classes_by_their_posterior,
        coins,
        one_hot_codes,
        one_hot_straight_through,
        poisson_events,
        geometric_waits,
        abundance,
        class_and_position,
        class_that_is_not,
        binomial_by_poisson,
        class_never_drawn,
        binomial_by_shorter,
        long_class_by_normal,
        coins_by_relaxed,
        coins_by_squashed_normal,
        coins_by_continuous_bernoulli,
        one_hot_by_relaxed,
        one_hot_by_dirichlet,
        poisson_by_gamma,
        normal_by_coin,
        gamma_by_poisson,
    )
}
