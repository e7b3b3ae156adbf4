"""Doubles, whole numbers, booleans; digits lost in float32; sums so large that rounding passes for exactness."""

import math

import pyro
import pyro.distributions as dist
import torch
from strangers.stranger import BY_DENSITIES, BY_WEIGHTS, Stranger, line, noise, positive, refuse, summed
from torch import nn

ALL = (*BY_WEIGHTS, *BY_DENSITIES, "calibrate", "reference", "predictive_check")
DIGITS = ("float64", "double", "float32", "precision", "digits", "rounding")
LOG_2PI = math.log(2 * math.pi)


def double_throughout():
    """Exact in doubles: to ten digits, not to six."""
    half = 0.5**0.5

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), x.new_ones(2)).to_event(1))
            pyro.sample("x", dist.Normal(z, x.new_tensor(1.0)).to_event(1), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5, dtype=torch.float64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, x.new_tensor(half)).to_event(1))

    def log_evidence(x):
        return (-(x**2) / 4 - math.log(2) / 2 - LOG_2PI / 2).sum(-1)

    x = noise(71, 6, 2).double() * 3
    mean = {"z": x / 2}
    return Stranger(
        model, guide, (x,), log_evidence, elbo=log_evidence(x), guide_mean=mean, posterior_mean=mean, exact=True
    )


def double_data_single_parameters():
    """Doubles meet parameters in float32, without a network: torch makes doubles of both."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 0.75))

    x = noise(72, 6).double()
    return Stranger(
        model,
        guide,
        (x,),
        lambda x: dist.Normal(0.0, 2**0.5).log_prob(x.double()),
        guide_mean={"z": x / 2},
        posterior_mean={"z": x / 2},
        exact=False,
    )


def double_data_single_network():
    """Numpy's doubles and a network in float32, as a stranger's first try has it: torch refuses, and so must we."""
    net = nn.Linear(2, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 0.75).to_event(1))

    skipped = ("posterior", "predictive_check", "reference", "log_terms")
    refused = refuse(None, "float64", "double", "dtype", "Double", by=tuple(set(ALL) - set(skipped)))
    return Stranger(model, guide, (noise(73, 6, 2).double(),), refused=refused, skipped=skipped)


# ------------------------------------------------------------------------------ observations cast in the model


def cast_counts():
    """Whole numbers, cast where they are used; conjugate."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.tensor(2.0), 1.0))
            pyro.sample("x", dist.Poisson(z), obs=x.float())

    def guide(x):
        rate = pyro.param("rate", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(x.float() + 2, rate.expand(len(x))))

    x = torch.tensor([0, 1, 2, 3, 5, 8])
    return summed(
        model,
        guide,
        (x,),
        positive(),
        lambda z, x: dist.Gamma(2.0, 1.0).log_prob(z)[:, None] + dist.Poisson(z[:, None]).log_prob(x),
        lambda z, x: dist.Gamma(x + 2.0, 2.0).log_prob(z[:, None]),
        lambda z: {"z": z},
        exact=True,
    )


def cast_pixels(dtype, ones=1):
    """Two pixels of one brightness, of this dtype."""

    def scaled(x):
        return x.to(torch.get_default_dtype()) / ones

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            logits = torch.stack([z, 0.5 * z - 0.5], -1)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=scaled(x))

    def guide(x):
        pull = pyro.param("pull", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pull * (scaled(x).sum(-1) - 1), 1.0))

    def joint(z, x):
        logits = torch.stack([z, 0.5 * z - 0.5], -1)[:, None]
        return dist.Normal(0.0, 1.0).log_prob(z)[:, None] + dist.Bernoulli(logits=logits).log_prob(x / ones).sum(-1)

    x = (torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]) * ones).to(dtype)
    rescaled = refuse(
        "x", "argument", "as they are", "cast", "itself", "depends", by=("bidirectional", "calibrate"), or_right=True
    )
    return summed(
        model,
        guide,
        (x,),
        line(-9, 9),
        lambda z, x: joint(z, x.double()),
        lambda z, x: dist.Normal(0.5 * (x.double().sum(-1) / ones - 1), 1.0).log_prob(z[:, None]),
        lambda z: {"z": z},
        exact=False,
        refused=rescaled if ones != 1 else {},
        skipped=("simulated",) if ones != 1 else (),
    )


def bool_pixels():
    return cast_pixels(torch.bool)


def byte_pixels():
    return cast_pixels(torch.uint8)


def short_pixels():
    return cast_pixels(torch.int16)


def bytes_up_to_255():
    """Pixels as they come in files, divided in the model."""
    return cast_pixels(torch.uint8, 255)


def long_classes():
    """Classes as torch labels them, observed as they are."""
    scores = torch.tensor([-1.0, 0.0, 1.0])

    def model(y):
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("y", dist.Categorical(logits=z[..., None] * scores), obs=y)

    def guide(y):
        pull = pyro.param("pull", torch.tensor(0.5))
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(pull * (y - 1), 0.875))

    return summed(
        model,
        guide,
        (torch.tensor([0, 1, 2, 2, 0, 1]),),
        line(-9, 9),
        lambda z, y: (
            dist.Normal(0.0, 1.0).log_prob(z)[:, None] + dist.Categorical(logits=z[:, None, None] * scores).log_prob(y)
        ),
        lambda z, y: dist.Normal(0.5 * (y - 1.0), 0.875).log_prob(z[:, None]),
        lambda z: {"z": z},
        exact=False,
    )


# ------------------------------------------------------------------------------------------------------ lost digits


def lost(likelihood, x):
    """A small effect of z; ``likelihood`` loses its digits in float32."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), width))

    return summed(
        model,
        guide,
        (x,),
        line(-9, 9),
        lambda z, x: dist.Normal(0.0, 1.0).log_prob(z)[:, None] + likelihood(z[:, None]).log_prob(x),
        lambda z, x: dist.Normal(torch.zeros(len(x)), 1.0).log_prob(z[:, None]),
        refused=refuse("x", *DIGITS, by=ALL, or_right=True),
        said=DIGITS,
        skipped=("surgery", "log_terms"),  # a table in the programs' own dtype, as asked for
    )


def nearly_poisson():
    """A negative binomial of dispersion a million."""
    return lost(
        lambda z: dist.NegativeBinomial(torch.full_like(z, 2.0**20), logits=3.0 + 0.25 * z - 20 * math.log(2.0)),
        torch.tensor([5.0, 10.0, 20.0, 20.0, 30.0, 40.0]),
    )


def nearly_normal():
    """A Student t of ten million degrees of freedom."""
    return lost(lambda z: dist.StudentT(torch.full_like(z, 1e7), z, torch.ones_like(z)), noise(74, 6))


def nearly_constant():
    """A gamma of mean one or so and a standard deviation of a thousandth of it."""
    return lost(
        lambda z: dist.Gamma(torch.full_like(z, 2.0**20), 2.0**20 * torch.exp(-0.001 * z)), 1 + 0.001 * noise(75, 6)
    )


def nearly_binomial():
    """A beta-binomial of concentration a million."""
    return lost(
        lambda z: dist.BetaBinomial(2.0**20 * torch.sigmoid(z), 2.0**20 * torch.sigmoid(-z), 10),
        torch.tensor([0.0, 2.0, 4.0, 5.0, 7.0, 10.0]),
    )


# ---------------------------------------------------------------------------------------------- "exact" by rounding


def many_pixels(width):
    """1,000 pixels, log p(x) of some fifty thousand nats; the guide is the posterior at a width of one."""
    generator = torch.Generator().manual_seed(76)
    slope = 0.04 * torch.randn(1000, generator=generator)
    centre = 3 * torch.randn(1000, generator=generator)
    x = torch.randn(4, 1, generator=generator) * slope + centre + 0.25 * torch.randn(4, 1000, generator=generator)
    x[:, :100] += 8  # these pixels fit badly: more nats, no more information
    precision = 1 + float(slope.double() @ slope.double()) * 16

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * slope + centre, 0.25).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(width / precision**0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - centre) @ slope * 16 / precision, scale))

    def log_evidence(x):
        residual = x.double() - centre.double()
        along = residual @ slope.double() * 16
        quadratic = (residual**2).sum(-1) * 16 - along**2 / precision
        return -quadratic / 2 - math.log(precision) / 2 - 1000 * (LOG_2PI / 2 + math.log(0.25))

    return Stranger(
        model, guide, (x,), log_evidence, exact=False if width != 1 else None, skipped=("surgery", "calibrate")
    )


def large_sums_by_a_narrow_guide():
    return many_pixels(0.75)


def large_sums_by_a_wide_guide():
    return many_pixels(1.5)


PROGRAMS = {
    f.__name__: f
    for f in (
        double_throughout,
        double_data_single_parameters,
        double_data_single_network,
        cast_counts,
        bool_pixels,
        byte_pixels,
        short_pixels,
        bytes_up_to_255,
        long_classes,
        nearly_poisson,
        nearly_normal,
        nearly_constant,
        nearly_binomial,
        large_sums_by_a_narrow_guide,
        large_sums_by_a_wide_guide,
    )
}
