"""What the modules of programs share: registered weights, seeded draws, and what is refused, by its name."""

import math

import pyro
import pytest
import torch
from torch import nn

from pyrovae.base.errors import InputError
from pyrovae.programs.parameters import check_proportions, check_rows, learned_or_fixed, register_module, seeded


@pytest.mark.parametrize(("value", "written"), [([1.0, -1.0], "-1"), ([1.0, 0.0], "0"), ([1.0, math.nan], "nan")])
def test_the_tensor_that_is_not_positive_is_named(value, written):
    learned_or_fixed("scale", torch.tensor(1e-300, dtype=torch.float64), torch.Size([2]), positive=True)
    with pytest.raises(InputError, match=f"scale must be positive everywhere; got {written}"):
        learned_or_fixed("scale", torch.tensor(value), torch.Size([2]), positive=True)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [[1.0]], [math.nan, 1.0]], ids=str)
def test_what_is_no_proportion_is_refused(weights):
    check_proportions(torch.tensor([0.25, 0.75]))
    with pytest.raises(InputError, match="summing to one"):
        check_proportions(torch.tensor(weights))


def test_tensors_become_buffers_of_the_full_shape_and_parameters_stay_parameters():
    module, learned = nn.Module(), nn.Parameter(torch.tensor(2.0))
    given = torch.ones(3)
    values = {"loc": given, "scale": torch.tensor(0.5), "learned": learned}
    for name, value in values.items():
        setattr(module, name, learned_or_fixed(name, value, given.shape))
    assert list(module.state_dict()) == ["learned", "loc", "scale"]
    assert dict(module.named_buffers())["scale"].tolist() == [0.5] * 3
    assert module.loc.data_ptr() != given.data_ptr()  # a copy
    assert dict(module.named_parameters()) == {"learned": learned}
    with pytest.raises(InputError, match=r"expected other of shape \(3,\); got \(2,\)"):
        learned_or_fixed("other", torch.ones(2), given.shape)


def test_a_program_has_the_weights_of_a_module_that_has_any():
    with pyro.get_param_store().scope():
        register_module(nn.ReLU())
        assert not list(pyro.get_param_store())
        register_module(nn.Linear(2, 1))
        assert set(pyro.get_param_store()) == {"Linear$$$weight", "Linear$$$bias"}


def test_draws_inside_come_from_the_seed_alone():
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(4)
    assert torch.equal(before, torch.get_rng_state())
    with seeded(3):
        assert torch.equal(first, torch.rand(4))
    with seeded(None):
        torch.rand(4)
    assert not torch.equal(before, torch.get_rng_state())


def test_the_generator_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), seeded(3):
        torch.rand(4)
        raise RuntimeError("inside")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("x", [torch.zeros(4, 3), torch.zeros(4), torch.tensor(0.0)], ids=lambda x: str(tuple(x.shape)))
def test_rows_of_another_shape_are_refused(x):
    check_rows(torch.zeros(4, 2), torch.Size([2]))
    with pytest.raises(InputError, match=r"expected data of shape \(N, 2\); got "):
        check_rows(x, torch.Size([2]))
