"""The guide program of one encoder: what it is called with, and what its heads are linear in at the start."""

import pyro
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.guides.encoder import Trunk


@pytest.fixture
def encoder():
    oracle = pv.oracles.ppca(5, 2)
    return pv.encoder_for(oracle.model, oracle.draw(50, seed=0)[0], hidden=(7,))


def test_other_arguments_than_it_was_made_for_are_refused(encoder):
    x = torch.zeros(3, 5, dtype=torch.float64)
    with pyro.get_param_store().scope(), pytest.raises(InputError, match="made for 1 arguments, and was called with 2"):
        encoder(x, x)


def test_it_draws_every_latent_in_the_plate_over_data(encoder):
    with pyro.get_param_store().scope():
        trace = pyro.poutine.trace(encoder).get_trace(torch.randn(3, 5, dtype=torch.float64))
    (frame,) = trace.nodes["z"]["cond_indep_stack"]
    assert (frame.name, frame.size) == ("data", 3) and trace.nodes["z"]["value"].shape == (3, 2)


def test_a_head_starts_with_nothing_linear_in_the_data(encoder):
    (part,) = encoder.parts
    assert not part.linear_of_inputs.weight.any() and part.linear_of_earlier is None


def test_a_trunk_reads_the_first_argument_in_its_shape_and_adds_the_others():
    trunk = Trunk(nn.Flatten(-2), (2, 3), 1, 6)
    rows = torch.randn(4, 7)
    expected = nn.functional.silu(rows[:, :6] + rows[:, 6:] @ trunk.others.weight.T)
    torch.testing.assert_close(trunk(rows), expected)
