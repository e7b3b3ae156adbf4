"""Conditional: the network's numbers arrive where the family wants them, and nothing else is accepted."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrovae.base.errors import InputError
from pyrovae.programs import families
from pyrovae.programs.conditional import Conditional
from pyrovae.programs.families.continuous import normal
from pyrovae.programs.families.family import Family, learned
from pyrovae.programs.networks import conv_decoder, conv_encoder, mlp

# name -> (family, event shape, numbers that a network gives for one event)
CONDITIONALS = {
    "bernoulli": (families.bernoulli(), (8, 8), 64),
    "binomial": (families.binomial(16), (8, 8), 64),
    "categorical": (families.categorical(5), (2, 3), 30),
    "labels": (families.categorical(5), (), 5),
    "normal": (normal(), 3, 6),
    "normal-fixed": (normal(scale=0.1), (3,), 3),
    "normal-learned": (normal(scale=learned(0.5)), (2, 3), 6),
    "normal-learned-each": (normal(scale=learned(torch.rand(2, 3) + 0.1)), (2, 3), 6),
    "normal-image": (normal(), (3, 4, 4), 96),
}


@pytest.fixture(params=CONDITIONALS.values(), ids=CONDITIONALS.keys())
def case(request):
    return request.param


@pytest.mark.parametrize("lead", [(), (7,), (5, 7)], ids=str)
def test_particles_stand_before_data(case, lead):
    family, event_shape, _ = case
    conditional = Conditional(family, event_shape, mlp(2, 8, seed=0))
    y = conditional(torch.randn(*lead, 2))
    assert (y.batch_shape, y.event_shape) == (lead, conditional.event_shape)
    assert y.log_prob(y.sample()).shape == lead


def test_leading_dimensions_give_what_rows_one_by_one_give(case):
    family, event_shape, _ = case
    conditional = Conditional(family, event_shape, mlp(2, 8, seed=0)).double()
    c = torch.randn(5, 7, 2, generator=torch.Generator().manual_seed(0)).double()
    y = conditional(c).sample()
    rows = [conditional(c[k, n]).log_prob(y[k, n]) for k in range(5) for n in range(7)]
    torch.testing.assert_close(conditional(c).log_prob(y).flatten(), torch.stack(rows), rtol=1e-12, atol=1e-12)


def test_a_network_gives_as_many_numbers_as_the_family_needs(case):
    family, event_shape, num_parameters = case
    assert Conditional(family, event_shape, mlp(2)).num_parameters == num_parameters


def test_every_weight_gets_a_gradient(case):
    family, event_shape, _ = case
    conditional = Conditional(family, event_shape, mlp(2, 8, seed=0))
    y = conditional(torch.randn(9, 2))
    y.log_prob(y.sample()).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in conditional.parameters())


def test_a_module_is_taken_as_it_is():
    network = nn.Linear(2, 6)
    conditional = Conditional(normal(), 3, network)
    assert conditional.network is network
    loc, raw = network(torch.ones(4, 2)).split(3, dim=-1)
    y = conditional(torch.ones(4, 2))
    assert torch.equal(y.mean, loc) and torch.equal(y.base_dist.scale, families.positive(raw))


def test_an_int_is_a_vector():
    assert Conditional(normal(), 3, mlp(2)).event_shape == Conditional(normal(), (3,), mlp(2)).event_shape == (3,)


def test_a_learned_scale_is_a_parameter_of_each_conditional_alone():
    family = normal(scale=learned(0.5))
    one, other = (Conditional(family, 3, mlp(2, seed=0)) for _ in range(2))
    assert "free.0" in dict(one.named_parameters())
    with torch.no_grad():
        one.free[0].fill_(math.log(9))
    assert one(torch.ones(2)).base_dist.scale[0] > 2 > 0.6 > other(torch.ones(2)).base_dist.scale[0]


def test_classes_of_a_pixel_stay_with_their_pixel():
    # The decoder's last channels are the classes, each a whole image.
    conditional = Conditional(families.categorical(3), (6, 5), conv_decoder(2, (6, 5), channels=(4,), seed=0))
    z = torch.randn(7, 2)
    images = conditional.network(z).reshape(7, 3, 6, 5)
    torch.testing.assert_close(conditional(z).base_dist.probs, images.softmax(1).permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(2, 5), r"normal over events of shape \(3,\) needs .* 6 numbers for each, but it gave 5 .*\(4, 5\)"),
        (nn.Linear(2, 12), "gives 6 numbers for each, but it gave 12"),
        (nn.Identity(), "gives 6 numbers for each, but it gave 2"),
    ],
)
def test_another_number_of_parameters_is_refused(network, message):
    with pytest.raises(InputError, match=message):
        Conditional(normal(), 3, network)(torch.ones(4, 2))


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"images of shape \(28, 28\), but the family needs 64 numbers"):
        Conditional(families.bernoulli(), (8, 8), conv_decoder(2, (28, 28)))
    with pytest.raises(InputError, match=r"events of shape \(28, 28\), but it was given .* \(5, 8, 8\)"):
        Conditional(normal(), 2, conv_encoder((28, 28)))(torch.zeros(5, 8, 8))


def test_a_learned_scale_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"scale of shape \(7,\) does not fit events of shape \(8, 8\)"):
        Conditional(normal(scale=learned(torch.ones(7))), (8, 8), mlp(2))(torch.ones(4, 2))


def test_a_family_that_builds_other_events_is_refused():
    forgetful = Family("forgetful", lambda shape: (shape,), lambda event_dim, loc: dist.Normal(loc, 1.0))
    message = r"forgetful built a distribution of batch shape \(4, 3\) and event shape \(\); expected \(4,\) and \(3,\)"
    with pytest.raises(InputError, match=message):
        Conditional(forgetful, 3, mlp(2))(torch.ones(4, 2))


def test_a_family_may_give_its_shapes_as_tuples():
    family = Family("laplace", lambda s: (tuple(s), [3]), lambda d, a, _: dist.Laplace(a, 1.0).to_event(d))
    assert Conditional(family, 3, mlp(2))(torch.zeros(4, 2)).event_shape == (3,)
