"""Every combination once, by a name that says what it is; what cannot be fitted is left out, or refused by its words."""

import pytest

from pyrovae.apps.sweeps.grid import grid, listed
from pyrovae.base.errors import InputError


def test_every_value_meets_every_other():
    found = grid({"prior": ["normal", "mixture:20"], "likelihood": "binomial", "latent": [4, 8]})
    assert [one.name for one in found.combinations] == [
        "normal, latent 4",
        "normal, latent 8",
        "mixture:20, latent 4",
        "mixture:20, latent 8",
    ]
    assert found.combinations[2].settings == {"prior": "mixture:20", "likelihood": "binomial", "latent": 4}
    assert found.left_out == {}


def test_one_at_a_time_each_value_meets_the_first_of_the_others():
    found = grid({"prior": ["normal", "mixture:20"], "latent": [4, 8, 16]}, one_at_a_time=True)
    names = ["normal, latent 4", "mixture:20, latent 4", "normal, latent 8", "normal, latent 16"]
    assert [one.name for one in found.combinations] == names


def test_widths_are_one_value_unless_there_are_lists_of_them():
    assert len(grid({"hidden": [300, 100]}).combinations) == 1
    assert [one.name for one in grid({"hidden": [[300, 100], [200]]}).combinations] == ["hidden 300-100", "hidden 200"]


def test_unlike_supports_are_left_out_with_the_reason():
    found = grid({"prior": ["normal", "gamma"], "guide": ["normal", "log-normal"]})
    assert [one.name for one in found.combinations] == ["normal, normal", "gamma, log-normal"]
    assert set(found.left_out) == {"normal, log-normal", "gamma, normal"}
    assert "over positive latents" in found.left_out["gamma, normal"]


def test_objectives_for_a_guide_alone_are_left_out():
    found = grid({"objective": ["elbo", "forward-kl", "iwae:5"]})
    assert [one.name for one in found.combinations] == ["elbo", "iwae:5"]
    assert "trains a guide for a model as it is" in found.left_out["forward-kl"]


REFUSED = {
    "a setting": ({"priors": ["normal"]}, r"""no setting 'priors': did you mean "prior"\?"""),
    "a name": ({"prior": ["normal", "vmap"]}, r"""unknown prior 'vmap': did you mean "vamp"\?"""),
    "a number": ({"lr": [1e-3, -1.0]}, "--lr must be positive"),
    "no value": ({"prior": []}, "prior is an empty list"),
    "a value twice": ({"latent": [8, 4, 8]}, "latent holds 8 twice"),
    "two data sets": ({"data": ["digits", "mnist"]}, "data is one for a whole sweep"),
    "one width": ({"hidden": 32}, r"hidden is the widths of the layers, a list: \[300, 100\], got 32"),
    "text for numbers": ({"latent": ["2", "3"]}, "latent is a number, got '2'"),
    "a seed": ({"seed": 3}, "no setting 'seed'"),
    "nothing that fits": ({"prior": "sphere", "guide": ["normal", "gamma"]}, "no combination can be fitted"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED)
def test_what_no_sweep_can_be_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        grid(settings)


def test_numbers_belong_to_the_name_before_them():
    assert listed("iaf:3,64,normal,gated:300,300") == ["iaf:3,64", "normal", "gated:300,300"]
    assert listed("4,8") == ["4", "8"]
