"""Programs of every style that Pyro allows, each with its table of log densities by hand."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyrovae.programs.oracles import factor_analysis, ppca
from pyrovae.programs.oracles.mixtures import FiniteMixture

N, D, Z, K = 5, 4, 2, 3


class Case(NamedTuple):
    """A pair, and what its table must be: ``table`` of the latents (K, N, ...), or the exact ``evidence``."""

    model: Callable
    guide: Callable
    args: tuple
    way: str = "vectorized"
    table: Callable | None = None  # latents -> (log likelihood, log prior, log guide)
    evidence: Any = None
    plate: str | None = None


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(value, loc=0.0, scale=1.0, event_dim=1):
    """log N(value; loc, scale), summed over the last dimensions, without torch.distributions."""
    scale = torch.as_tensor(scale, dtype=torch.float64)
    log_prob = -(((value - loc) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2
    return log_prob.sum([-1 - i for i in range(event_dim)]) if event_dim else log_prob


X, W, A = doubles(N, D, seed=1), doubles(D, Z, seed=2), doubles(D, Z, seed=3) / 3
ZERO = torch.zeros(Z, dtype=torch.float64)
ONE = torch.tensor(1.0, dtype=torch.float64)


def linear_model(x, more=None):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1), obs=x)
        if more is not None:
            more()


def linear_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ A, 0.7 * ONE).to_event(1))


def linear_table(z):
    return normal(X, z @ W.T), normal(z), normal(z, X @ A, 0.7)


def linear_case(**changes):
    return Case(**{"model": linear_model, "guide": linear_guide, "args": (X,), "table": linear_table, **changes})


# ---------------------------------------------------------------------------- styles of parameters


class Module(nn.Module):
    """Programs as methods; ``decoder`` and ``encoder`` are changed by the cases below."""

    def __init__(self, decoder=None, encoder=None, num_latents=Z):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.decoder = decoder or nn.Linear(Z, D).double()
            self.encoder = encoder or nn.Linear(D, num_latents).double()
        self.num_latents = num_latents

    def model(self, x):
        pyro.module("module", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.num_latents), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), ONE).to_event(x.dim() - 1), obs=x)

    def guide(self, x):
        pyro.module("module", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5 * ONE).to_event(1))

    def case(self, x, way="vectorized"):
        def table(z):
            rows = z.reshape(-1, z.shape[-1])  # K N rows: what every network takes
            loc = self.decoder(rows).reshape(len(z), *x.shape)
            return normal(x, loc, event_dim=x.dim() - 1), normal(z), normal(z, self.encoder(x), 0.5)

        return Case(self.model, self.guide, (x,), way, table)


def params():
    """Closures over networks, with pyro.module and a constrained pyro.param; no class at all."""
    decoder, encoder = Module().decoder, Module().encoder

    def model(x):
        pyro.module("decoder", decoder)
        scale = pyro.param("scale", 0.8 * ONE, constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        width = pyro.param("width", lambda: torch.full((Z,), 0.3, dtype=torch.float64), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), width).to_event(1))

    return Case(model, guide, (X,), table=lambda z: (normal(X, decoder(z), 0.8), normal(z), normal(z, encoder(X), 0.3)))


class WithPyroParam(PyroModule):
    """Parameters as attributes, made by Pyro at their first use."""

    def __init__(self):
        super().__init__()
        self.loadings = PyroParam(W.clone())
        self.scale = PyroParam(0.9 * ONE, constraint=constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.loadings.T, self.scale).to_event(1), obs=x)


def pyro_module():
    return linear_case(model=WithPyroParam(), table=lambda z: (normal(X, z @ W.T, 0.9), *linear_table(z)[1:]))


def auto_normal():
    """An autoguide: an auxiliary draw, a transform of it, and parameters for a fixed batch."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1), obs=x)

    guide = AutoNormal(model, init_scale=0.2)

    def table(z):
        with pyro.get_param_store().scope():
            loc, scale = guide.locs.z.detach(), guide.scales.z.detach()
        u = z.log()
        return normal(X, z @ W.T), normal(u) - u.sum(-1), normal(u, loc, scale) - u.sum(-1)

    return Case(model, guide, (X,), table=table)


# ------------------------------------------------------------------------------------- more sites


def hierarchical():
    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(ONE, 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2[..., None] + ZERO, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ W.T, ONE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x @ A, 0.7).to_event(1))
            pyro.sample("z2", dist.Normal(z1.sum(-1), 0.3))

    def table(z1, z2):
        prior = normal(z2, 1.0, event_dim=0) + normal(z1, z2[..., None], 0.5)
        return normal(X, z1 @ W.T), prior, normal(z1, X @ A, 0.7) + normal(z2, z1.sum(-1), 0.3, event_dim=0)

    return Case(model, guide, (X,), table=table)


def two_observed():
    y = doubles(N, seed=8)

    def model(x, y):
        linear_model(x, lambda: pyro.sample("y", dist.Normal(x[:, 0], 2.0), obs=y))

    def table(z):
        likelihood, prior, guide = linear_table(z)
        return likelihood + normal(y, X[:, 0], 2.0, event_dim=0), prior, guide

    return linear_case(model=model, guide=lambda x, y: linear_guide(x), args=(X, y), table=table)


def factor():
    def model(x):
        linear_model(x, lambda: pyro.factor("penalty", -x.square().sum(-1)))

    return linear_case(
        model=model,
        table=lambda z: (linear_table(z)[0] - X.square().sum(-1), *linear_table(z)[1:]),
    )


def deterministic():
    """Named values have no density, wherever they stand."""

    def model(x):
        pyro.deterministic("loadings", W)
        linear_model(x)

    def guide(x):
        pyro.deterministic("mean", x @ A)
        linear_guide(x)

    return linear_case(model=model, guide=guide)


def no_latents():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0 * x, ONE).to_event(1), obs=x)

    return Case(model, lambda x: None, (X,), evidence=normal(X))


def discrete_and_continuous():
    weights, means = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), doubles(3, D, seed=4)

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights))
            z = pyro.sample("z", dist.Normal(k.double()[..., None] + ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(means[k] + z @ W.T, ONE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3).double()))
            pyro.sample("z", dist.Normal((x - means[k]) @ A, 0.7).to_event(1))

    def table(k, z):
        prior = weights[k].log() + normal(z, k[..., None].double())
        return normal(X, means[k] + z @ W.T), prior, normal(z, (X - means[k]) @ A, 0.7) - math.log(3)

    return Case(model, guide, (X,), table=table)


# ------------------------------------------------------------------------------------------ plates


def pixels_left():
    """Data at dim -1, pixels at dim -2."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            with pyro.plate("pixels", D, dim=-2):
                loc = (z * W[:, None]).sum(-1)  # (K, 1, N, Z) or (N, Z) with (D, 1, Z): (..., D, N)
                pyro.sample("x", dist.Normal(loc, ONE), obs=x.T)

    return linear_case(model=model)


def pixels_right(**changes):
    """Data at dim -2, pixels at dim -1; the latent has its plate of size one on the right."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))  # (..., N, 1, Z)
            with pyro.plate("pixels", D, dim=-1):
                pyro.sample("x", dist.Normal((z * W).sum(-1), ONE), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal((x @ A)[:, None], 0.7).to_event(1))

    return linear_case(model=model, guide=guide, **changes)


def latents_in_an_inner_plate():
    """A latent for every coordinate of every datum, in a plate beside that of the data."""
    x = X[:, :Z]

    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", Z, dim=-1):
            z = pyro.sample("z", dist.Normal(0 * ONE, 1.0))
            pyro.sample("x", dist.Normal(z, ONE), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", Z, dim=-1):
            pyro.sample("z", dist.Normal(x, 0.7))

    return Case(model, guide, (x,), table=lambda z: (normal(x, z), normal(z), normal(z, x, 0.7)), plate="data")


def sequential_inside():
    """A sequential plate inside the data plate: one site for each feature."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            for d in pyro.plate("features", D):
                pyro.sample(f"x_{d}", dist.Normal(z @ W[d], ONE), obs=x[:, d])

    return linear_case(model=model)


def subsample_given():
    """The data are rows of a larger set: Pyro scales their density up, the table does not."""

    def model(x):
        with pyro.plate("data", 1000, subsample=x):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 1000, subsample=x):
            pyro.sample("z", dist.Normal(x @ A, 0.7).to_event(1))

    return linear_case(model=model, guide=guide)


# ----------------------------------------------------------------------------------------- handlers

MASK = doubles(N, D, seed=5) > 0


def masked(style, fill):
    """The exact posterior given the observed coordinates alone: log weights are their marginal density."""
    oracle = factor_analysis(D, Z)
    x = torch.where(MASK, oracle.draw(N, seed=0)[0], fill)
    rows = [oracle.loadings[m] / oracle.noise_scale[m, None] for m in MASK]
    precision = torch.stack([torch.eye(Z).double() + w.T @ w for w in rows])
    ratio = [(x[n, m] - oracle.bias[m]) / oracle.noise_scale[m] for n, m in enumerate(MASK)]
    mean = torch.stack([p.inverse() @ w.T @ r for p, w, r in zip(precision, rows, ratio, strict=True)])
    evidence = [
        dist.MultivariateNormal(
            oracle.bias[m], oracle.loadings[m] @ oracle.loadings[m].T + oracle.noise_scale[m].square().diag()
        ).log_prob(x[n, m])
        if m.any()
        else 0 * ONE
        for n, m in enumerate(MASK)
    ]
    dim = -2 if style == "poutine" else -1

    def model(x, mask):
        with pyro.plate("data", len(x), dim=dim):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            likelihood = dist.Normal((z @ oracle.loadings.T) + oracle.bias, oracle.noise_scale)
            if style == "distribution":
                pyro.sample("x", likelihood.mask(mask).to_event(1), obs=x)
            else:  # (..., N, 1, D) -> (..., N, D)
                likelihood = dist.Normal(likelihood.loc.squeeze(-2), oracle.noise_scale)
                with pyro.plate("pixels", D, dim=-1), poutine.mask(mask=mask):
                    pyro.sample("x", likelihood, obs=x)

    def guide(x, mask):
        with pyro.plate("data", len(x), dim=dim):
            loc, wide = (mean, precision) if dim == -1 else (mean[:, None], precision[:, None])
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=wide))

    return Case(model, guide, (x, MASK), evidence=torch.stack(evidence))


def masked_rows():
    """A mask over data, around both programs."""
    keep = torch.tensor([True, False, True, True, False])
    return linear_case(
        model=poutine.mask(linear_model, mask=keep),
        guide=poutine.mask(linear_guide, mask=keep),
        table=lambda z: tuple(torch.where(keep, t, 0.0) for t in linear_table(z)),
    )


# ------------------------------------------------------------------------------------ other programs


def arguments():
    """Labels, covariates and plain options beside the data."""
    labels, covariates = torch.tensor([0, 1, 2, 0, 1]), doubles(N, 3, seed=6)
    offsets = doubles(3, D, seed=7)

    def model(x, labels, covariates, temperature, flip):
        sign = -1.0 if flip else 1.0
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(sign * covariates[:, :Z], temperature).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T + offsets[labels], ONE).to_event(1), obs=x)

    def table(z):
        prior = normal(z, -covariates[:, :Z], 2.0)
        return normal(X, z @ W.T + offsets[labels]), prior, normal(z, X @ A, 0.7)

    args = (X, labels, covariates, 2.0, True)
    return linear_case(model=model, guide=lambda x, *rest: linear_guide(x), args=args, table=table)


def hard_wired():
    """The batch size is written into the program."""

    def model(x):
        with pyro.plate("data", N):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.reshape(N, Z) @ W.T, ONE).to_event(1), obs=x)

    return linear_case(model=model, way="looped")


def convolution():
    """Images through convolutions that refuse a fifth dimension."""
    decoder = nn.Sequential(nn.Linear(Z, 8), nn.Unflatten(-1, (2, 2, 2)), nn.ConvTranspose2d(2, 1, 3)).double()
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, Z)).double()
    return Module(decoder, encoder).case(doubles(N, 1, 4, 4), way="tiled")


def batch_norm():
    """As many data as features: (K, N, F) is taken for (N, F, L) without an error."""
    norm = nn.BatchNorm1d(N)
    norm.running_mean, norm.running_var = doubles(N, seed=1).float(), doubles(N, seed=2).exp().float()
    decoder = nn.Sequential(nn.Linear(Z, N), norm, nn.Linear(N, D)).double().eval()
    return Module(decoder).case(X, way="tiled")


def recurrent():
    """A GRU over pixels takes (K, N, Z) for sequences, without an error."""

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.out = nn.GRU(Z, 3, batch_first=True), nn.Linear(3, D)

        def forward(self, z):
            return self.out(self.gru(z if z.dim() == 3 else z[:, None])[0].reshape(*z.shape[:-1], 3))

    return Module(Decoder().double()).case(X, way="tiled")


def pyro_example():
    """Pyro's own VAE example: zeros of the batch's size, softplus networks, flattened images, float32."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fc1, fc21 = nn.Linear(Z, 40), nn.Linear(40, 784)
        enc1, enc21, enc22 = nn.Linear(784, 40), nn.Linear(40, Z), nn.Linear(40, Z)
    x = (doubles(N, 1, 28, 28) > 0).float()
    networks = nn.ModuleDict({"fc1": fc1, "fc21": fc21, "enc1": enc1, "enc21": enc21, "enc22": enc22})

    def decode(z):
        return torch.sigmoid(fc21(softplus(fc1(z))))

    def encode(x):
        hidden = softplus(enc1(x.reshape(-1, 784)))
        return enc21(hidden), enc22(hidden).exp()

    def model(x):
        pyro.module("decoder", networks)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros(torch.Size((x.shape[0], Z)))
            z_scale = x.new_ones(torch.Size((x.shape[0], Z)))
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc_img = decode(z)
            pyro.sample("obs", dist.Bernoulli(loc_img, validate_args=False).to_event(1), obs=x.reshape(-1, 784))

    def guide(x):
        pyro.module("encoder", networks)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = encode(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))

    def table(latent):
        pixels, probs = x.reshape(-1, 784), decode(latent).double()
        loc, scale = encode(x)
        likelihood = (pixels * probs.log() + (1 - pixels) * (1 - probs).log()).sum(-1)
        return likelihood, normal(latent.double()), normal(latent.double(), loc, scale.double())

    return Case(model, guide, (x,), table=table)


def partials():
    def model(offset, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T + offset, ONE).to_event(1), obs=x)

    table = partial(lambda z: (normal(X, z @ W.T + 3.0), *linear_table(z)[1:]))
    return linear_case(model=partial(model, 3.0), table=table)


def conditioned():
    """The data come from poutine.condition, and the model is a sampler."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1))

    return linear_case(model=lambda x: poutine.condition(model, data={"x": x})(x))


def oracle_case(oracle, num_data=1000):
    x, _ = oracle.draw(num_data, seed=1)
    return Case(oracle.model, oracle.guide, (x,), evidence=oracle.log_evidence(x))


def coins():
    means = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).double()
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    return oracle_case(FiniteMixture(weights, means, lambda mean: dist.Bernoulli(mean).to_event(1)))


ZOO = {
    "functions": linear_case,
    "module": lambda: Module().case(X),
    "params": params,
    "pyro-module": pyro_module,
    "auto-normal": auto_normal,
    "hierarchical": hierarchical,
    "two-observed": two_observed,
    "factor": factor,
    "deterministic": deterministic,
    "no-latents": no_latents,
    "discrete-and-continuous": discrete_and_continuous,
    "pixels-left": pixels_left,
    "pixels-right": pixels_right,
    "latents-in-an-inner-plate": latents_in_an_inner_plate,
    "sequential-inside": sequential_inside,
    "subsample-given": subsample_given,
    "masked": lambda: masked("poutine", 0.0),
    "masked-nan": lambda: masked("poutine", math.nan),
    "masked-distribution": lambda: masked("distribution", 0.0),
    "masked-distribution-nan": lambda: masked("distribution", math.nan),
    "masked-rows": masked_rows,
    "scaled-model": lambda: linear_case(model=poutine.scale(linear_model, scale=3.0)),
    "scaled-guide": lambda: linear_case(guide=poutine.scale(linear_guide, scale=0.1)),
    "scaled-by-data": lambda: linear_case(model=poutine.scale(linear_model, scale=X[:, 0].exp())),
    "arguments": arguments,
    "convolution": convolution,
    "batch-norm": batch_norm,
    "recurrent": recurrent,
    "hard-wired": hard_wired,
    "pyro-example": pyro_example,
    "partials": partials,
    "conditioned": conditioned,
    "ppca": lambda: oracle_case(ppca(20, 3)),
    "factor-analysis": lambda: oracle_case(factor_analysis(12, 4)),
    "mixture": coins,
}
