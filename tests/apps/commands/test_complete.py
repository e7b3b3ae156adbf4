"""The command that completes pictures: its account, its figure, and what it refuses."""

import json

import pytest

from pyrovae.apps import cli


@pytest.mark.parametrize("what", [("--mask", "lower-half"), ("--task", "salt-and-pepper:0.1,0,16")])
def test_pictures_are_completed_counted_and_drawn(run, tmp_path, capsys, what):
    figure = tmp_path / "figure.png"
    words = ["complete", str(run), *what, "--num", "4", "--draws", "6", "--particles", "100"]
    assert cli.main([*words, "--out", str(figure)]) == 0
    assert "log p(x | y)" in capsys.readouterr().out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert cli.main([*words, "--json", "-"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["num_data"] == 4 and account["log_density"]["mean"] < 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of --mask (as lower-half) and --task (as coarse:2)"),
        (["--mask", "left", "--task", "blur"], "give one of --mask"),
        (["--mask", "middle"], "expected one of lower-half, "),
        (["--task", "coarse:2"], "closed form for independent normal pixels alone, the likelihood is Binomial"),
        (["--mask", "left", "--out", "x.txt"], "give a name that ends in .png"),
    ],
)
def test_what_does_not_fit_is_refused(run, capsys, words, message):
    assert cli.main(["complete", str(run), *words]) == 2
    assert message in capsys.readouterr().err
