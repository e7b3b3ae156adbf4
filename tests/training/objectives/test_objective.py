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
    built,
    evaluated,
    trained,
    trained_guide,
    trained_model,
)
from examples.zoo import (
    ONE,
    ZOO,
    K,
    N,
    X,
    Z,
    doubles,
    linear_guide,
    linear_model,
)
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma
from pyro.infer import Trace_ELBO
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
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
    "elbo, 3 particles": SampledELBO(K),
}
TRACED = ["trained", "trained-on-a-part", "trained-weighted", "trained-masked", "trained-tempered", "chain"]
TRACED += ["module", "pyro-module", "auto-normal", "discrete"]
TRACED += ["masked-distribution", "batch-norm", "convolution-on-a-part", "hard-wired"]
SCALED = {"trained-weighted", "trained-tempered"}


def can(objective, name):
    if isinstance(OBJECTIVES[objective], AnalyticKLELBO):
        return name not in NO_CLOSED_FORM
    if OBJECTIVES[objective].for_guide_alone:
        unread = set() if objective == "self-consistency" else {"auto-normal", "masked-distribution"}
        return name not in SCALED | unread | {"pyro-module"}  # whose guide has no parameter
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


@pytest.mark.parametrize("objective", [one for name, one in OBJECTIVES.items() if can(name, "trained-tempered")])
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
