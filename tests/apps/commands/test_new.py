"""The command new: what it writes runs as it is written, and writes over nothing."""

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.apps.cli import main


def test_what_it_writes_runs_as_it_is_written(tmp_path, capsys):
    file, run = tmp_path / "my_model.py", tmp_path / "run"
    assert main(["new", str(file)]) == 0
    assert f"next: pyrovae fit {file}" in capsys.readouterr().out
    assert len(file.read_text().splitlines()) <= 45
    assert main(["fit", str(file), "--data", "digits", "--epochs", "1", "--out", str(run)]) == 0
    few = ["--particles", "30", "--method", "importance", "--num", "10"]
    assert main(["evaluate", str(run), "--program", str(file), *few]) == 0
    assert "ELBO" in capsys.readouterr().out


TABLE = "size,colour,answer,age\n" + "".join(
    f"{i * 0.37 % 5:.2f},{'xyz'[i % 3]},{i % 5 if i % 7 else ''},{20 + i % 9}\n" for i in range(90)
)


@pytest.mark.parametrize("covariates", [[], ["--covariates", "age"]], ids=["columns", "covariates"])
def test_what_it_writes_for_a_table_runs_too(covariates, tmp_path, capsys):
    data, file, run = tmp_path / "table.csv", tmp_path / "mine.py", tmp_path / "run"
    data.write_text(TABLE)
    assert main(["new", str(file), "--data", str(data)]) == 0
    assert f"next: pyrovae fit {file} --data {data}" in capsys.readouterr().out
    assert main(["fit", str(file), "--data", str(data), *covariates, "--epochs", "1", "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "--program", str(file), "--particles", "30", "--method", "importance"]) == 0
    assert "x.categorical3: mass" in capsys.readouterr().out


def test_what_it_writes_for_other_data_runs_on_reals_and_names_what_is_for_a_table(tmp_path, capsys):
    file = tmp_path / "mine.py"
    np.save(tmp_path / "rows.npy", np.random.RandomState(0).randn(60, 3).astype("float32"))
    (tmp_path / "table.csv").write_text(TABLE)
    assert main(["new", str(file), "--data", str(tmp_path / "rows.npy")]) == 0
    words = ["fit", str(file), "--epochs", "1", "--out", str(tmp_path / "run"), "--data"]
    assert main([*words, str(tmp_path / "rows.npy")]) == 0
    assert main([*words[:-2], str(tmp_path / "other"), "--data", str(tmp_path / "table.csv")]) == 2
    assert "`pyrovae new FILE.py --data table.csv` writes programs" in capsys.readouterr().err
    assert main(["new", str(tmp_path / "b.py"), "--data", "nowhere.csv"]) == 2


def test_its_lines_may_be_changed_as_it_says(tmp_path):
    file = tmp_path / "my_model.py"
    main(["new", str(file)])
    text = file.read_text()
    (instead,) = [line.split("say to ")[1].rstrip(".") for line in text.splitlines() if "The line to change" in line]
    changed = text.replace("pv.priors.StandardNormal(latents)", instead)
    assert changed != text
    names = {}
    exec(compile(changed, str(file), "exec"), names)
    digits = pv.data.load("digits")
    fitted = pv.fit(*names["build"](digits), digits.train[:64], epochs=1, progress=False)
    assert len(fitted.history) == 1


def test_a_file_that_is_there_stays_as_it_is(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("x = 1\n")
    assert main(["new", str(file)]) == 2
    assert "is there already, and stays as it is" in capsys.readouterr().err and file.read_text() == "x = 1\n"


def test_names_that_no_program_has_are_refused(tmp_path, capsys):
    assert main(["new", str(tmp_path / "model.txt")]) == 2
    assert "give a name that ends in .py" in capsys.readouterr().err
    assert main(["new", str(tmp_path / "nowhere" / "model.py")]) == 2
    assert "there is no folder" in capsys.readouterr().err
