"""The command new: what it writes runs as it is written, and writes over nothing."""

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
