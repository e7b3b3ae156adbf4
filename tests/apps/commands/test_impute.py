"""The command impute: what was there stays, what was not has units and labels, draws stand below each other."""

import csv
import json

import numpy as np
import pytest

from pyrovae.apps.cli import main

NUM_ROWS = 90


def write(path, table):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A table with gaps and columns of four kinds; a later one, a whole one, and what was hidden."""
    folder, rng = tmp_path_factory.mktemp("impute"), np.random.RandomState(0)
    size = rng.choice(["large", "small"], NUM_ROWS)
    height = np.where(size == "large", 180.0, 150.0) + rng.randn(NUM_ROWS)
    visits = rng.poisson(np.where(size == "large", 40.0, 4.0))
    cells = [[f"{h:.2f}", s, str(v), f"id{n}"] for n, (h, s, v) in enumerate(zip(height, size, visits, strict=True))]
    names = ["height", "size", "visits", "name"]
    whole = write(folder / "whole.csv", [names, *cells])
    gone = rng.rand(NUM_ROWS, 3) < 0.2
    gone[:, 0] &= ~gone[:, 1]
    holed = [["" if n < 3 and gone[i, n] else cell for n, cell in enumerate(row)] for i, row in enumerate(cells)]
    late = [names, ["NA", "large", "38", "x"], ["151.00", "small", "4", "y"]]
    run = folder / "run"
    words = ["--columns", "name:ignored,visits:count", "--latent", "2", "--hidden", "16", "--epochs", "120"]
    fit = ["fit", "--data", str(write(folder / "holed.csv", [names, *holed])), *words, "--lr", "1e-2"]
    assert main([*fit, "--out", str(run)]) == 0
    paths = {"run": run, "holed": folder / "holed.csv", "late": write(folder / "late.csv", late), "whole": whole}
    return {**paths, "cells": cells, "gone": gone, "folder": folder}


def imputed(tables, name, *words):
    out = tables["folder"] / f"{name}-completed.csv"
    assert main(["impute", str(tables["run"]), str(tables[name]), "--out", str(out), "--particles", "100", *words]) == 0
    with out.open(newline="") as file:
        return list(csv.reader(file))


def test_what_was_there_stays_and_what_was_not_is_near(tables, capsys):
    account = tables["folder"] / "account.json"
    header, *rows = imputed(tables, "holed", "--json", str(account))
    assert header == ["height", "size", "visits", "name"] and len(rows) == NUM_ROWS
    gone = np.column_stack([tables["gone"], np.zeros(NUM_ROWS, bool)])
    for row, whole, missing in zip(rows, tables["cells"], gone, strict=True):
        assert [cell for cell, lost in zip(row, missing, strict=True) if not lost] == [
            cell for cell, lost in zip(whole, missing, strict=True) if not lost
        ]
        assert row[1] in ("large", "small") and row[2].isdigit()
    error = [abs(float(rows[i][0]) - float(tables["cells"][i][0])) for i in gone[:, 0].nonzero()[0]]
    assert np.mean(error) < 8  # of 15 from the mean of all
    printed = capsys.readouterr().out
    assert "unreliable draws (k-hat" in printed and "route" in printed
    assert json.loads(account.read_text())["num_missing"] == int(gone.sum())


def test_draws_stand_below_each_other_with_their_number(tables):
    header, *rows = imputed(tables, "late", "--draws", "3")
    assert header == ["imputation", "height", "size", "visits", "name"]
    assert [row[0] for row in rows] == ["1", "1", "2", "2", "3", "3"]
    assert len({row[1] for row in rows[::2]}) == 3 and {row[1] for row in rows[1::2]} == {"151.00"}


@pytest.mark.parametrize("draws", [None, 2])
def test_parquet_comes_back_in_its_types(tables, draws):
    pandas = pytest.importorskip("pandas")
    holed = pandas.read_csv(tables["holed"])
    holed = holed.assign(size=holed["size"].astype("category"), visits=holed["visits"].astype("Int64"))
    source, out = tables["folder"] / "holed.parquet", tables["folder"] / "completed.parquet"
    holed.to_parquet(source)
    words = ["--draws", str(draws)] if draws else []
    assert main(["impute", str(tables["run"]), str(source), "--out", str(out), "--particles", "100", *words]) == 0
    whole, gone = pandas.read_parquet(out), holed.isna()
    if draws:
        assert whole.pop("imputation").tolist() == [1] * NUM_ROWS + [2] * NUM_ROWS
        assert whole.index.tolist() == list(range(2 * NUM_ROWS))
    assert (whole.dtypes == holed.dtypes).all() and not whole.isna().any().any()
    parts = [whole[start : start + NUM_ROWS].reset_index(drop=True) for start in range(0, len(whole), NUM_ROWS)]
    assert len(parts) == (draws or 1) and all(one.mask(gone).equals(holed) for one in parts)
    if not draws:
        cells = imputed(tables, "holed")[1:]
        assert whole["visits"].tolist() == [int(row[2]) for row in cells]
        assert whole["size"].tolist() == [row[1] for row in cells]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{whole}", "--out", "{folder}/x.csv"], "nothing is missing in the columns of the run (height, size, visits)"),
        (["{holed}", "--out", "{folder}/x.txt"], "expected two names that end in .csv or both in .parquet"),
        (["{holed}", "--out", "{folder}/x.parquet"], "expected two names that end in .csv or both in .parquet"),
        (["{holed}", "--out", "{folder}/none/x.csv"], "there is no folder"),
        (["{holed}", "--out", "{folder}/x.csv", "--draws", "0"], "--draws must be at least 1, got 0"),
        (["{folder}/none.csv", "--out", "{folder}/x.csv"], "none.csv: expected a readable file"),
    ],
)
def test_what_cannot_be_imputed_is_refused_in_one_line(words, message, tables, capsys):
    assert main(["impute", str(tables["run"]), *(word.format(**tables) for word in words)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_run_of_no_table_is_refused(tables, run, capsys):
    assert main(["impute", str(run), str(tables["holed"]), "--out", str(tables["folder"] / "x.csv")]) == 2
    assert "expected a data set from a table" in capsys.readouterr().err
