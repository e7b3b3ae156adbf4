"""One guarded step over all parameters."""

import pyro
import pytest
import torch

from pyrovae.inference.optimizers import Guarded, NotFiniteError, adam


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


def test_rates_scale_relative_to_the_first_and_are_stored_unscaled():
    (p,) = parameters(0.0)
    optimizer = Guarded(lambda ps: torch.optim.SGD(ps, lr=1.0))
    moved = []
    for factor in (1.0, 0.5, 0.25):
        optimizer.scale_rate(factor)
        before = p.item()
        p.grad = torch.tensor(1.0)
        optimizer({p})
        moved.append(before - p.item())
    assert moved == [1.0, 0.5, 0.25]
    assert optimizer.get_state()["param_groups"][0]["lr"] == 1.0
    assert optimizer.torch_optimizer.param_groups[0]["lr"] == 0.25


def test_a_parameter_that_appears_late_is_stepped_too():
    first, second = parameters(0.0, 0.0)
    optimizer = Guarded(lambda ps: torch.optim.SGD(ps, lr=1.0))
    optimizer.scale_rate(0.5)
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
