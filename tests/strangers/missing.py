"""Missing entries: NaN under masks, with likelihoods of whole numbers and others; and validation switched off on purpose."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from strangers.stranger import OF_DRAWS, Stranger, line, noise, refuse, summed

SHIFT = torch.tensor([-0.5, 0.0, 0.75])
NAN = math.nan


def holes(values):
    """Whole numbers with holes; the last row has nothing but."""
    x = torch.tensor(values)
    x[0, 1], x[2, 0], x[2, 2], x[5] = NAN, NAN, NAN, NAN
    return x


COUNTS = holes([[0.0, 1, 2], [3, 1, 0], [0, 2, 1], [2, 2, 4], [1, 0, 1], [0, 0, 0]])
COINS = holes([[0.0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0]])
REALS = noise(81, 6, 3)
REALS[1, 1], REALS[3, 0], REALS[5] = NAN, NAN, NAN


def masked(likelihood, x, by_handler=False, **more):
    """One latent moves three entries, of which some are missing and masked."""

    def model(x):
        seen = ~x.isnan()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            d = likelihood(z[..., None] + SHIFT)
            if by_handler:
                with pyro.plate("entries", 3, dim=-2), poutine.mask(mask=seen.mT):
                    pyro.sample("x", likelihood(z[..., None, :] + SHIFT[:, None]), obs=x.mT)
            else:
                pyro.sample("x", d.mask(seen).to_event(1), obs=x)

    def guide(x):
        pull = pyro.param("pull", torch.tensor(0.125))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pull * x.nan_to_num(0.0).sum(-1), 0.875))

    def joint(z, x):
        seen = ~x.isnan()
        each = likelihood(z[:, None, None] + SHIFT).log_prob(x.nan_to_num(1.0))
        return dist.Normal(0.0, 1.0).log_prob(z)[:, None] + torch.where(seen, each, 0.0).sum(-1)

    def density(z, x):
        return dist.Normal(0.125 * x.nan_to_num(0.0).sum(-1), 0.875).log_prob(z[:, None])

    return summed(
        model, guide, (x,), line(-9, 9), joint, density, lambda z: {"z": z}, skipped=("simulated",), exact=False, **more
    )


def holes_in_counts():
    return masked(lambda eta: dist.Poisson(eta.exp()), COUNTS)


def holes_in_coins():
    return masked(lambda eta: dist.Bernoulli(logits=eta), COINS)


def holes_in_waits():
    return masked(lambda eta: dist.Geometric(logits=eta), COUNTS)


def holes_in_negative_binomial():
    return masked(lambda eta: dist.NegativeBinomial(3.0, logits=eta - 1), COUNTS)


def holes_in_inflated_counts():
    """Zeros of two kinds."""
    return masked(lambda eta: dist.ZeroInflatedPoisson(eta.exp(), gate=torch.tensor(0.25)), COUNTS)


def holes_in_classes():
    return masked(
        lambda eta: dist.Categorical(logits=eta[..., None] * torch.tensor([0.0, 0.25, 0.5, 0.5, 0.75])), COUNTS
    )


def holes_in_beta_binomial():
    return masked(lambda eta: dist.BetaBinomial(eta.exp(), torch.ones_like(eta), 6), COUNTS)


def holes_in_reals():
    return masked(lambda eta: dist.Normal(eta, 1.0), REALS)


def holes_under_a_handler():
    """The mask is poutine's, over an inner plate."""
    return masked(lambda eta: dist.Poisson(eta.exp()), COUNTS, by_handler=True, plate="data")


def holes_unmasked():
    """Nothing says that the holes are not data."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Poisson((z[..., None] + SHIFT).exp()).to_event(1), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.875))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), width))

    by = (*OF_DRAWS, "annealed", "gaps", "surgery", "fit", "predictive_check")
    refused = refuse(("x", "z"), "missing", "nan", "support", by=by) | refuse(
        None, "missing", "nan", "support", by=("fit",)
    )
    return Stranger(model, guide, (COUNTS,), refused=refused)


# --------------------------------------------------------------------------------- validation switched off on purpose


def documents_of_unlike_lengths():
    """Words counted in documents of unlike lengths: torch's multinomial checks for one length, so people turn that off."""
    words = torch.tensor([[2.0, 1, 0], [0, 5, 1], [1, 0, 0], [0, 0, 0], [3, 3, 3], [0, 1, 8]])
    topics = torch.tensor([1.0, 0.0, -1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Multinomial(logits=z[..., None] * topics, validate_args=False), obs=x)

    def guide(x):
        pull = pyro.param("pull", torch.tensor(0.25))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pull * (x @ topics), 0.625))

    def joint(z, x):
        coefficient = torch.lgamma(x.sum(-1) + 1) - torch.lgamma(x + 1).sum(-1)
        each = (x * (z[:, None, None] * topics).log_softmax(-1)).sum(-1)
        return dist.Normal(0.0, 1.0).log_prob(z)[:, None] + coefficient + each

    return summed(
        model,
        guide,
        (words,),
        line(-9, 9),
        joint,
        lambda z, x: dist.Normal(0.25 * (x @ topics.double()), 0.625).log_prob(z[:, None]),
        lambda z: {"z": z},
        exact=False,
        skipped=("bidirectional", "calibrate", "predictive_check"),  # what it would draw are documents of one word
    )


def bright_pixels():
    """A Bernoulli "likelihood" of grey pixels, its check turned off: no density, but a loss that people report."""
    grey = torch.tensor([[0.0, 0.25, 1.0], [0.5, 0.5, 0.0], [1.0, 0.75, 0.25], [0.0, 0.0, 1.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z[..., None] + SHIFT, validate_args=False).to_event(1), obs=x)

    def guide(x):
        pull = pyro.param("pull", torch.tensor(0.25))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pull * (x.sum(-1) - 1.5), 0.875))

    by = (*OF_DRAWS, "annealed", "gaps", "surgery", "fit")
    return Stranger(model, guide, (grey,), refused=refuse("x", "support", "binarize", by=by))


def unchecked_throughout():
    """validate_args=False at every site of a right pair changes nothing."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0, validate_args=False))
            pyro.sample("x", dist.Poisson(z.exp(), validate_args=False), obs=x)

    def guide(x):
        pull = pyro.param("pull", torch.tensor(0.25))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pull * x, 0.75, validate_args=False))

    x = torch.tensor([0.0, 1.0, 2.0, 0.0, 4.0, 1.0])
    return summed(
        model,
        guide,
        (x,),
        line(-9, 7),
        lambda z, x: dist.Normal(0.0, 1.0).log_prob(z)[:, None] + dist.Poisson(z[:, None].exp()).log_prob(x),
        lambda z, x: dist.Normal(0.25 * x, 0.75).log_prob(z[:, None]),
        lambda z: {"z": z},
        exact=False,
    )


PROGRAMS = {
    f.__name__: f
    for f in (
        holes_in_counts,
        holes_in_coins,
        holes_in_waits,
        holes_in_negative_binomial,
        holes_in_inflated_counts,
        holes_in_classes,
        holes_in_beta_binomial,
        holes_in_reals,
        holes_under_a_handler,
        documents_of_unlike_lengths,
        unchecked_throughout,
        holes_unmasked,
        bright_pixels,
    )
}
