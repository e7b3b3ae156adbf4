"""The state of optimizers is kept and restored."""

import pyro
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.training.checkpoint import restore_optimizer
from pyrovae.training.optimizers import Joint, adam, state_of, unconstrained_parameters


@pytest.fixture(autouse=True)
def own_store():
    with pyro.get_param_store().scope():
        yield


def parameter(value):
    pyro.param("p0", torch.tensor(value))
    return dict(pyro.get_param_store().named_parameters())["p0"]


def makers():
    return {"torch": Joint(adam(0.1)), "pyro": pyro.optim.Adam({"lr": 0.1})}


@pytest.mark.parametrize("name", makers())
def test_state_that_waits_is_not_lost(name):
    p = parameter(1.0)
    first, second = makers()[name], makers()[name]
    p.grad = torch.tensor(1.0)
    first([p])
    restore_optimizer(second, first.get_state(), unconstrained_parameters())
    assert second.get_state() == first.get_state()


def test_another_learning_rate_is_refused():
    p = parameter(1.0)
    first, second = Joint(adam(0.1)), Joint(adam(0.2))
    p.grad = torch.tensor(1.0)
    first([p])
    with pytest.raises(InputError, match=r"was fitted with a learning rate of 0\.1, not 0\.2"):
        restore_optimizer(second, first.get_state(), unconstrained_parameters())


@pytest.mark.parametrize("name", makers())
def test_state_goes_into_a_fresh_optimizer(name):
    def steps(optimizer, p, count):
        for _ in range(count):
            p.grad = (p.detach() - 3.0) * 2
            optimizer([p])

    with pyro.get_param_store().scope():
        whole = parameter(1.0)
        steps(makers()[name], whole, 6)
    p = parameter(1.0)
    first, second = makers()[name], makers()[name]
    steps(first, p, 3)
    restore_optimizer(second, first.get_state(), unconstrained_parameters())
    steps(second, p, 3)
    assert torch.equal(p, whole)


MORE_KINDS = {  # (torch's class, Pyro's of it)
    "Adam": (torch.optim.Adam, pyro.optim.Adam),
    "AdamW": (torch.optim.AdamW, pyro.optim.AdamW),
    "RAdam": (torch.optim.RAdam, pyro.optim.RAdam),
    "Adamax": (torch.optim.Adamax, pyro.optim.Adamax),
}


def stepped(kind, by, rate=0.1):
    """An optimizer of a kind after one step, and a fresh one."""
    torchs, pyros = MORE_KINDS[kind]
    first, second = (Joint(lambda ps: torchs(ps, lr=rate)) if by == "torch" else pyros({"lr": rate}) for _ in "12")
    p = parameter(1.0)
    p.grad = torch.tensor(1.0)
    first([p])
    return first, second


def groups_of(state):
    return (state if "param_groups" in state else state["p0"])["param_groups"]


@pytest.mark.parametrize("by", ["torch", "pyro"])
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_a_state_of_another_version_of_torch_is_taken(kind, by):
    """Versions differ by a setting: what the state has not is torch's to add, what it has more stays there."""
    first, second = stepped(kind, by)
    state = state_of(first)
    for group in groups_of(state):
        del group["decoupled_weight_decay"]
        group["of_a_later_version"] = None
    restore_optimizer(second, state, unconstrained_parameters())
    (group,) = groups_of(second.get_state())
    assert group["decoupled_weight_decay"] == (kind == "AdamW") and group["lr"] == 0.1


def test_a_setting_that_the_state_has_not_is_not_dropped():
    first, state = Joint(lambda ps: torch.optim.Adam(ps, amsgrad=True)), state_of(stepped("Adam", "torch", 1e-3)[0])
    del groups_of(state)[0]["amsgrad"]
    with pytest.raises(InputError, match="was fitted with amsgrad = False, not True"):
        restore_optimizer(first, state, unconstrained_parameters())


@pytest.mark.parametrize("by", ["torch", "pyro"])
@pytest.mark.parametrize("kind", ["AdamW", "RAdam", "Adamax"])
def test_a_state_of_another_class_is_refused(kind, by):
    state = state_of(stepped("Adam", by)[0])
    with pytest.raises(InputError, match=rf"of another optimizer than {kind}: .* fitted with, Adam$"):
        restore_optimizer(stepped(kind, by)[1], state, unconstrained_parameters())


@pytest.mark.parametrize("kind", ["RAdam", "Adamax"])
def test_a_state_from_before_its_class_was_stored(kind):
    """Is known by the names of its settings: taken by its own optimizer, refused by another."""
    first, second = stepped("Adam", "torch")
    state = state_of(first)
    del state["class"]
    restore_optimizer(second, state, unconstrained_parameters())
    assert second.get_state() == first.get_state()
    with pytest.raises(InputError, match=rf"of another optimizer than {kind}: .* fitted with$"):
        restore_optimizer(stepped(kind, "torch")[1], state, unconstrained_parameters())
