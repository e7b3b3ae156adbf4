"""Each measurement's questions to a pair, and what an answer costs nobody: the pair stays as it was."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.checks import looks
from pyrovae.pairs.context import isolated
from pyrovae.pairs.particles import Particles

X = torch.linspace(0.2, 1.8, 6)


def pair(prior, guide, likelihood=lambda z: dist.Normal(z, 1.0)):
    """Programs of one latent, from functions of the data and of the latent."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", likelihood(pyro.sample("z", prior(x))), obs=x)

    def q(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    return model, q


def normal(loc=0.0, scale=1.0):
    return lambda x: dist.Normal(loc + torch.zeros_like(x), scale)


def shown(model, guide):
    """What a look at the pair shows, without the looks that are tried here."""
    with isolated(model, guide) as (model, guide, _):
        return Particles(model, guide, (X,), strategy="vectorized").shown


def by_place(x):
    return dist.Normal(torch.arange(len(x)) * 0.1, 1.0)


@pytest.mark.parametrize(("prior", "placed"), [(normal(), None), (by_place, "z")], ids=["alike", "by place"])
def test_a_site_that_goes_with_places_is_told(prior, placed):
    assert looks.check_weights(shown(*pair(prior, normal()))) == placed
    with isolated(*pair(prior, normal())) as (model, guide, _):
        assert Particles(model, guide, (X,)).placed == placed


def test_weights_of_programs_that_are_random_beyond_their_sites_are_refused():
    with pytest.raises(InputError, match="site 'z' of the guide: its log density changes from run to run"):
        looks.check_weights(shown(*pair(normal(), lambda x: dist.Normal(x, 0.5 + torch.rand(1)))))


def test_a_parameter_beyond_its_bounds_is_found_in_the_models_own_draws():
    broken = pair(lambda x: dist.Normal(torch.zeros_like(x), -1.0, validate_args=False), normal())
    with pytest.raises((InputError, FloatingPointError), match=r"site .z.\W.*scale"):
        looks.check_weights(shown(*broken))


REFUSED = {  # name: (prior, guide, likelihood, words)
    "a guide with less": (normal(), lambda x: dist.HalfNormal(torch.ones_like(x)), None, "cannot draw"),
    "a guide with more": (lambda x: dist.HalfNormal(torch.ones_like(x)), normal(), None, "'z'"),
    "data that a draw rules out": (normal(), normal(), lambda z: dist.Uniform(z - 0.1, z + 0.1), "impossible"),
}


@pytest.mark.parametrize(("prior", "guide", "likelihood", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_is_refused(prior, guide, likelihood, words):
    programs = pair(prior, guide, *filter(None, [likelihood]))
    with pyro.validation_enabled(False), pytest.raises(InputError, match=words):
        looks.check_trainable(shown(*programs))


def test_a_pair_that_is_right_passes_every_look_and_keeps_its_random_state():
    found = shown(*pair(normal(), normal(0.3, 1.1)))
    state = torch.get_rng_state()
    assert looks.check_weights(found) is None
    assert torch.equal(torch.get_rng_state(), state)
    for look in (looks.check_supports, looks.check_edges, looks.check_inside, looks.check_trainable):
        look(found)
    looks.require_exchangeable(found, "calibration")


def test_rows_known_by_their_place_are_not_exchangeable():
    with pytest.raises(InputError, match="calibration"):
        looks.require_exchangeable(shown(*pair(by_place, normal())), "calibration")
