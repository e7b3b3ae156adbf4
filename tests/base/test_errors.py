from pathlib import Path

import numpy as np
import pytest
import torch

from pyrovae.base import errors
from pyrovae.base.errors import InputError, check_at_least_one, first_line, nearest, warn, whole

NAMES = ["digits", "mnist", "fashion-mnist"]


def test_an_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("\n one\ntwo"), "one"), (KeyError(), "KeyError"), (RuntimeError(" \n"), "RuntimeError")],
    ids=["two lines", "nothing", "blank"],
)
def test_the_first_line_of_an_error_is_never_missing(error, line):
    assert first_line(error) == line


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


@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3), torch.tensor(3)], ids=lambda n: type(n).__name__)
def test_whole_numbers_of_any_library_are_taken(number):
    check_at_least_one(num_particles=number)
    assert type(whole("num_particles", number)) is int


@pytest.mark.parametrize("number", [3.0, "3", None, np.float64(3), torch.tensor(3.0)], ids=str)
def test_other_numbers_are_not_whole(number):
    with pytest.raises(InputError, match="num_draws must be a whole number"):
        check_at_least_one(num_draws=number)


def test_a_warning_points_at_the_line_that_called_the_package():
    inside = {"warn": warn}
    code = "def deep(count):\n    return deep(count - 1) if count else warn(UserWarning('said'))"
    exec(compile(code, Path(errors.__file__).with_name("made.py"), "exec"), inside)
    with pytest.warns(UserWarning, match="said") as caught:
        inside["deep"](3)
    assert caught[0].filename == __file__


def test_a_name_of_another_kind_has_no_neighbour():
    assert nearest(10, NAMES) == nearest(None, NAMES) == ""
