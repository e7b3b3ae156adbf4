"""What commands share: arguments, and names that are refused before any work."""

from argparse import ArgumentParser

import pytest

from pyrovae.apps.arguments import check_parent, check_picture, in_options, options_of, run_arguments
from pyrovae.apps.cli import COMMANDS
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


def options(command):
    parser = ArgumentParser()
    COMMANDS[command](parser)
    return options_of(parser)


SAID = {  # (command, what a function says) -> what the command says
    ("check", "choose one with site="): "choose one with --site",
    ("check", "num_draws must be at least 1, got 0"): "--draws must be at least 1, got 0",
    ("fit", "give only='guide'"): "give --only guide",
    ("fit", "use compile=False, or patience=9"): "use --compile no, or --patience 9",
    ("fit", "sizes, got latent=0, hidden=[300, 100]"): "sizes, got --latent 0, --hidden 300 100",
    ("fit", "kl_warmup must be 0"): "--kl-warmup must be 0",
    ("fit", "or leave standardize=False out"): "or leave --no-standardize out",
    ("fit", "go on with resume=True"): "go on with --resume",
    ("evaluate", "evaluate with dtype='float64', or mend it"): "evaluate with --dtype float64, or mend it",
    ("evaluate", "method='annealed' takes neither defensive= nor vectorize=False"): (
        "--method annealed takes neither --defensive nor --no-vectorize"
    ),
    ("bdmc", "of num_data=3"): "of --num 3",
    ("gaps", "draw from the prior (defensive=0.1)"): "draw from the prior (defensive=0.1)",  # which has no such option
    ("fit", "pyro.plate('data', size, subsample=rows), a.data=3"): "pyro.plate('data', size, subsample=rows), a.data=3",
    ("fit", "x_seed is no site; batch_size_of_x == 3"): "x_seed is no site; batch_size_of_x == 3",
}


@pytest.mark.parametrize(("command", "text"), SAID)
def test_errors_speak_of_options(command, text):
    assert in_options(text, options("evaluate" if command == "bdmc" else command)) == SAID[command, text]
