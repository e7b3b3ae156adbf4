"""One guarded step over all parameters."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.training.optimizers import Guarded, NotFiniteError, adam


def parameters(*values):
    store = pyro.get_param_store()
    made = []
    for i, value in enumerate(values):
        pyro.param(f"p{i}", torch.tensor(value))
        made.append(dict(store.named_parameters())[f"p{i}"])
    return made


@pytest.fixture(autouse=True)
def own_store():
    with pyro.get_param_store().scope():
        yield


def makers():
    return {"torch": adam(0.1), "pyro": pyro.optim.Adam({"lr": 0.1})}


@pytest.mark.parametrize("name", makers())
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_reaches_no_weight(name, bad):
    first, second = parameters(1.0, 2.0)
    optimizer = Guarded(makers()[name])
    first.grad, second.grad = torch.tensor(1.0), torch.tensor(bad)
    with pytest.raises(NotFiniteError, match="gradient of p1 is not finite") as error:
        optimizer({first, second})
    assert error.value.names == ["p1"]
    assert first.item() == 1.0 and second.item() == 2.0


@pytest.mark.parametrize("name", makers())
def test_it_steps_as_torch_does(name):
    (ours,) = parameters([1.0, -2.0])
    theirs = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer, plain = Guarded(makers()[name]), torch.optim.Adam([theirs], lr=0.1)
    for gradient in ([0.3, -0.1], [1.0, 2.0], [0.0, -1.0]):
        ours.grad, theirs.grad = torch.tensor(gradient), torch.tensor(gradient)
        optimizer({ours})
        plain.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


@pytest.mark.parametrize(
    "maker", [lambda ps: torch.optim.SGD(ps, lr=1.0), pyro.optim.SGD({"lr": 1.0})], ids=["torch", "pyro"]
)
def test_rates_scale_from_the_first_step_on_and_are_stored_unscaled(maker):
    (p,) = parameters(0.0)
    optimizer = Guarded(maker)
    moved = []
    for factor in (0.5, 1.0, 0.25, 0.0):
        optimizer.rate = factor
        before = p.item()
        p.grad = torch.tensor(1.0)
        optimizer({p})
        moved.append(before - p.item())
    assert moved == [0.5, 1.0, 0.25, 0.0]
    state = optimizer.get_state()
    assert (state if "param_groups" in state else state["p0"])["param_groups"][0]["lr"] == 1.0


def test_an_optimizers_own_decay_stays_under_a_schedule():
    (p,) = parameters(0.0)
    optimizer = Guarded(pyro.optim.ClippedAdam({"lr": 1.0, "lrd": 0.5}))
    optimizer.rate = 0.1
    for _ in range(3):
        p.grad = torch.tensor(1.0)
        optimizer({p})
    assert optimizer.optimizer.optim_objs[p].param_groups[0]["lr"] == pytest.approx(0.125)


def test_a_scheduler_of_pyro_is_stepped():
    (p,) = parameters(0.0)
    optimizer = Guarded(
        pyro.optim.ExponentialLR({"optimizer": torch.optim.SGD, "optim_args": {"lr": 1.0}, "gamma": 0.5})
    )
    optimizer.rate = 0.5
    p.grad = torch.tensor(1.0)
    optimizer({p})
    assert p.item() == -0.5


def test_a_loss_that_is_not_finite_moves_nothing():
    (p,) = parameters(1.0)
    optimizer = Guarded(adam(0.1))
    optimizer.loss, p.grad = float("inf"), torch.tensor(1.0)
    with pytest.raises(NotFiniteError, match="the loss is inf"):
        optimizer({p})
    assert p.item() == 1.0


@pytest.mark.parametrize("name", makers())
def test_state_that_waits_is_not_lost(name):
    (p,) = parameters(1.0)
    first, second = Guarded(makers()[name]), Guarded(makers()[name])
    p.grad = torch.tensor(1.0)
    first({p})
    state = first.get_state()
    second.set_state(state)
    assert second.get_state() == state


def test_another_learning_rate_is_refused_at_the_first_step():
    (p,) = parameters(1.0)
    first, second = Guarded(adam(0.1)), Guarded(adam(0.2))
    p.grad = torch.tensor(1.0)
    first({p})
    second.set_state(first.get_state())
    with pytest.raises(InputError, match=r"was fitted with a learning rate of 0\.1, not 0\.2"):
        second({p})


def test_what_is_frozen_stays():
    vae, frozen = make_vae(), []

    def freeze(epoch, so_far):
        vae.decoder.requires_grad_(epoch != 2)
        frozen.append([p.clone() for p in vae.decoder.parameters()])

    pv.fit(vae.model, vae.guide, make_data(), epochs=4, callback=freeze, progress=False)
    still, moved = ([torch.equal(a, b) for a, b in zip(*pair, strict=True)] for pair in (frozen[1:3], frozen[2:4]))
    assert all(still) and not any(moved)


def test_a_tensor_that_is_no_parameter_of_the_programs_is_stepped_by_its_own_gradient():
    vae, extra = make_vae(), torch.zeros((), requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(extra.expand(len(x)), 1.0), obs=torch.ones(len(x)))

    def optimizer(parameters):
        return torch.optim.SGD([*parameters, extra], lr=0.01)

    pv.fit(model, vae.guide, make_data(10), epochs=3, optimizer=optimizer, progress=False)
    assert extra.item() == pytest.approx(1 - 0.9**3)


def test_a_parameter_that_appears_late_is_stepped_too():
    first, second = parameters(0.0, 0.0)
    optimizer = Guarded(lambda ps: torch.optim.SGD(ps, lr=1.0))
    optimizer.rate = 0.5
    first.grad = torch.tensor(1.0)
    optimizer({first})
    first.grad, second.grad = torch.tensor(1.0), torch.tensor(1.0)
    optimizer({first, second})
    assert first.item() == -1.0 and second.item() == -0.5


@pytest.mark.parametrize("name", makers())
def test_state_goes_into_a_fresh_optimizer(name):
    def steps(optimizer, p, count):
        for _ in range(count):
            p.grad = (p.detach() - 3.0) * 2
            optimizer({p})

    with pyro.get_param_store().scope():
        (whole,) = parameters(1.0)
        steps(Guarded(makers()[name]), whole, 6)
    (p,) = parameters(1.0)
    first, second = Guarded(makers()[name]), Guarded(makers()[name])
    steps(first, p, 3)
    second.set_state(first.get_state())
    steps(second, p, 3)
    assert torch.equal(p, whole)
