"""The command sweep: lists by commas, the same sweep as in Python, files, and words for what is wrong with them."""

import json
from types import SimpleNamespace

import pytest

import pyrovae as pv
from pyrovae.apps.cli import main
from pyrovae.apps.commands.sweep import swapped
from pyrovae.base.errors import Interrupted

QUICK = ["--epochs", "1", "--latent", "2", "--hidden", "20", "--particles", "30", "--method", "importance"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


def test_a_sweep_prints_its_table_and_writes_it(folder, capsys):
    files = ["--json", str(folder / "table.json"), "--figure", str(folder / "table.png")]
    command = ["sweep", "--data", "digits", "--prior", "normal,mixture:3", "--seeds", "2", *QUICK]
    assert main([*command, "--out", str(folder / "runs"), *files]) == 0
    told = capsys.readouterr()
    assert "mixture:3" in told.out and "spread: sd over seeds" in told.out and "[4/4]" in told.err
    account = json.loads((folder / "table.json").read_text())
    assert sorted(row["name"] for row in account["rows"]) == ["mixture:3", "normal"]
    assert (folder / "table.png").stat().st_size > 10_000
    evidence = pv.runs.load_report(folder / "runs" / "normal" / "seed-1").log_evidence.mean()
    assert account["by_seed"]["normal"][1] == pytest.approx(float(evidence))


def test_interrupted_it_prints_what_there_is_and_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def stopped(*args, **options):
        raise Interrupted(SimpleNamespace(to_dict=dict, summary=lambda: "half of the table"))

    monkeypatch.setattr(pv, "sweep", stopped)
    assert main(["sweep", "--prior", "normal,laplace", "--out", str(tmp_path)]) == 130
    told = capsys.readouterr()
    assert "half of the table" in told.out and "the same command goes on" in told.err


WRONG = {
    "a name": (["--prior", "normal,vmap"], 'did you mean "vamp"?'),
    "a number": (["--latent", "4,x"], "--latent takes numbers set apart by commas, got 'x'"),
    "nothing to compare": (["--prior", "normal"], "a sweep compares at least two combinations"),
    "a baseline": (["--baselines", "mixtur:3"], "unknown baseline 'mixtur': did you mean \"mixture\"?"),
    "a picture": (["--prior", "normal,laplace", "--figure", "a.doc"], "give a name that ends in .png"),
    "data": (["--data", "no/file.csv", "--prior", "normal,laplace"], "no/file.csv"),
}


@pytest.mark.parametrize(("options", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(options, words, tmp_path, capsys):
    assert main(["sweep", *options, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_values_of_an_option():
    assert swapped("prior", "normal") == "normal" and swapped("lr", "1e-3,0.01") == [1e-3, 0.01]
    assert swapped("network", "mlp,gated:300,300") == ["mlp", "gated:300,300"]
    assert swapped("hidden", "300-100") == [300, 100] and swapped("schedule", "cosine,constant") == [
        "cosine",
        "constant",
    ]


def test_baselines_stand_beside_the_fits(tmp_path, capsys):
    command = ["sweep", "--data", "digits", "--baselines", "independent,mixture:3", "--seeds", "1", *QUICK]
    assert main([*command, "--out", str(tmp_path), "--json", "-"]) == 0
    told = capsys.readouterr()
    account = json.loads(told.out)
    assert sorted(row["name"] for row in account["rows"]) == ["baseline independent", "baseline mixture:3", "normal"]
    assert "baseline independent: log p(x) -107.901, exact; independent values" in told.err
