"""Pairs whose gradients are exact by quadrature, with a row for each independent estimate of them.

All rows are one datum, and each has parameters of its own, so that one backward pass gives as many estimates as rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from pyrovae.pairs.context import own_scope
from pyrovae.pairs.handlers import tempered

ROWS = 20_000
STANDARD_ERRORS = 4
SCALE = 3.0  # rows of a part of the data stand for so many
BETA = 0.4
X = 1.3


def log_normal(value, loc, scale):
    return dist.Normal(loc, scale).log_prob(value)


class Pair(NamedTuple):
    """Programs by parameters of each row, and what they are, as functions of parameters and draws."""

    model: Callable
    guide: Callable
    start: dict  # parameter -> its value in every row
    num_noise: int  # standard normals behind one draw
    draw: Callable  # parameters, noise (..., num_noise) -> latents
    log_likelihood: Callable  # parameters, latents -> nats
    log_prior: Callable
    log_guide: Callable
    of_model: tuple = ("weight",)
    beta: float = 1.0

    def log_joint(self, values, z):
        return self.log_likelihood(values, z) + self.beta * self.log_prior(values, z)

    def log_weight(self, values, z):
        return self.log_joint(values, z) - self.beta * self.log_guide(values, z)


def parameter(name, value, rows):
    return pyro.param(name, lambda: torch.full((rows,), value, dtype=torch.float64))


def one_latent(plate=lambda x: pyro.plate("data", len(x)), raw=-0.7):
    """z ~ N(0, 1), x ~ N(w z, 1); the guide is beside the posterior, and too narrow: its width is exp(raw)."""
    start = {"loc": 0.2, "raw": raw, "weight": 1.4}

    def model(x):
        weight = parameter("weight", start["weight"], len(x))
        with plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)

    def guide(x):
        loc, raw = (parameter(name, start[name], len(x)) for name in ("loc", "raw"))
        with plate(x):
            pyro.sample("z", dist.Normal(loc, raw.exp()))

    return Pair(
        model,
        guide,
        start,
        1,
        lambda p, noise: (p["loc"] + p["raw"].exp() * noise[..., 0],),
        lambda p, z: log_normal(torch.tensor(X).double(), p["weight"] * z[0], 1.0),
        lambda p, z: log_normal(z[0], 0.0, 1.0),
        lambda p, z: log_normal(z[0], p["loc"], p["raw"].exp()),
    )


def chain():
    """z1 ~ N(0, 1), z2 ~ N(z1, 1), x ~ N(w z2, 1); the guide draws z2 first and z1 by a scale that depends on it."""
    start = {"loc": 0.5, "raw": -0.4, "slope": 0.8, "weight": 1.2}

    def model(x):
        weight = parameter("weight", start["weight"], len(x))
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(torch.zeros_like(x), 1.0))
            z2 = pyro.sample("z2", dist.Normal(z1, 1.0))
            pyro.sample("x", dist.Normal(weight * z2, 1.0), obs=x)

    def second(p, z2):
        return p["slope"] * z2, (0.3 * z2 - 0.5).exp()

    def guide(x):
        p = {name: parameter(name, start[name], len(x)) for name in ("loc", "raw", "slope")}
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(p["loc"], p["raw"].exp()))
            pyro.sample("z1", dist.Normal(*second(p, z2)))

    def draw(p, noise):
        z2 = p["loc"] + p["raw"].exp() * noise[..., 0]
        loc, scale = second(p, z2)
        return loc + scale * noise[..., 1], z2

    return Pair(
        model,
        guide,
        start,
        2,
        draw,
        lambda p, z: log_normal(torch.tensor(X).double(), p["weight"] * z[1], 1.0),
        lambda p, z: log_normal(z[0], 0.0, 1.0) + log_normal(z[1], z[0], 1.0),
        lambda p, z: log_normal(z[1], p["loc"], p["raw"].exp()) + log_normal(z[0], *second(p, z[1])),
    )


def warmed_up():
    """The first, its KL by a power within the weight."""
    pair = one_latent()
    model, guide = (tempered(program, torch.tensor(BETA).double()) for program in (pair.model, pair.guide))
    return pair._replace(model=model, guide=guide, beta=BETA)


def on_a_part():
    """The first, its rows those of a larger set."""
    return one_latent(lambda x: pyro.plate("data", int(SCALE * len(x)), subsample=x))


PAIRS = {"one latent": one_latent, "chain": chain, "warmed up": warmed_up}


def estimates(objective, pair, rows=ROWS, seed=0):
    """The gradient of the bound by each parameter: name -> (rows,), one estimate in each row."""
    x = torch.full((rows,), X, dtype=torch.float64)
    with own_scope(pair.model, pair.guide, fresh=True):
        objective.prepare(pair.model, pair.guide, x)
        torch.manual_seed(seed)
        loss = objective.differentiable_loss(pair.model, pair.guide, x)
        named = dict(pyro.get_param_store().named_parameters())
        gradients = torch.autograd.grad(-loss, list(named.values()), allow_unused=True)
        return {name: torch.zeros(rows).double() if g is None else g for name, g in zip(named, gradients, strict=True)}


def nodes(num_noise, num_nodes=14):
    """Points (nodes, num_noise) and weights of the expectation over standard normals."""
    points, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grid = torch.cartesian_prod(*[torch.tensor(points)] * num_noise).reshape(-1, num_noise)
    weight = torch.cartesian_prod(*[torch.tensor(weights / weights.sum())] * num_noise)
    return grid, weight.reshape(-1, num_noise).prod(-1)


def exact(pair, per_datum, num_particles):
    """The gradient of an expectation over K draws: name -> number.

    ``per_datum`` takes parameters and latents, each (nodes, K), and gives (nodes,).
    """
    values = {name: torch.tensor(v, dtype=torch.float64, requires_grad=True) for name, v in pair.start.items()}
    noise, weight = nodes(num_particles * pair.num_noise)
    noise = noise.unflatten(-1, (num_particles, pair.num_noise))
    expectation = (weight * per_datum(values, pair.draw(values, noise))).sum()
    found = torch.autograd.grad(expectation, list(values.values()), allow_unused=True)
    return {name: 0.0 if g is None else g.item() for name, g in zip(values, found, strict=True)}


def assert_unbiased(found, expected, factor=1.0):
    """Mean gradients within so many standard errors of exact ones, and not all of them without noise or of zero."""
    assert found.keys() == expected.keys()
    assert any(abs(value) > 0.1 for value in expected.values())
    for name, rows in found.items():
        error = STANDARD_ERRORS * rows.std().item() / len(rows) ** 0.5 + 1e-9
        assert abs(rows.mean().item() - factor * expected[name]) < error, (name, rows.mean(), expected[name], error)
