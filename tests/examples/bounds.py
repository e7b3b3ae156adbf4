"""Pairs to train, their bounds with gradients, and their tables by hand at the same draws."""

from functools import partial

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from examples.recorded import Recorded
from examples.zoo import (
    ONE,
    ZERO,
    ZOO,
    A,
    Case,
    D,
    N,
    W,
    X,
    Z,
    doubles,
    linear_table,
)
from pyro.infer import Trace_ELBO
from torch.distributions import constraints

from pyrovae.pairs.context import own_scope
from pyrovae.pairs.handlers import scorable, tempered

EXACT = {"rtol": 1e-10, "atol": 1e-10}

BETA = torch.tensor(0.3, dtype=torch.float64)


def trained_model(x, size=None):
    """Linear and Gaussian, with parameters; the rows may stand for a larger set."""
    loadings = pyro.param("loadings", lambda: W.clone())
    with pyro.plate("data", size, subsample=x) if size else pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ loadings.T, ONE).to_event(1), obs=x)


def trained_guide(x, size=None):
    width = pyro.param("width", lambda: 0.7 * ONE, constraint=constraints.positive)
    with pyro.plate("data", size, subsample=x) if size else pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ pyro.param("slope", lambda: A.clone()), width).to_event(1))


def trained(handler=lambda program: program, size=None):
    model, guide = (handler(partial(program, size=size)) for program in (trained_model, trained_guide))
    return Case(model, guide, (X,))


def convolution(**changes):
    """A decoder that takes no particle dimension, of a batch that stands for a larger set."""
    case = ZOO["convolution"]()
    networks = case.model.__self__

    def model(x):
        with pyro.plate("data", 40, subsample=x):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(networks.decoder(z), ONE).to_event(3), obs=x)

    def guide(x):
        pyro.module("module", networks)
        with pyro.plate("data", 40, subsample=x):
            pyro.sample("z", dist.Normal(networks.encoder(x), 0.5 * ONE).to_event(1))

    return case._replace(**{"model": model, "guide": guide, **changes})


def chain():
    """Three latents, drawn in the model's order, of which the last has no closed form."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(pyro.param("prior", 0.2 * ONE), 1.0))
            b = pyro.sample("b", dist.Normal(a[..., None] + ZERO, 0.5).to_event(1))
            c = pyro.sample("c", dist.StudentT(5.0, b.sum(-1), ONE))
            pyro.sample("x", dist.Normal(b @ W.T + c[..., None], ONE).to_event(1), obs=x)

    def guide(x):
        slope = pyro.param("slope", lambda: A.clone())
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.mean(-1), pyro.param("width", 0.6 * ONE)))
            b = pyro.sample("b", dist.Normal(x @ slope + a[..., None], 0.7 * ONE).to_event(1))
            pyro.sample("c", dist.Normal(b.mean(-1), 0.4 * ONE))

    return Case(model, guide, (X,))


def discrete():
    """Draws without gradients: one in each datum, and one in each part of a datum, whose scores meet fewer terms."""

    def model(x):
        means = pyro.param("means", lambda: doubles(3, D, seed=4))
        with pyro.plate("data", len(x), dim=-2):
            k = pyro.sample("k", dist.Categorical(torch.ones(3).double()))
            with pyro.plate("pixels", D, dim=-1):
                on = pyro.sample("on", dist.Bernoulli(0.4 * ONE))
                pyro.sample("x", dist.Normal(on * means[k.squeeze(-1)], ONE), obs=x)

    def guide(x):
        logits = pyro.param("logits", lambda: doubles(D, 3, seed=5))
        chance = pyro.param("chance", lambda: torch.full((D,), 0.3).double(), constraint=constraints.unit_interval)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("k", dist.Categorical(logits=(x @ logits)[:, None]))
            with pyro.plate("pixels", D, dim=-1):
                pyro.sample("on", dist.Bernoulli(chance))

    return Case(model, guide, (X,))


KEEP = torch.tensor([True, False, True, True, False])

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1]).double()

TRAINED = {  # pairs whose parameters are all that they learn
    "trained": trained,
    "trained-on-a-part": partial(trained, size=1000),
    "trained-scaled": partial(trained, lambda program: poutine.scale(program, scale=0.37)),
    "trained-weighted": partial(trained, lambda program: poutine.scale(program, scale=WEIGHTS)),
    "trained-masked": partial(trained, lambda program: poutine.mask(program, mask=KEEP)),
    "trained-tempered": partial(trained, lambda program: tempered(program, BETA)),
    "trained-tempered-on-a-part": partial(trained, lambda program: tempered(program, BETA), size=1000),
    "chain": chain,
}

PAIRS = {**ZOO, **TRAINED, "discrete": discrete, "convolution-on-a-part": convolution}

DEPTH = dict.fromkeys(
    ["pixels-left", "pixels-right", "latents-in-an-inner-plate", "masked", "masked-nan", "discrete"], 2
)

NOT_VECTORIZED = {"convolution", "convolution-on-a-part", "batch-norm", "recurrent", "hard-wired"}

NO_GRADIENT = {"discrete", "discrete-and-continuous", "mixture"}

CONTINUOUS = sorted(PAIRS.keys() - NO_GRADIENT)

NO_CLOSED_FORM = {  # pair -> what AnalyticKLELBO says
    "hierarchical": r"model's order, \['z2', 'z1'\], .* but it draws \['z1', 'z2'\]",
    "scaled-model": "site 'z' has one scale in the model",
    "scaled-guide": "site 'z' has one scale in the model",
    "scaled-by-data": "site 'z' has one scale in the model",
    **dict.fromkeys(sorted(NO_GRADIENT), "site '(k|on)' of the guide cannot be reparameterized: .* AnalyticKLELBO"),
}


def built(name):
    torch.manual_seed(0)
    return PAIRS[name]()


def evaluated(objective, case, seed=3):
    """Loss, and its gradients by the data (where they are real numbers) and by all parameters."""
    x, *rest = case.args
    x, model = x.clone().requires_grad_(), case.model
    if isinstance(objective, Trace_ELBO):
        model = scorable(model)  # or Pyro's gradients are NaN where x is masked
    with own_scope(case.model, case.guide), pyro.validation_enabled(False):
        if not isinstance(objective, Trace_ELBO):
            objective.prepare(model, case.guide, x, *rest)
        torch.manual_seed(seed)
        loss = objective.differentiable_loss(model, case.guide, x, *rest)
        named = {"data": x, **dict(pyro.get_param_store().named_parameters())}
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {"loss": loss.detach(), **dict(zip(named, gradients, strict=True))}


def assert_same(actual, expected, factor=1.0, **tolerance):
    assert actual.keys() == expected.keys()
    gradients = [gradient.nan_to_num() for gradient in list(actual.values())[1:] if gradient is not None]
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients)
    for name, value in actual.items():
        same = expected[name] if expected[name] is None else factor * expected[name]
        torch.testing.assert_close(value, same, equal_nan=True, **(tolerance or EXACT), msg=lambda m: f"{name}: {m}")


def tolerance_of(name):
    return {"rtol": 1e-5, "atol": 2e-3} if name == "pyro-example" else EXACT  # which is in float32


def bound_and_table(objective, case):
    """A bound, and the table (log likelihood, log prior, log guide) by hand at the same draws, each (K, N)."""
    guide = Recorded(case.guide)
    with own_scope(case.model, case.guide), pyro.validation_enabled(False), torch.no_grad():
        objective.prepare(case.model, guide, *case.args)
        guide.values.clear()
        bound = objective.bound(case.model, guide, *case.args)
        code = getattr(case.table, "__code__", linear_table.__code__)  # a partial of a function of z
        drawn = {name: torch.stack([v[name] for v in guide.values]) for name in code.co_varnames[: code.co_argcount]}
        rows = (objective.num_particles, N)
        drawn = {name: v.reshape(*rows, *v.shape[v.dim() - (Z in v.shape[-1:]) :]) for name, v in drawn.items()}
        return bound, [term.expand(rows).double() for term in case.table(**drawn)]


WITH_TABLE = sorted({name for name in CONTINUOUS if built(name).table is not None} - {"pyro-example"})
