"""The command ask: what a row lacks is ranked by what it would tell of a column, whatever the row says of that."""

import csv
import json
import math

import numpy as np
import pytest

from pyrovae.apps.cli import main

NUM_ROWS = 150
FEW = ["--draws", "40", "--particles", "100"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A run of a table whose size decides on height, and height on nothing else; and later rows with gaps."""
    folder, rng = tmp_path_factory.mktemp("ask"), np.random.RandomState(0)
    size = rng.choice(["large", "small"], NUM_ROWS)
    height, noise = np.where(size == "large", 180.0, 150.0) + rng.randn(NUM_ROWS), rng.randn(NUM_ROWS)
    rows = [[f"{h:.2f}", s, f"{n:.2f}"] for h, s, n in zip(height, size, noise, strict=True)]
    names = ["height", "size", "noise"]
    later = [names, ["", "large", ""], ["", "", "0.5"], ["150", "small", "0.1"]]
    paths = {"whole": folder / "whole.csv", "later": folder / "later.csv", "run": folder / "run", "folder": folder}
    for name, cells in (("whole", [names, *rows]), ("later", later)):
        with paths[name].open("w", newline="") as file:
            csv.writer(file).writerows(cells)
    words = ["--latent", "1", "--hidden", "16", "--epochs", "200", "--lr", "1e-2", "--out", str(paths["run"])]
    assert main(["fit", "--data", str(paths["whole"]), *words]) == 0
    return paths


def asked(tables, *words):
    return main(["ask", str(tables["run"]), str(tables["later"]), *FEW, *words])


def test_the_column_that_tells_most_comes_first(tables, capsys):
    figure = tables["folder"] / "asked.png"
    assert asked(tables, "--about", "size", "--row", "0", "--figure", str(figure)) == 0
    printed = capsys.readouterr().out
    assert "information about size, nothing given" in printed and "datum 0: ask height" in printed
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_every_row_has_its_own_question(tables, capsys):
    assert asked(tables, "--about", "size", "--json", "-") == 0
    account = json.loads(capsys.readouterr().out)
    assert account["best"] == ["height", "height", ""] and account["about"] == "size"
    found = account["candidates"]
    assert found["height"]["num_data"] == 2 and found["noise"]["num_data"] == 1
    # A class of two tells at most log 2 of another, and here the height says nearly all of it.
    assert 0.3 < found["height"]["mean"] < math.log(2) + 4 * found["height"]["mc_se"]
    assert abs(found["noise"]["mean"]) < 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--about", "siez"], '--about: no column "siez"; did you mean "size"?'),
        (["--about", "size", "--row", "3"], "--row is from 0 to 2, the rows of"),
        (["--about", "size", "--row", "2"], "nothing is left to ask"),
        (["--about", "size", "--draws", "1"], "--draws must be at least 2"),
        (["--about", "size", "--figure", "x.txt"], "give a name that ends in .png"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(words, message, tables, capsys):
    assert asked(tables, *words) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_run_of_no_table_is_refused(tables, run, capsys):
    assert main(["ask", str(run), str(tables["later"]), "--about", "size"]) == 2
    assert "expected a data set from a table" in capsys.readouterr().err
