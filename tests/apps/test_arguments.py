"""What commands share: arguments, and names that are refused before any work."""

from argparse import ArgumentParser

import pytest

from pyrovae.apps.arguments import check_parent, check_picture, run_arguments
from pyrovae.base.errors import InputError


def test_arguments_of_a_run():
    parser = ArgumentParser()
    run_arguments(parser)
    given = parser.parse_args(["runs/digits", "--device", "cpu"])
    assert vars(given) == {"run": "runs/digits", "program": None, "data_dir": None, "device": "cpu"}


def test_names_of_files_that_could_not_be_written(tmp_path):
    check_parent(None), check_parent("-"), check_parent(str(tmp_path / "a.json"))
    with pytest.raises(InputError, match=r"there is no folder .*none; make it first"):
        check_parent(str(tmp_path / "none" / "a.json"))
    check_picture(None), check_picture("a.PNG")
    with pytest.raises(InputError, match=r"a\.txt: give a name that ends in \.png, \.svg, \.pdf"):
        check_picture("a.txt")
