"""What all objectives share: they trace, keep a plan for each size of batch, and refuse what they cannot train."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.bounds import (
    EXACT,
    NO_CLOSED_FORM,
    NO_GRADIENT,
    PAIRS,
    assert_same,
    bound_and_table,
    built,
    evaluated,
    trained,
    trained_guide,
    trained_model,
)
from examples.zoo import (
    ONE,
    ZOO,
    A,
    K,
    N,
    X,
    Z,
    doubles,
    linear_guide,
    linear_model,
    linear_table,
)
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma
from pyro.infer import SVI, Trace_ELBO
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.pairs.graphs.graph import trace
from pyrovae.pairs.handlers import tempered
from pyrovae.training import objectives
from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.many_particles.importance_weighted import IWAE

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
    "piwae": objectives.PIWAE(2, 2),  # not as many particles as by its name
    "elbo, 3 particles": SampledELBO(K),
}
TRACED = ["trained", "trained-on-a-part", "trained-weighted", "trained-masked", "trained-tempered", "chain"]
TRACED += ["module", "pyro-module", "auto-normal", "discrete"]
TRACED += ["masked-distribution", "batch-norm", "convolution-on-a-part", "hard-wired"]
SCALED = {"trained-weighted", "trained-tempered"}
UNREAD = {"auto-normal", "masked-distribution"}
DEPENDENT = {"auto-normal", "masked-distribution"}  # draws that are transformed, or of a full covariance
ONE_SCALE = NO_GRADIENT | {"trained-weighted"}
REFUSED = {  # pairs that an objective refuses
    **dict.fromkeys(["iwae", "dreg", "renyi", "piwae", "ciwae", "sticking-the-landing"], NO_GRADIENT),
    "analytic-kl": NO_CLOSED_FORM.keys(),
    "free-bits": NO_CLOSED_FORM.keys() | {"trained-weighted", *DEPENDENT},
    "beta-tc": ONE_SCALE | {"chain", "trained-masked", *DEPENDENT},
    "mmd": ONE_SCALE,
    "contractive": ONE_SCALE,
    "reweighted-wake-sleep": {"trained-tempered"},
    **dict.fromkeys(["forward-kl", "half-asleep"], SCALED | UNREAD),
    "self-consistency": SCALED,
}


def can(objective, name):
    if OBJECTIVES[objective].for_guide_alone and name == "pyro-module":
        return False  # whose guide has no parameter
    return name not in REFUSED.get(objective, ())


@pytest.mark.parametrize(("objective", "name"), [(o, n) for o in OBJECTIVES for n in TRACED if n in REFUSED.get(o, ())])
def test_what_cannot_be_trained_is_refused(objective, name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError):
        OBJECTIVES[objective].bound(case.model, case.guide, *case.args)


def in_turns():
    """Every objective and every program, a third of the pairs; the others are left to ``make combinations``."""
    for i, objective in enumerate(OBJECTIVES):
        for j, name in enumerate(TRACED):
            if can(objective, name):
                marks = [pytest.mark.combinations] if (i + j) % 3 else []
                yield pytest.param(objective, name, marks=marks, id=f"{objective}-{name}")


@pytest.mark.parametrize(("objective", "name"), list(in_turns()))
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

        graph = trace(step, case.args[0])
        for x in (case.args[0], 2 * case.args[0]):
            torch.manual_seed(7)
            expected = step(x)
            torch.manual_seed(7)
            torch.testing.assert_close(graph(x), expected, **EXACT)


@pytest.mark.parametrize("objective", [one for name, one in OBJECTIVES.items() if can(name, "trained-tempered")])
def test_beta_may_change_after_tracing(objective):
    beta = torch.ones((), dtype=torch.float64)
    case = trained(lambda program: tempered(program, beta))
    with own_scope(case.model, case.guide):
        objective.prepare(case.model, case.guide, X)
        graph = trace(lambda x: objective.differentiable_loss(case.model, case.guide, x), X)
    beta.fill_(0.3)
    torch.manual_seed(3)
    torch.testing.assert_close(graph(X), evaluated(objective, built("trained-tempered"))["loss"], **EXACT)


FOR_BOTH = [name for name, objective in OBJECTIVES.items() if not objective.for_guide_alone]


@pytest.mark.parametrize("name", FOR_BOTH)
def test_what_is_logged_is_the_elbo_whatever_is_optimized(name):
    """Reconstruction and KL by hand at the same draws, or the KL in closed form."""
    objective = OBJECTIVES[name]
    bound, (log_likelihood, log_prior, log_guide) = bound_and_table(objective, trained()._replace(table=linear_table))
    kl = (log_guide - log_prior).mean(0)
    if name in ("analytic-kl", "free-bits"):
        kl = (((X @ A) ** 2 + 0.7**2 - 1) / 2 - math.log(0.7)).sum(-1)
    assert bound.reconstruction.item() == pytest.approx(log_likelihood.mean(0).sum().item(), rel=1e-10)
    assert bound.kl_prior.item() == pytest.approx(kl.sum().item(), rel=1e-10)
    assert not any(term.requires_grad for term in bound[1:])
    assert bound.loss.shape == ()


@pytest.mark.parametrize("name", FOR_BOTH)
def test_rows_that_stand_for_others_multiply_loss_and_gradient(name):
    if name == "beta-tc":  # whose value, not its gradient, has the size of the data in it
        part, whole = evaluated(OBJECTIVES[name], built("trained-on-a-part")), evaluated(OBJECTIVES[name], trained())
        part.pop("loss"), whole.pop("loss")
        for each, value in part.items():
            torch.testing.assert_close(value, 1000 / N * whole[each])
        return
    assert_same(
        evaluated(OBJECTIVES[name], built("trained-on-a-part")), evaluated(OBJECTIVES[name], trained()), 1000 / N
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pyros_own_svi_takes_it(name):
    torch.manual_seed(0)
    with own_scope(trained_model, trained_guide, fresh=True):
        svi = SVI(trained_model, trained_guide, pyro.optim.Adam({"lr": 0.01}), OBJECTIVES[name])
        losses = [svi.step(x) for x in (X, X[:3], X)]
        before = {each: value.clone() for each, value in pyro.get_param_store().items()}
        losses.append(svi.step(X))
        moved = {each for each, value in pyro.get_param_store().items() if not torch.equal(value, before[each])}
        losses.append(svi.evaluate_loss(X))
    assert all(math.isfinite(loss) for loss in losses)
    expected = {"slope", "width"} | (set() if OBJECTIVES[name].for_guide_alone or name == "kl" else {"loadings"})
    assert moved == expected


def test_one_of_ones_own_takes_the_tables():
    """Their sum is the ELBO, with its gradient; masks, scales and several particles too."""

    class Own(objectives.Objective):
        def bound(self, model, guide, *args):
            table, terms = self.log_terms(model, guide, *args)
            each = (table.log_likelihood + table.log_prior - table.log_guide).mean(0)
            return objectives.Bound(-each.sum(), *terms)

    for name in ("trained", "trained-masked", "trained-tempered", "trained-on-a-part", "chain", "masked-nan"):
        own, elbo = (evaluated(make(K), built(name)) for make in (Own, SampledELBO))
        assert_same(own, {**elbo, "loss": elbo["loss"].double()})
    case = ZOO["no-latents"]()
    with own_scope(case.model, case.guide):
        table, _ = Own(K).log_terms(case.model, case.guide, *case.args)
    assert [each.shape for each in table] == [(K, N)] * 3 and not table.log_prior.any()


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
        assert [objective.prepare(counted, trained_guide, x).num_data for x in (X, X[:3])] == [5, 3]
    case = built("convolution")
    with own_scope(case.model, case.guide):
        assert objective.prepare(case.model, case.guide, *case.args).strategy == "tiled"
    for rows in (N, 2, 4):
        part = built("trained-on-a-part")._replace(args=(X[:rows],))
        assert_same(evaluated(SampledELBO(), part), evaluated(Trace_ELBO(), part))


@pytest.mark.parametrize("name", PAIRS)
def test_the_way_is_that_of_the_evaluation(name):
    case = built(name)
    with own_scope(case.model, case.guide):
        assert SampledELBO(2, plate=case.plate).prepare(case.model, case.guide, *case.args).strategy == case.way


def test_preparing_leaves_random_state_modes_and_buffers():
    case = built("batch-norm")
    norm = case.model.__self__.decoder[1].train()
    before = [torch.get_rng_state(), norm.running_mean.clone()]
    with own_scope(case.model, case.guide):
        IWAE(K).prepare(case.model, case.guide, *case.args)
    assert all(torch.equal(a, b) for a, b in zip(before, [torch.get_rng_state(), norm.running_mean], strict=True))
    assert norm.training


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


def test_a_second_plate_must_be_told_from_that_of_the_data():
    case, square = ZOO["latents-in-an-inner-plate"](), doubles(Z, Z)
    with pytest.raises(InputError, match="name the data plate with plate="):
        IWAE(K).prepare(case.model, case.guide, square)
    assert IWAE(K, plate="data").prepare(case.model, case.guide, square).structure.plate == "data"


@pytest.mark.parametrize("make", [SampledELBO, AnalyticKLELBO, IWAE])
def test_no_particles(make):
    with pytest.raises(InputError, match="num_particles must be at least 1"):
        make(0)


def test_a_loss_that_is_not_a_number_warns():
    case = linear_model, linear_guide
    with pytest.warns(UserWarning, match="NaN"):
        assert math.isnan(SampledELBO().loss(*(tempered(p, torch.tensor(math.nan)) for p in case), X))


def test_a_bound_that_is_a_tensor_is_refused_with_what_it_should_be():
    class Tensors(pv.objectives.Objective):
        def bound(self, model, guide, *args):
            return self.log_terms(model, guide, *args)[0].log_weight.sum()

    oracle = pv.oracles.ppca(4, 2)
    x, _ = oracle.draw(5, seed=0)
    with pytest.raises(InputError, match=r"Tensors.bound gives a Tensor: return pyrovae.objectives.Bound\(loss"):
        Tensors().loss_and_grads(oracle.model, oracle.guide, x)


@pytest.mark.parametrize("choice", objectives.OBJECTIVES.values(), ids=objectives.OBJECTIVES)
def test_what_is_listed_without_torch_is_what_the_objective_says(choice):
    made = choice()
    assert (choice.for_guide_alone, choice.takes_warmup) == (made.for_guide_alone, made.takes_warmup)
