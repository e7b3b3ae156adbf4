import pytest

from pyrovae.base.errors import InputError, nearest

NAMES = ["digits", "mnist", "fashion-mnist"]


def test_an_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mnits", "mnist"), ("MNIST", "mnist"), ("fashion_mnist", "fashion-mnist"), ("digit", "digits")],
)
def test_nearest_offers_the_name_that_was_meant(name, hint):
    assert nearest(name, NAMES) == f' did you mean "{hint}"?'


def test_nearest_keeps_the_case_of_the_choice():
    assert nearest("vae", ["VAE"]) == ' did you mean "VAE"?'


@pytest.mark.parametrize("name", ["", "cifar", "/some/where"])
def test_nearest_is_silent_if_nothing_is_close(name):
    assert nearest(name, NAMES) == ""


def test_nearest_of_no_choices():
    assert nearest("mnist", iter(())) == ""
