"""The command, as a user meets it: what it prints, where it stops, what it leaves."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.apps import cli
from pyrovae.base import storage
from pyrovae.base.errors import UntrustedEvidence

FIT = ["fit", "--data", "digits", "--latent", "2", "--hidden", "16", "--epochs", "2"]

PROGRAM = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

torch.manual_seed(0)
encoder, decoder = nn.Linear(64, 4), nn.Linear(2, 64)

def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        rate = decoder(z).exp().reshape(*z.shape[:-1], 8, 8)
        pyro.sample("x", dist.Poisson(rate).to_event(2), obs=x)

def guide(x):
    pyro.module("encoder", encoder)
    loc, scale = encoder(x.flatten(1) / 16).chunk(2, -1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "mine.py").write_text(PROGRAM)
    return tmp_path / "mine.py"


def fails(capsys, status, *words):
    """Runs a command that must fail with one line on stderr; returns the line."""
    assert cli.main([str(word) for word in words]) == status
    error = capsys.readouterr().err.strip()
    assert error.startswith("pyrovae: error: ") and "\n" not in error and "Traceback" not in error
    return error


HELP = """
import contextlib, io, json, sys
from pyrovae.apps import cli
helps = {}
for command in cli.COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            cli.main([command, "--help"])
        except SystemExit as stop:
            helps[command] = [stop.code, printed.getvalue(), "torch" in sys.modules or "matplotlib" in sys.modules]
print(json.dumps(helps))
"""


@pytest.fixture(scope="module")
def helps():
    """Of one process that nothing else has imported for, command -> [status, help, whether anything heavy is there now]."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_an_example_and_imports_nothing_heavy(command, helps):
    status, text, is_heavy = helps[command]
    assert status == 0 and not is_heavy
    assert f"example:\n  pyrovae {command}" in text


def test_fit_evaluate_compare(run, account, tmp_path, capsys):
    assert "evidence  log p(x)" in account and "KL(q(z|x) || posterior" in account and "K = 50 particles" in account
    other = tmp_path / "mixture"
    assert cli.main([*FIT, "--prior", "mixture", "--out", str(other)]) == 0
    words = ["evaluate", str(other), "--particles", "50", "--method", "importance", "--json", str(tmp_path / "a.json")]
    assert cli.main(words) == 0
    capsys.readouterr()
    assert cli.main(["compare", str(run), str(other), "--json", str(tmp_path / "b.json")]) == 0
    assert "paired" in capsys.readouterr().out
    assert cli.main(["compare", str(run), str(other), "--json", "-"]) == 0
    account = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert account == json.loads((tmp_path / "b.json").read_text()) and len(account["rows"]) == 2


def test_json_has_the_documented_form(run, capsys):
    assert cli.main(["evaluate", str(run), "--particles", "50", "--json", "-", "--num", "40"]) == 0
    account = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert account["unit"] == "nats per datum" and account["num_data"] == 40 and account["num_particles"] == 50
    assert account["protocol"]["dataset"] == "digits"
    for name in ("log_evidence", "elbo", "reconstruction", "kl_prior", "kl_posterior"):
        assert {"mean", "data_se", "mc_se"} <= set(account[name])
    assert account["log_evidence"]["bias"] < 0
    assert set(account["pareto_k"]) >= {"threshold", "fraction_above", "fraction_undefined"}
    total = account["elbo"]["mean"] + account["kl_posterior"]["mean"]
    assert math.isclose(total, account["log_evidence"]["mean"], rel_tol=1e-12)


def test_one_particle_gives_null_errors(run, capsys):
    assert cli.main(["evaluate", str(run), "--particles", "1", "--json", "-", "--num", "10"]) == 0
    account = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert account["elbo"]["mc_se"] is None and account["pareto_k"]["threshold"] is None


def test_resume_through_the_command_is_the_run_never_stopped(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = [*FIT[:-1], "4", "--schedule", "constant", "--patience", "9"]
    assert cli.main([*words, "--out", str(whole)]) == 0
    assert cli.main([*words[:-5], "2", *words[-4:], "--out", str(parts)]) == 0
    assert cli.main(["fit", "--resume", "--epochs", "4", "--out", str(parts)]) == 0
    weights = [storage.read(folder)[1]["weights.safetensors"] for folder in (whole, parts)]
    assert weights[0] == weights[1]
    assert "was begun with --latent 2, not 3" in fails(capsys, 2, "fit", "--resume", "--latent", 3, "--out", parts)


def test_a_refit_begins_with_the_weights_of_a_run_and_keeps_its_model(run, tmp_path):
    again = tmp_path / "refit"
    words = ["fit", "--from", str(run), "--only", "guide", "--objective", "half-asleep", "--out", str(again)]
    assert cli.main([*words, "--epochs", "1"]) == 0
    assert cli.main(["fit", "--resume", "--epochs", "2", "--out", str(again)]) == 0
    before, after = (pv.runs.load(folder).model.__wrapped__.__self__ for folder in (run, again))
    same = {name: torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items()}
    assert {name for name, equal in same.items() if not equal} == {name for name in same if name.startswith("encoder")}
    record = pv.runs.recorded(again)
    assert (record["from"], record["only"], record["latent"]) == (str(run), "guide", 2)


def test_a_users_own_program_file(program, tmp_path, capsys):
    run = tmp_path / "mine"
    assert cli.main(["fit", str(program), "--data", "digits", "--epochs", "1", "--out", str(run)]) == 0
    assert f"next: pyrovae evaluate {run} --program {program}" in capsys.readouterr().out
    assert "is a run of your own programs; give --program" in fails(capsys, 2, "evaluate", run)
    evaluate = ["evaluate", str(run), "--program", str(program), "--particles", "20", "--num", "30"]
    assert cli.main(evaluate) == 0
    assert "log p(x)" in capsys.readouterr().out
    program.write_text(PROGRAM + "# changed\n")
    assert "is not the file that was fitted" in fails(capsys, 2, *evaluate)


def test_build_gets_the_data_set(tmp_path):
    code = (
        PROGRAM.replace("def model", "kinds = []\ndef model")
        + "\ndef build(dataset):\n    assert dataset.kind == 'counts'\n    return model, guide\n"
    )
    (tmp_path / "built.py").write_text(code)
    assert cli.main(["fit", str(tmp_path / "built.py"), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0


TABLE = """age;sex;colour;answer;weight;person
""" + "".join(
    f"{20 + (7 * i) % 41};{'fm'[i % 2]};{('red', 'blue', 'green')[i % 3]};{1 + i % 5 if i % 7 else ''};{60 + (i * i) % 17 / 4};{i // 4}\n"
    for i in range(120)
)
COLUMNS = ["--columns", "answer:ordinal", "--covariates", "age, sex", "--group", "person"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "people.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture(scope="module")
def of_table(table):
    run = table.parent / "run"
    words = ["fit", "--data", str(table), *COLUMNS, "--latent", "2", "--hidden", "16", "--epochs", "2"]
    assert cli.main([*words, "--out", str(run)]) == 0
    return run


def test_a_table_from_end_to_end(of_table, table, capsys):
    words = [
        "fit",
        "--data",
        str(table),
        *COLUMNS,
        "--latent",
        "2",
        "--epochs",
        "1",
        "--out",
        str(table.parent / "one"),
    ]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Dataset(people.csv: columns 1 categorical, 1 ordinal, 1 real of shape (3,); ")
    assert re.search(r"\nanswer +ordinal +18  1 < 2 < 3", printed)  # and 18 missing cells
    assert "1 < 2 < 3 < 4 < 5\n" in printed and "blue, green, red (found)" in printed
    assert "likelihood mixed: mixed(categorical(3) x 1, ordinal(5) x 1, normal(scales learned) x 1)" in printed
    assert cli.main(["evaluate", str(of_table), "--particles", "30", "--method", "importance"]) == 0
    printed = capsys.readouterr().out
    assert "x.categorical3: mass, x.ordinal5: mass, x.real: density" in printed and "log Jacobian" in printed
    record = pv.runs.recorded(of_table)
    assert (record["columns"], record["covariates"], record["group"]) == ("answer:ordinal", "age, sex", "person")


def test_draws_of_a_table_have_its_labels_and_units(of_table, tmp_path, capsys):
    assert cli.main(["sample", str(of_table), "--num", "40", "--out", str(tmp_path / "a.csv")]) == 0
    head, *rows = (tmp_path / "a.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    assert head == "colour,answer,weight" and len(rows) == 40
    assert {row[0] for row in cells} <= {"red", "blue", "green"} and {row[1] for row in cells} <= set("12345")
    assert 55 < sum(float(row[2]) for row in cells) / 40 < 70
    assert cli.main(["sample", str(of_table), "--num", "40", "--out", str(tmp_path / "a.npy")]) == 0
    assert "draws of x" in capsys.readouterr().out


def test_a_site_of_a_table_is_checked(of_table, capsys):
    words = ["check", str(of_table), "--num", "8", "--draws", "20"]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert shown.err == (
        "checked at the first of 3 observed sites, x.categorical3; --site takes another: x.ordinal5, x.real\n"
    )
    assert "site 'x.categorical3'" in shown.out
    assert cli.main([*words, "--site", "x.real"]) == 0
    shown = capsys.readouterr()
    assert "site 'x.real'" in shown.out and not shown.err


def test_a_run_is_brought_back_from_another_folder(tmp_path, monkeypatch, capsys):
    """Its data by the path that was given, from where one is; else where they were."""
    begun, elsewhere = tmp_path / "begun", tmp_path / "elsewhere"
    (begun / "data").mkdir(parents=True), elsewhere.mkdir()
    rows = np.random.RandomState(0).randn(60, 3).astype("float32")
    np.save(begun / "data" / "rows.npy", rows)
    monkeypatch.chdir(begun)
    words = ["fit", "--data", "data/rows.npy", "--latent", "2", "--hidden", "8", "--epochs", "1", "--out", "run"]
    assert cli.main(words) == 0
    monkeypatch.chdir(elsewhere)
    evaluate = ["evaluate", str(begun / "run"), "--particles", "20", "--method", "importance"]
    assert cli.main(evaluate) == 0
    assert cli.main(["fit", "--resume", "--epochs", "2", "--out", str(begun / "run")]) == 0
    (begun / "data").rename(begun / "moved")
    (elsewhere / "data").mkdir()
    here, there = elsewhere / "data" / "rows.npy", begun / "data" / "rows.npy"
    assert f'the data "data/rows.npy" are neither at {here} nor where they were, at {there}' in fails(
        capsys, 2, *evaluate
    )
    np.save(here, rows)
    assert cli.main(evaluate) == 0
    np.save(here, rows + 1)
    assert "was fitted on other rows" in fails(capsys, 2, *evaluate)


def test_later_rows_are_measured_as_those_of_the_run(of_table, table, tmp_path, capsys):
    later = tmp_path / "later.csv"
    head, *rows = TABLE.splitlines()
    later.write_text("\n".join([head, *rows[:9]]))
    words = ["evaluate", str(of_table), "--particles", "20", "--method", "importance", "--later"]
    assert cli.main([*words, str(later)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("later.csv all: 9 data, 1 of 3 columns rescaled") and "not kept in the run" in printed
    later.write_text("\n".join([head, "30;f;pink;1;60;0"]))
    assert 'unknown label "pink" of the categorical column "colour" in row 2' in fails(capsys, 2, *words, later)
    assert "expected a .csv, a .parquet or a frame, got 'x.npy'" in fails(capsys, 2, *words, "x.npy")


BAD = {
    "kind of a column": (["fit", "--columns", "a:ordnal", "--out", "{new}"], 'did you mean "ordinal"'),
    "columns": (["fit", "--columns", "quality", "--out", "{new}"], "columns: expected name:kind"),
    "columns of no table": (["fit", "--columns", "a:real", "--out", "{new}"], "expected --columns with a table alone"),
    "rows of no table": (["sample", "{run}", "--out", "{new}.csv"], ".csv is for rows of a table"),
    "command": (["fitt"], 'did you mean "fit"'),
    "data set": (["fit", "--data", "mnits", "--out", "{new}"], 'did you mean "mnist"'),
    "prior": (["fit", "--prior", "mixtur", "--out", "{new}"], 'did you mean "mixture"'),
    "likelihood": (["fit", "--likelihood", "bernouli", "--out", "{new}"], 'did you mean "bernoulli"'),
    "network": (["fit", "--network", "mpl", "--out", "{new}"], 'did you mean "mlp"'),
    "schedule": (["fit", "--schedule", "cosin", "--out", "{new}"], 'did you mean "cosine"'),
    "counts under a bernoulli": (
        ["fit", "--likelihood", "bernoulli", "--out", "{new}"],
        "outside the support of Bernoulli",
    ),
    "epochs": (["fit", "--epochs", "0", "--out", "{new}"], "epochs must be at least 1"),
    "batch size": (["fit", "--batch-size", "0", "--out", "{new}"], "--batch-size must be at least 1"),
    "latent": (["fit", "--latent", "0", "--out", "{new}"], "latent"),
    "learning rate": (["fit", "--lr", "-1", "--out", "{new}"], "--lr must be positive"),
    "guide of no run": (["fit", "--only", "guide", "--out", "{new}"], "give its run, --from RUN"),
    "only": (["fit", "--from", "{run}", "--only", "encoder", "--out", "{new}"], "only is 'guide'"),
    "another model": (["fit", "--from", "{run}", "--latent", "3", "--out", "{new}"], "was fitted with --latent 2"),
    "model and guide": (
        ["fit", "--from", "{run}", "--objective", "forward-kl", "--out", "{new}"],
        "give --only guide",
    ),
    "used folder": (["fit", "--out", "{run}"], "already holds a run; use --resume"),
    "program": (["fit", "nowhere.py", "--out", "{new}"], "nowhere.py: no such file"),
    "no run": (["evaluate", "{new}"], "no such folder"),
    "particles": (["evaluate", "{run}", "--particles", "0"], "--particles must be at least 1"),
    "data at once": (["evaluate", "{run}", "--batch-size", "0"], "block sizes must be at least 1"),
    "split": (["evaluate", "{run}", "--split", "tset"], 'did you mean "test"'),
    "device": (["evaluate", "{run}", "--device", "gpu"], "unknown device 'gpu'"),
    "one run": (["compare", "{run}"], "at least two"),
    "picture": (["sample", "{run}", "--out", "x.gif"], "ends in .npy or .csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case, run, tmp_path, capsys):
    words, message = BAD[case]
    names = {"{run}": str(run), "{new}": str(tmp_path / "new")}
    assert message in fails(capsys, 2, *[names.get(word, word) for word in words])
    assert not storage.holds_run(tmp_path / "new")


@pytest.mark.parametrize("words", [["fit"], ["fit", "--epochs", "many", "--out", "x"], []])
def test_the_parser_stops_with_2_and_one_line(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_tampered_run_is_refused(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run, copy], check=True)
    path = next(copy.glob("weights-*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "altered since it was written" in fails(capsys, 2, "evaluate", copy)


def test_compare_refuses_unlike_measures(run, account, tmp_path, capsys):
    other = tmp_path / "normal"
    assert cli.main([*FIT, "--likelihood", "normal", "--out", str(other)]) == 0
    assert "was not evaluated yet" in fails(capsys, 2, "compare", other, run)
    assert cli.main(["evaluate", str(other), "--particles", "30", "--method", "importance"]) == 0
    capsys.readouterr()
    assert "the likelihood of one is a mass, of the other a density" in fails(capsys, 2, "compare", run, other)


def test_another_failure_is_status_1(tmp_path, capsys):
    (tmp_path / "diverging.py").write_text(PROGRAM)
    error = fails(capsys, 1, "fit", tmp_path / "diverging.py", "--lr", "1e30", "--epochs", 1, "--out", tmp_path / "run")
    assert "epoch 1, step 2" in error and "site 'z'" in error
    assert storage.holds_run(tmp_path / "run")  # the last good checkpoint: before the first step


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/proc/version"), reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_status_1(capsys):
    fails(capsys, 1, *FIT, "--out", "/proc/pyrovae-cannot-be-here")


def test_ctrl_c_saves_the_run_and_gives_130(tmp_path):
    run = tmp_path / "run"
    sizes = ["100000", "--batch-size", "1200", "--compile", "no"]  # an epoch is one step, and over in milliseconds
    words = [sys.executable, "-m", "pyrovae", *FIT[:-1], *sizes, "--out", str(run)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not storage.holds_run(run):
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in error and "Traceback" not in error
    content, files = storage.read(run)
    assert content["progress"]["epoch"] > 0 and files["history.csv"]


def test_unreliable_evidence_is_said_in_the_account_alone(monkeypatch, capsys):
    def carry_out(given):
        warnings.warn("nothing vouches for it", UntrustedEvidence)
        warnings.warn("something else", UserWarning)
        return 0

    def evaluate(p):
        """Warns twice."""
        return carry_out

    monkeypatch.setitem(cli.COMMANDS, "evaluate", evaluate)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main(["evaluate"]) == 0
    assert capsys.readouterr().err == "pyrovae: something else\n"
