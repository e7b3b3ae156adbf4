"""Numbers that no distribution can have, named by program and site through every measurement; masks hide them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.checks.parameters import check_parameters

X = torch.linspace(-1, 1, 6)


def third(x, value, otherwise=1.0):
    return torch.where(torch.arange(len(x)) == 2, value, otherwise)


def pair(prior=1.0, likelihood=1.0, guide=lambda x: dist.Normal(x / 2, 0.7)):
    """Scales of the model, and the distribution that the guide draws from."""

    def model(x):
        level = pyro.param("level", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(level, prior))
            pyro.sample("x", dist.Normal(z, likelihood), obs=x)

    def q(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    return model, q


SMALL = {"progress": False}
MEASUREMENTS = {
    "evaluate": lambda pair: pv.evaluate(*pair, X, num_particles=5, **SMALL),
    "fit": lambda pair: pv.fit(*pair, X, epochs=1, **SMALL),
    "gaps": lambda pair: pv.gaps(*pair, X, num_steps=1, num_particles=5, **SMALL),
    "annealed": lambda pair: pv.annealed_evidence(*pair, X, num_temperatures=3, num_chains=2, **SMALL),
    "bidirectional": lambda pair: pv.bidirectional(*pair, X, num_data=4, num_temperatures=3, num_chains=2, **SMALL),
    "surgery": lambda pair: pv.surgery(*pair, X, **SMALL),
    "calibrate": lambda pair: pv.calibrate(*pair, X, num_simulations=6, num_draws=5, num_particles=5, **SMALL),
    "reference": lambda pair: pv.reference_posterior(*pair, X[2:3], num_draws=5, **SMALL),
    "check": lambda pair: pv.predictive_check(*pair, X, num_draws=5, **SMALL),
    "log_terms": lambda pair: pv.log_terms(*pair, X, num_particles=2),
}


@pytest.fixture(autouse=True)
def scope():
    with pyro.get_param_store().scope():
        yield


@pytest.mark.parametrize("measurement", MEASUREMENTS)
@pytest.mark.parametrize("value", [-1.0, math.nan], ids=["negative", "nan"])
@pytest.mark.parametrize("where", ["prior", "likelihood", "guide"])
def test_a_scale_that_is_none_names_program_and_site(where, value, measurement):
    programs = pair(**{where: (lambda x: dist.Normal(x / 2, value)) if where == "guide" else value})
    site = "x" if where == "likelihood" else "z"
    program = "guide" if where == "guide" else "model"
    with pytest.raises((InputError, FloatingPointError)) as raised:
        MEASUREMENTS[measurement](programs)
    assert f"site '{site}'" in str(raised.value) and program in str(raised.value)
    assert "scale of Normal is" in str(raised.value)


GUIDES = {  # the guide's distribution -> how it is refused
    "scale of one row": (
        lambda x: dist.Normal(x, third(x, -0.5)),
        InputError,
        r"site 'z' of the guide: scale of Normal is -0\.5 for 1 of 6 data, and must be above 0\. Make it by exp, softp",
    ),
    "location of one row": (
        lambda x: dist.Normal(third(x, math.nan), 1.0),
        FloatingPointError,
        r"site 'z': log density in the guide is nan for 1 of 6 data; .*: loc of Normal is nan",
    ),
    "inside a transform": (
        lambda x: dist.TransformedDistribution(
            dist.Normal(x, third(x, -1.0)), dist.transforms.AffineTransform(0.0, 2.0)
        ),
        InputError,
        "scale of Normal is -1 for 1 of 6 data",
    ),
    "inside a mixture": (
        lambda x: dist.MixtureSameFamily(
            dist.Categorical(torch.ones(len(x), 2)), dist.Normal(x[:, None], third(x, -1.0)[:, None].expand(-1, 2))
        ),
        InputError,
        "scale of Normal is -1 for 1 of 6 data",
    ),
    "a rate": (lambda x: dist.Gamma(2.0, third(x, -3.0)), InputError, "rate of Gamma is -3 for 1 of 6 data"),
    "a probability": (
        lambda x: dist.Bernoulli(third(x, 1.5, 0.5)),
        InputError,
        "probs of Bernoulli is 1.5 for 1 of 6 data, and must be between 0 and 1",
    ),
}


@pytest.mark.parametrize(("guide", "error", "message"), GUIDES.values(), ids=GUIDES)
def test_how_many_data_it_is(guide, error, message):
    with pyro.validation_enabled(False), pytest.raises(error, match=message):
        check_parameters("guide", {"z": {"fn": guide(X), "mask": None}}, -1)


def test_what_is_not_looked_at():
    """Masked sites, parameters that a family works out by itself, probabilities off by rounding, a scale of zero."""

    with pyro.validation_enabled(False):
        sites = {
            "masked": {"fn": dist.Normal(X, X), "mask": X > 0},
            "masked inside": {"fn": dist.Normal(X, X).mask(X > 0), "mask": None},
            "rounded": {"fn": dist.Bernoulli(torch.full((6,), 1 + 1e-6)), "mask": None},
            "still": {"fn": dist.Normal(X, 0.0), "mask": None},
            "class": {"fn": dist.Categorical(logits=torch.tensor([[0.0, -math.inf]] * 6)), "mask": None},
            "full": {"fn": dist.MultivariateNormal(torch.zeros(6, 2), torch.eye(2)), "mask": None},
        }
        check_parameters("model", sites, -1)


def test_a_scale_that_only_the_guides_draws_make_negative_is_the_guides_affair():
    """The prior never draws below zero: such draws weigh nothing, and the evidence is that of the others."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(1.0))
            pyro.sample("x", dist.Normal(0.0, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.ones(len(x)), 1.0))

    assert pv.evaluate(model, guide, X, num_particles=200, **SMALL).log_evidence.isfinite().all()


def test_draws_of_a_model_are_looked_at():
    with pytest.raises(InputError, match="site 'z' of the model: scale of Normal is -1, and must be above 0"):
        pv.sample(pair(prior=-1.0)[0], X, num_samples=3)
    with pytest.raises(InputError, match="site 'z' of the guide: scale of Normal is -1"):
        pv.posterior(*pair(guide=lambda x: dist.Normal(x, -1.0)), X)
