"""Networks of several inputs: what they read, and what is refused."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs.networks import OneHot, beside, mlp


def test_inputs_stand_side_by_side_whatever_stands_before_their_events():
    network = beside([(2, 2), OneHot(3), 1], mlp(8, seed=0))(8)
    image, label, number = torch.randn(5, 2, 2), torch.tensor([0, 1, 2, 1, 0]), torch.randn(7, 5, 1)
    got = network(image, label, number)
    row = torch.cat([image[4].flatten(), torch.eye(3)[0], number[6, 4]])
    assert got.shape == (7, 5, 8)
    torch.testing.assert_close(got[6, 4], network.network(row))


def test_another_number_of_inputs_and_another_shape_are_refused():
    network = beside([2, OneHot(3)], mlp(5))(1)
    with pytest.raises(InputError, match="reads 2 inputs, but it was given 1"):
        network(torch.zeros(4, 2))
    with pytest.raises(InputError, match=r"events of shape \(2,\), but it was given a tensor of shape \(4, 3\)"):
        network(torch.zeros(4, 3), torch.zeros(4))


@pytest.mark.parametrize("label", [-1, 3])
def test_no_class_is_refused_where_pyro_checks_values(label):
    with pytest.raises(InputError, match=rf"classes 0\.\.2, got {label}"):
        OneHot(3)(torch.tensor([0, label]))
