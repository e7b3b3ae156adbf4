"""Bounds of every pair in the zoo against Pyro's own at the same noise, against sums by hand, and as graphs."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from examples.zoo import (
    ONE,
    ZERO,
    ZOO,
    A,
    Case,
    D,
    K,
    Module,
    N,
    W,
    X,
    Z,
    doubles,
    linear_guide,
    linear_model,
    linear_table,
)
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.widened import widened
from pyrovae.pairs.context import own_scope
from pyrovae.pairs.handlers import tempered
from pyrovae.programs.oracles import ppca
from pyrovae.training import objectives
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.importance_weighted import IWAE

EXACT = {"rtol": 1e-10, "atol": 1e-10}
BETA = torch.tensor(0.3, dtype=torch.float64)


# ------------------------------------------------------------------------------------------ more pairs


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
    "auto-normal": "needs the guide to draw the latents .* and nothing else, but it draws .*'z_unconstrained', 'z'",
    "hierarchical": r"model's order, \['z2', 'z1'\], .* but it draws \['z1', 'z2'\]",
    "masked-rows": "site 'z' has one mask in the model",
    "scaled-model": "site 'z' has one scale in the model",
    "scaled-guide": "site 'z' has one scale in the model",
    "scaled-by-data": "site 'z' has one scale in the model",
    **dict.fromkeys(NO_GRADIENT, "site '(k|on)' of the guide cannot be reparameterized: .* AnalyticKLELBO"),
}


# ---------------------------------------------------------------------------------------- how they are held


def built(name):
    torch.manual_seed(0)
    return PAIRS[name]()


def evaluated(objective, case, seed=3):
    """Loss, and its gradients by the data (where they are real numbers) and by all parameters."""
    x, *rest = case.args
    x = x.clone().requires_grad_()
    with own_scope(case.model, case.guide), pyro.validation_enabled(False):
        if not isinstance(objective, Trace_ELBO):
            objective.prepare(case.model, case.guide, x, *rest)
        torch.manual_seed(seed)
        loss = objective.differentiable_loss(case.model, case.guide, x, *rest)
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


class Recorded:
    """A guide that keeps what it drew."""

    def __init__(self, guide):
        self.guide, self.values = guide, []

    def __call__(self, *args):
        trace = poutine.trace(self.guide).get_trace(*args)
        self.values.append({name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"})


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


# -------------------------------------------------------------------------------------- equal to Pyro's own


@pytest.mark.parametrize("name", PAIRS)
def test_sampled_elbo_is_that_of_pyro(name):
    case = built(name)
    assert_same(evaluated(SampledELBO(plate=case.plate), case), evaluated(Trace_ELBO(), case), **tolerance_of(name))


@pytest.mark.parametrize("vectorize", [True, False], ids=["vectorized", "looped"])
@pytest.mark.parametrize("name", sorted(PAIRS.keys() - NOT_VECTORIZED))
def test_sampled_elbo_of_several_particles_is_that_of_pyro(name, vectorize):
    case = built(name)
    ours = SampledELBO(K, vectorize_particles=vectorize, plate=case.plate)
    theirs = Trace_ELBO(K, vectorize_particles=vectorize, max_plate_nesting=DEPTH.get(name, 1))
    assert_same(evaluated(ours, case), evaluated(theirs, case), **tolerance_of(name))


@pytest.mark.parametrize("num_particles", [1, K])
@pytest.mark.parametrize("name", sorted(PAIRS.keys() - NO_CLOSED_FORM.keys() - {"deterministic"}))
def test_closed_form_elbo_is_that_of_pyro(name, num_particles):
    case = built(name)
    ours = AnalyticKLELBO(num_particles, vectorize_particles=name not in NOT_VECTORIZED, plate=case.plate)
    vectorized = {"vectorize_particles": name not in NOT_VECTORIZED, "max_plate_nesting": DEPTH.get(name, 1)}
    assert_same(
        evaluated(ours, case), evaluated(TraceMeanField_ELBO(num_particles, **vectorized), case), **tolerance_of(name)
    )


def test_closed_form_elbo_ignores_named_values():  # Pyro's own takes them for latents and fails
    expected, actual = (evaluated(AnalyticKLELBO(), built(name)) for name in ("functions", "deterministic"))
    assert_same(actual, expected)


@pytest.mark.parametrize("name", NO_CLOSED_FORM)
def test_closed_form_elbo_is_refused_where_it_would_be_wrong(name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=NO_CLOSED_FORM[name]):
        AnalyticKLELBO(plate=case.plate).bound(case.model, case.guide, *case.args)


def iwae_and_renyi(case, num_particles=K):
    """Both as :func:`evaluated`, by parameters alone: Pyro's has no differentiable loss."""
    results = []
    for objective in (IWAE(num_particles), RenyiELBO(0, num_particles, 1, vectorize_particles=True)):
        with own_scope(case.model, case.guide, fresh=True), pyro.validation_enabled(False):
            torch.manual_seed(3)
            loss = objective.loss_and_grads(case.model, case.guide, *case.args)
            gradients = {name: p.grad for name, p in pyro.get_param_store().named_parameters()}
            results.append({"loss": torch.tensor(loss, dtype=torch.float64), **gradients})
    return results


@pytest.mark.parametrize("rows", [1, N], ids=["one datum", "a batch"])
@pytest.mark.parametrize("name", ["trained", "chain"])
def test_iwae_is_that_of_pyro_where_nothing_is_scaled(name, rows):
    case = built(name)
    assert_same(*iwae_and_renyi(case._replace(args=(X[:rows],))))


def test_pyros_own_takes_a_rescaled_plate_for_a_power_of_the_weights():
    ours, theirs = iwae_and_renyi(trained(size=1000))
    assert abs(ours["loss"] - theirs["loss"]) > 100


# ------------------------------------------------------------------------------------------- sums by hand

BY_HAND = {  # pair -> (factor of the loss, powers of likelihood, prior and guide within the weight)
    "subsample-given": (1000 / N, (1, 1, 1)),
    "scaled-model": (1, (3, 3, 1)),
    "scaled-guide": (1, (1, 1, 0.1)),
    "scaled-by-data": (1, (X[:, 0].exp(), X[:, 0].exp(), 1)),
    "convolution-on-a-part": (40 / N, (1, 1, 1)),
}
WITH_TABLE = sorted({name for name in CONTINUOUS if built(name).table is not None} - {"pyro-example"})


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("name", WITH_TABLE)
def test_iwae_is_a_loop_over_data_and_particles(name, vectorize):
    case = built(name)
    bound, table = bound_and_table(IWAE(K, vectorize_particles=vectorize, plate=case.plate), case)
    factor, powers = BY_HAND.get(name, (1, (1, 1, 1)))
    likelihood, prior, drawn = (power * term for power, term in zip(powers, table, strict=True))
    log_weight = (likelihood + prior - drawn).tolist()
    expected = -factor * sum(math.log(sum(math.exp(log_weight[k][n]) for k in range(K)) / K) for n in range(N))
    assert bound.loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("objective", [SampledELBO, IWAE])
@pytest.mark.parametrize("name", WITH_TABLE)
def test_terms_are_sums_over_data_and_means_over_particles_without_scales(name, objective):
    case = built(name)
    bound, (log_likelihood, log_prior, log_guide) = bound_and_table(objective(K, plate=case.plate), case)
    assert bound.reconstruction.item() == pytest.approx(log_likelihood.mean(0).sum().item(), rel=1e-10)
    assert bound.kl_prior.item() == pytest.approx((log_guide - log_prior).mean(0).sum().item(), rel=1e-10)


@pytest.mark.parametrize("objective", [SampledELBO, AnalyticKLELBO, IWAE])
def test_terms_of_programs_in_float32_are_in_float64(objective):
    case = built("pyro-example")
    with own_scope(case.model, case.guide):
        bound = objective(K).bound(case.model, case.guide, *case.args)
    assert {term.dtype for term in bound[1:]} == {torch.float64}


@pytest.mark.parametrize("name", sorted(TRAINED.keys() - {"chain"}))
def test_the_closed_form_kl_is_logged_without_scales(name):
    case = built(name)
    with own_scope(case.model, case.guide):
        bound = AnalyticKLELBO(K).bound(case.model, case.guide, X)
    kl = ((X @ A) ** 2 + 0.7**2 - 1).sum(-1) / 2 - Z * math.log(0.7)
    expected = (kl * KEEP).sum() if name == "trained-masked" else kl.sum()
    assert bound.kl_prior.item() == pytest.approx(expected.item(), rel=1e-12)
    assert not any(term.requires_grad for term in bound[1:])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_one_particle_makes_iwae_the_elbo(name):
    case = built(name)
    assert_same(
        {**evaluated(IWAE(1, plate=case.plate), case)},
        {n: v.double() if n == "loss" else v for n, v in evaluated(SampledELBO(plate=case.plate), case).items()},
        **tolerance_of(name),
    )


@pytest.mark.parametrize("objective", [SampledELBO, AnalyticKLELBO, IWAE])
@pytest.mark.parametrize(("name", "factor"), [("trained-on-a-part", 1000 / N), ("trained-scaled", 0.37)])
def test_a_scale_around_both_programs_multiplies_loss_and_gradient(name, factor, objective):
    assert_same(evaluated(objective(K), built(name)), evaluated(objective(K), trained()), factor)


def test_weights_of_data_multiply_their_importance_weighted_bounds():
    bound, table = bound_and_table(IWAE(K), built("trained-weighted")._replace(table=linear_table))
    each = (table[0] + table[1] - table[2]).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(WEIGHTS * each).sum().item(), rel=1e-10)


def test_weights_of_data_lie_along_their_plate():
    case = ZOO["pixels-right"]()
    model, guide = (poutine.scale(program, scale=WEIGHTS[:, None]) for program in (case.model, case.guide))
    bound, table = bound_and_table(IWAE(K), case._replace(model=model, guide=guide))
    each = (table[0] + table[1] - table[2]).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(WEIGHTS * each).sum().item(), rel=1e-10)


@pytest.mark.parametrize("size", [None, 1000], ids=["all", "a part"])
def test_tempering_is_a_power_within_the_weights(size):
    case = trained(lambda program: tempered(program, BETA), size=size)._replace(table=linear_table)
    bound, table = bound_and_table(IWAE(K), case)
    each = (table[0] + BETA * (table[1] - table[2])).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(size or N) / N * each.sum().item(), rel=1e-10)


def test_a_rescaled_loss_stays_one_while_the_kl_warms_up():
    beta = torch.ones((), dtype=torch.float64)
    both = trained(lambda program: tempered(poutine.scale(program, scale=0.01), beta))
    objective = IWAE(K)
    with own_scope(both.model, both.guide):
        objective.prepare(both.model, both.guide, X)
    beta.fill_(0.3)
    expected = evaluated(IWAE(K), built("trained-tempered"))
    assert_same(evaluated(objective, both), expected, 0.01)
    assert_same(
        evaluated(objective, both._replace(args=(X[:2],))),
        evaluated(IWAE(K), built("trained-tempered")._replace(args=(X[:2],))),
        0.01,
    )
    with own_scope(both.model, both.guide), pytest.raises(InputError, match="site 'x' has one scale and the latents"):
        IWAE(K).prepare(both.model, both.guide, X)


# ---------------------------------------------------------------------------------------------- an oracle


def test_bounds_are_ordered_below_the_exact_evidence():
    oracle = ppca(8, 2)
    x, _ = oracle.draw(50, seed=0)
    guide, evidence, repeats = widened(oracle.guide, 1.4, shift=0.3), oracle.log_evidence(x).sum(), 100
    objectives = [SampledELBO(), SampledELBO(5), AnalyticKLELBO(), IWAE(2), IWAE(10), IWAE(100)]
    torch.manual_seed(0)
    losses = [[objective.loss(oracle.model, guide, x) for _ in range(repeats)] for objective in objectives]
    bounds = -torch.tensor(losses, dtype=torch.float64)
    mean, se = bounds.mean(1), bounds.std(1) / math.sqrt(repeats)
    gap, noise = mean.diff(), (se[1:] ** 2 + se[:-1] ** 2).sqrt()
    assert (gap[:2].abs() < 4 * noise[:2]).all()  # three estimators of one ELBO
    assert (gap[2:] > 4 * noise[2:]).all()
    assert mean[-1] < evidence + 4 * se[-1]
    assert evidence - mean[-1] < 0.1 * (evidence - mean[0])


# ------------------------------------------------------------------------------------------------- tracing


class NoLook(TorchDispatchMode):
    """Refuses every operation whose result depends on a value that the host must wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        looks = (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        assert func not in looks, func
        return func(*args, **(kwargs or {}))


OBJECTIVES = {
    **{name: choice() for name, choice in objectives.OBJECTIVES.items()},
    "elbo, 3 particles": SampledELBO(K),
}
TRACED = ["trained", "trained-on-a-part", "trained-weighted", "trained-masked", "trained-tempered", "chain"]
TRACED += ["module", "pyro-module", "auto-normal", "discrete"]
TRACED += ["masked-distribution", "batch-norm", "convolution-on-a-part", "hard-wired"]


def can(objective, name):
    if isinstance(OBJECTIVES[objective], AnalyticKLELBO):
        return name not in NO_CLOSED_FORM
    return not isinstance(OBJECTIVES[objective], IWAE) or name not in NO_GRADIENT


@pytest.mark.parametrize(("objective", "name"), [(o, n) for o in OBJECTIVES for n in TRACED if can(o, n)])
def test_a_traced_step_gives_the_same_values(objective, name):
    case, objective = built(name), OBJECTIVES[objective]
    with own_scope(case.model, case.guide):
        objective.prepare(case.model, case.guide, *case.args)

        def step(x):
            with NoLook():
                bound = objective.bound(case.model, case.guide, x, *case.args[1:])
                parameters = [p for _, p in pyro.get_param_store().named_parameters()]
                gradients = torch.autograd.grad(bound.loss, parameters, allow_unused=True) if parameters else ()
                return *bound, *(gradient for gradient in gradients if gradient is not None)

        graph = make_fx(step)(case.args[0])
        for x in (case.args[0], 2 * case.args[0]):
            torch.manual_seed(7)
            expected = step(x)
            torch.manual_seed(7)
            torch.testing.assert_close(graph(x), expected, **EXACT)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_beta_may_change_after_tracing(objective):
    beta = torch.ones((), dtype=torch.float64)
    case = trained(lambda program: tempered(program, beta))
    with own_scope(case.model, case.guide):
        objective.prepare(case.model, case.guide, X)
        graph = make_fx(lambda x: objective.differentiable_loss(case.model, case.guide, x))(X)
    beta.fill_(0.3)
    torch.manual_seed(3)
    torch.testing.assert_close(graph(X), evaluated(objective, built("trained-tempered"))["loss"], **EXACT)


# ------------------------------------------------------------------------------------------- how it is used


def test_batches_of_several_sizes_and_other_pairs_each_have_their_plan():
    objective, calls = IWAE(K), []

    def counted(x):
        calls.append(len(x))
        trained_model(x)

    with own_scope(counted, trained_guide):
        for x in (X, X[:3], X, X[:3]):
            before = len(calls)
            objective.bound(counted, trained_guide, x)
            runs = len(calls) - before
        assert runs == 1  # no look at a size that was seen
        assert [objective.prepare(counted, trained_guide, x).particles.num_data for x in (X, X[:3])] == [5, 3]
    case = built("convolution")
    with own_scope(case.model, case.guide):
        assert objective.prepare(case.model, case.guide, *case.args).particles.strategy == "tiled"
    for rows in (N, 2, 4):
        part = built("trained-on-a-part")._replace(args=(X[:rows],))
        assert_same(evaluated(SampledELBO(), part), evaluated(Trace_ELBO(), part))


@pytest.mark.parametrize("name", PAIRS)
def test_the_way_is_that_of_the_evaluation(name):
    case = built(name)
    with own_scope(case.model, case.guide):
        assert (
            SampledELBO(2, plate=case.plate).prepare(case.model, case.guide, *case.args).particles.strategy == case.way
        )


def test_a_scale_for_each_row_is_looped_over_where_it_cannot_be_tiled():
    case = built("convolution")
    model, guide = (poutine.scale(program, scale=WEIGHTS) for program in (case.model, case.guide))
    scaled = case._replace(model=model, guide=guide)
    bound, table = bound_and_table(IWAE(K), scaled)
    each = (table[0] + table[1] - table[2]).logsumexp(0) - math.log(K)
    assert bound.loss.item() == pytest.approx(-(WEIGHTS * each).sum().item(), rel=1e-10)


def test_preparing_leaves_random_state_modes_and_buffers():
    case = built("batch-norm")
    norm = case.model.__self__.decoder[1].train()
    before = [torch.get_rng_state(), norm.running_mean.clone()]
    with own_scope(case.model, case.guide):
        IWAE(K).prepare(case.model, case.guide, *case.args)
    assert all(torch.equal(a, b) for a, b in zip(before, [torch.get_rng_state(), norm.running_mean], strict=True))
    assert norm.training


def test_steps_of_svi_are_those_of_pyros_own():
    def losses(objective):
        torch.manual_seed(0)
        with own_scope(trained_model, trained_guide, fresh=True):
            svi = SVI(trained_model, trained_guide, pyro.optim.Adam({"lr": 0.01}), objective)
            steps = [svi.step(x) for x in (X, X[:2], X)]
            return [*steps, svi.evaluate_loss(X)]

    ours = losses(SampledELBO())
    assert all(isinstance(loss, float) for loss in ours)
    assert ours == pytest.approx(losses(Trace_ELBO()), rel=1e-10)


# --------------------------------------------------------------------------------------------------- errors


def enumerated(where):
    infer = {"enumerate": "parallel"}

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)), infer=infer)
            pyro.sample("x", dist.Normal(k.double(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            if where == "guide":
                pyro.sample("k", dist.Categorical(torch.ones(3)), infer=infer)

    return model, guide


def rejecting():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(ONE, ONE))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", ShapeAugmentedGamma(2.0 * torch.ones(len(x)), torch.ones(len(x))))

    return model, guide


def unplated():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return model, lambda x: pyro.sample("z", dist.Normal(0.0, 1.0))


def unlike_plates():
    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(0 * ONE, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, None].expand(-1, 2))

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x[:, None], 1.0))

    return model, guide


COLUMN = X[:, 0]
ERRORS = {
    "summed in the model": (SampledELBO(), enumerated("model"), "site 'k' is enumerated.*TraceEnum_ELBO"),
    "summed in the guide": (SampledELBO(), enumerated("guide"), "site 'k' is enumerated.*TraceEnum_ELBO"),
    "partly reparameterized": (IWAE(2), rejecting(), "site 'z' of the guide cannot be reparameterized.*IWAE"),
    "a global latent": (SampledELBO(), unplated(), "site 'z'.* is outside the data plate"),
    "a latent in more plates": (
        IWAE(2),
        unlike_plates(),
        r"site 'z': .* \(5, 2\) in the model and of \(5, 1\) in the guide",
    ),
}


@pytest.mark.parametrize(("objective", "pair", "message"), ERRORS.values(), ids=ERRORS)
def test_pairs_that_are_refused(objective, pair, message):
    with pytest.raises(InputError, match=message):
        objective.bound(*pair, COLUMN)


@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_iwae_over_draws_without_gradients_is_refused(name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=r"site '(k|on)' of the guide.*SampledELBO"):
        IWAE(K).bound(case.model, case.guide, *case.args)


def test_a_second_plate_must_be_told_from_that_of_the_data():
    case, square = ZOO["latents-in-an-inner-plate"](), doubles(Z, Z)
    with pytest.raises(InputError, match="name the data plate with plate="):
        IWAE(K).prepare(case.model, case.guide, square)
    assert IWAE(K, plate="data").prepare(case.model, case.guide, square).particles.structure.plate == "data"


@pytest.mark.parametrize("make", [SampledELBO, AnalyticKLELBO, IWAE])
def test_no_particles(make):
    with pytest.raises(InputError, match="num_particles must be at least 1"):
        make(0)


def test_a_loss_that_is_not_a_number_warns():
    case = linear_model, linear_guide
    with pytest.warns(UserWarning, match="NaN"):
        assert math.isnan(SampledELBO().loss(*(tempered(p, torch.tensor(math.nan)) for p in case), X))


def test_an_autoguide_is_a_guide():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(ZERO, ONE).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1), obs=x)

    guide = AutoNormal(model)
    with own_scope(model, guide, fresh=True):
        assert math.isfinite(IWAE(K).loss_and_grads(model, guide, X))


def test_a_module_is_a_pair():
    module = Module()
    assert evaluated(IWAE(K), module.case(X))["data"].abs().max() > 0
