"""Each objective for guides brings a guide whose family holds the posterior to it, and moves no model."""

import pyro
import pyro.poutine as poutine
import pytest
import torch
from examples.bounds import built, trained_guide, trained_model
from examples.learned_guides import PAIRS
from examples.zoo import X
from pyro.infer import SVI

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.optimizers import adam

MAKERS = {
    "ForwardKL": pv.objectives.ForwardKL,
    "HalfAsleep": pv.objectives.HalfAsleep,
    "SelfConsistency": pv.objectives.SelfConsistency,
}


@pytest.mark.parametrize("name", ["factors, full rank", "gamma-Poisson", "classes"])
@pytest.mark.parametrize("objective", MAKERS.values(), ids=MAKERS)
def test_it_ends_at_the_posterior(objective, name):
    """To 1e-3 nat, exact; the logits of classes have further to go."""
    pair = PAIRS[name]()
    x, _ = pair.oracle.draw(1000, seed=0)
    assert pair.kl(x).mean() > 1
    pv.fit(
        pair.oracle.model,
        pair.learned.guide,
        x,
        only="guide",
        objective=objective(),
        optimizer=adam(0.2),
        schedule=lambda fraction: (1 - fraction) ** 1.5,
        epochs=500 if name == "classes" else 320,
        batch_size=1000,
        compile=False,
    )
    assert pair.kl(x).mean() < 1e-3


@pytest.mark.parametrize("objective", MAKERS.values(), ids=MAKERS)
def test_in_pyros_own_svi_the_model_gets_no_gradient(objective):
    torch.manual_seed(0)
    with own_scope(trained_model, trained_guide, fresh=True):
        svi = SVI(trained_model, trained_guide, pyro.optim.Adam({"lr": 0.01}), objective())
        svi.step(X)
        before = {name: value.clone() for name, value in pyro.get_param_store().items()}
        svi.step(X)
        after = dict(pyro.get_param_store().items())
    assert torch.equal(before["loadings"], after["loadings"])
    assert not torch.equal(before["slope"], after["slope"]) and not torch.equal(before["width"], after["width"])


@pytest.mark.parametrize("objective", MAKERS.values(), ids=MAKERS)
def test_what_both_programs_use_has_the_gradient_of_the_guide_alone(objective):
    """A parameter in both programs, and the same with a copy of it in the model that has no gradient."""

    def programs(detach):
        def model(x):
            shared = pyro.param("shared", torch.tensor(0.6).double())
            shared = shared.detach() if detach else shared
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(shared, 1.0))
                pyro.sample("x", pyro.distributions.Normal(shared * z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", pyro.distributions.Normal(pyro.param("shared", torch.tensor(0.6).double()) * x, 1.0))

        return model, guide

    found = []
    for detach in (False, True):
        pair = programs(detach)
        with own_scope(*pair, fresh=True):
            torch.manual_seed(1)
            loss = objective().differentiable_loss(*pair, X[:, 0])
            found.append(torch.autograd.grad(loss, [p for _, p in pyro.get_param_store().named_parameters()])[0])
    torch.testing.assert_close(*found)
    assert found[0].abs() > 1e-3


@pytest.mark.parametrize("objective", MAKERS.values(), ids=MAKERS)
def test_another_scale_than_the_plates_is_refused(objective):
    case = built("trained")
    with (
        own_scope(case.model, case.guide),
        pytest.raises(InputError, match=r"site 'z' is scaled: .* another posterior"),
    ):
        objective().loss(*(poutine.scale(program, scale=0.5) for program in (case.model, case.guide)), X)


@pytest.mark.parametrize("objective", MAKERS.values(), ids=MAKERS)
def test_rows_count_by_the_plate(objective):
    losses = []
    for name in ("trained", "trained-on-a-part"):
        case = built(name)
        with own_scope(case.model, case.guide, fresh=True):
            torch.manual_seed(2)
            losses.append(objective().loss(case.model, case.guide, *case.args))
    assert losses[1] == pytest.approx(1000 / len(X) * losses[0])


@pytest.mark.parametrize("name", ["ForwardKL", "HalfAsleep"])
def test_a_guide_that_reads_no_data_learns_nothing_from_simulated_ones(name):
    case = built("auto-normal")
    with own_scope(case.model, case.guide), pytest.raises(InputError, match="the guide does not read the data"):
        MAKERS[name]().loss(case.model, case.guide, *case.args)
