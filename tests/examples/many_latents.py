"""Pairs whose latents are of all the common families, in groups, so that one graph holds a whole group."""

from collections import namedtuple

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.nn.functional import softplus


def _pairs(a, b):
    return torch.stack([a, b], -1)


def _above(a):
    return softplus(a) + 0.5


FAMILIES = {  # name -> distribution of two unconstrained numbers for each datum
    "normal": lambda a, b: dist.Normal(a, _above(b)),
    "laplace": lambda a, b: dist.Laplace(a, _above(b)),
    "student": lambda a, b: dist.StudentT(5.0, a, _above(b)),
    "mixture": lambda a, b: dist.MixtureSameFamily(
        dist.Categorical(logits=_pairs(a, b)), dist.Normal(_pairs(a, b), 1.0)
    ),
    "multivariate": lambda a, b: dist.MultivariateNormal(_pairs(a, b), torch.eye(2, dtype=a.dtype)),
    "log-normal": lambda a, b: dist.LogNormal(a, _above(b)),
    "exponential": lambda a, b: dist.Exponential(_above(a)),
    "half-cauchy": lambda a, b: dist.HalfCauchy(_above(a)),
    "weibull": lambda a, b: dist.Weibull(_above(a) + 1, _above(b)),
    "gamma": lambda a, b: dist.Gamma(_above(a) + 1, _above(b)),
    "inverse gamma": lambda a, b: dist.InverseGamma(_above(a) + 1, _above(b)),
    "beta": lambda a, b: dist.Beta(_above(a) + 1, _above(b) + 1),
    "dirichlet": lambda a, b: dist.Dirichlet(_pairs(_above(a), _above(b)) + 1),
    "kumaraswamy": lambda a, b: dist.Kumaraswamy(_above(a) + 1, _above(b) + 1),
    "uniform": lambda a, b: dist.Uniform(0 * a, 1 + 0 * a),
    "relaxed": lambda a, b: dist.RelaxedBernoulli(torch.tensor(0.7, dtype=a.dtype), logits=a),
    "poisson": lambda a, b: dist.Poisson(_above(a)),
    "binomial": lambda a, b: dist.Binomial(5, logits=a),
    "geometric": lambda a, b: dist.Geometric(logits=a),
    "negative binomial": lambda a, b: dist.NegativeBinomial(5.0, logits=a),
    "multinomial": lambda a, b: dist.Multinomial(3, logits=_pairs(a, b)),
    "bernoulli": lambda a, b: dist.Bernoulli(logits=a),
    "categorical": lambda a, b: dist.Categorical(logits=_pairs(a, b)),
    "one-hot": lambda a, b: dist.OneHotCategorical(logits=_pairs(a, b)),
    "straight-through": lambda a, b: dist.OneHotCategoricalStraightThrough(logits=_pairs(a, b)),
    "angle": lambda a, b: dist.VonMises(a, _above(b)),
}
GROUPS = {
    "reals": ("normal", "laplace", "student", "mixture", "multivariate"),
    "half-lines": ("log-normal", "exponential", "half-cauchy", "weibull", "gamma", "inverse gamma"),
    "intervals": ("beta", "dirichlet", "kumaraswamy", "uniform", "relaxed"),
    "counts": ("poisson", "binomial", "geometric", "negative binomial", "multinomial"),
    "classes": ("bernoulli", "categorical", "one-hot", "straight-through"),
}

DTYPES = {"counts": torch.float64, "classes": torch.float64}  # the others in float32
Pair = namedtuple("Pair", "model guide")


def make_pair(names, dtype=torch.float32):
    """A model and a guide with a latent of each family; the data are one number each."""
    net = nn.Linear(1, 2 * len(names), dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(torch.linspace(-0.5, 0.5, 2 * len(names))[:, None])
        net.bias.copy_(torch.linspace(0.3, -0.3, 2 * len(names)))

    def model(x):
        total, zero = 0.0, x.new_zeros(())
        with pyro.plate("data", len(x)):
            for name in names:
                fn = FAMILIES[name](zero, zero)
                z = pyro.sample(name, fn).to(x.dtype)
                total = total + (z[..., 0] if fn.event_shape else z)
            pyro.sample("x", dist.Normal(total.tanh(), 1.0), obs=x)

    def guide(x):
        pyro.module("net", net)
        parameters = net(x[..., None])
        with pyro.plate("data", len(x)):
            for i, name in enumerate(names):
                pyro.sample(name, FAMILIES[name](parameters[..., 2 * i], parameters[..., 2 * i + 1]))

    return Pair(model, guide)


def make_points(dtype=torch.float32, num=96):
    return torch.randn(num, generator=torch.Generator().manual_seed(2), dtype=dtype)
