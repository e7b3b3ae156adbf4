"""The commands that measure a run: what they print, write and draw, what they refuse, what an interrupt leaves."""

import json

import pytest

from pyrovae.apps import cli
from pyrovae.apps import measure as measuring
from pyrovae.base.errors import Interrupted

SMALL = {
    "evaluate": ["--particles", "50"],
    "ais": ["--method", "ais", "--temperatures", "4", "--chains", "2"],
    "bdmc": ["--method", "bdmc", "--temperatures", "4", "--chains", "2", "--particles", "20"],
    "gaps": ["--particles", "20", "--steps", "3"],
    "anatomy": [],
    "calibrate": ["--simulations", "30", "--draws", "9"],
    "check": ["--draws", "10"],
}
SAYS = {  # command: (words of the summary, key of the JSON)
    "evaluate": ("evidence  log p(x)", "log_evidence"),
    "ais": ("annealed importance sampling from the guide: 4 temperatures, 2 chains", "log_evidence"),
    "bdmc": ("certifies the error on data simulated from the model", "width"),
    "gaps": ("amortization", "amortization"),
    "anatomy": ("mutual information", "mutual_information"),
    "calibrate": ("data simulated from the model", "guide"),
    "check": ("prior", "statistics"),
}


def words_of(name, run):
    command = name if name not in ("ais", "bdmc") else "evaluate"
    return [command, str(run), "--num", "12", *SMALL[name]]


@pytest.mark.parametrize("name", SMALL)
def test_a_command_prints_writes_and_draws(name, run, tmp_path, capsys):
    account, figure = tmp_path / "account.json", tmp_path / "figure.png"
    assert cli.main([*words_of(name, run), "--json", str(account), "--figure", str(figure)]) == 0
    summary, key = SAYS[name]
    assert summary in capsys.readouterr().out
    assert key in json.loads(account.read_text())
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SMALL)
def test_json_alone_on_standard_output(name, run, capsys):
    assert cli.main([*words_of(name, run), "--json", "-"]) == 0
    assert SAYS[name][1] in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", SMALL)
def test_an_interrupt_delivers_what_is_done(name, run, tmp_path, capsys, monkeypatch):
    """The account of the data that were finished is written, and the exit status says that it was cut short."""
    import pyrovae as pv

    names = {"ais": "annealed_evidence", "bdmc": "bidirectional", "anatomy": "surgery", "check": "predictive_check"}
    function = getattr(pv, names.get(name, name))

    def interrupted(*arguments, **options):
        raise Interrupted(function(*arguments, **options))

    monkeypatch.setattr(pv, names.get(name, name), interrupted, raising=False)
    account = tmp_path / "account.json"
    assert cli.main([*words_of(name, run), "--json", str(account)]) == 130
    assert SAYS[name][1] in json.loads(account.read_text())
    shown = capsys.readouterr()
    assert "interrupted" in shown.err and SAYS[name][0] in shown.out


REFUSED = {
    "method": (["evaluate", "{run}", "--method", "asi"], 'did you mean "ais"'),
    "start": (["evaluate", "{run}", "--method", "ais", "--start", "priro"], 'did you mean "prior"'),
    "defensive of ais": (
        ["evaluate", "{run}", "--method", "ais", "--defensive", "0"],
        "--defensive belongs to --method auto, --method importance, and --method ais makes no use of it: leave it out",
    ),
    "dtype of bdmc": (
        ["evaluate", "{run}", "--method", "bdmc", "--dtype", "float64"],
        "--dtype belongs to --method auto, --method importance",
    ),
    "no-vectorize of ais": (["evaluate", "{run}", "--method", "ais", "--no-vectorize"], "--no-vectorize belongs to"),
    "particles of ais": (
        ["evaluate", "{run}", "--method", "ais", "--particles", "1000"],
        "--particles belongs to --method auto, --method importance",
    ),
    "chains of is": (["evaluate", "{run}", "--chains", "2"], "--chains belongs to --method ais, --method bdmc"),
    "start of is": (["evaluate", "{run}", "--start", "prior"], "--start belongs to --method ais, --method bdmc"),
    "temperatures": (["evaluate", "{run}", "--method", "ais", "--temperatures", "0"], "--temperatures must be"),
    "figure": (["gaps", "{run}", "--figure", "gaps.txt"], "ends in .png, .svg, .pdf"),
    "folder": (["anatomy", "{run}", "--json", "{run}/none/a.json"], "there is no folder"),
    "number": (["calibrate", "{run}", "--num", "0"], "--num must be at least 1"),
    "simulations": (["calibrate", "{run}", "--simulations", "0"], "--simulations must be"),
    "draws": (["check", "{run}", "--draws", "0"], "--draws must be"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line(words, message, run, capsys):
    assert cli.main([word.format(run=run) for word in words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_part_of_the_test_split_is_not_kept(run, capsys):
    assert cli.main(words_of("evaluate", run)) == 0
    assert "not kept in the run" in capsys.readouterr().out
    assert cli.main(["compare", str(run), str(run), "--figure", "x.txt"]) == 2


def test_every_command_has_its_function():
    others = {"fit", "impute", "sample", "complete", "figures", "demo", "list", "new", "sweep"}
    others |= {"report", "reference", "explore", "ask"}
    assert set(measuring.COMMANDS) | others == set(cli.COMMANDS)


def test_what_was_measured_is_kept_and_given_back(run, capsys):
    import pyrovae as pv

    assert cli.main([*words_of("gaps", run), "--seed", "3"]) == 0
    assert f"kept in {run}" in capsys.readouterr().out
    kept = pv.runs.reports(run)["gaps"]
    assert isinstance(kept, pv.Gaps) and (len(kept), kept.seed) == (12, 3)
    assert cli.main([*words_of("anatomy", run), "--split", "valid"]) == 0
    assert "kept" not in capsys.readouterr().out


def test_a_report_on_training_data_is_kept_and_never_the_best(run, account, capsys):
    import pyrovae as pv

    assert cli.main(["evaluate", str(run), "--split", "train", "--num", "20", "--particles", "30"]) == 0
    assert len(pv.runs.reports(run)["train-report-auto-30"]) == 20
    assert pv.runs.load_report(run).protocol.split == "test"


def test_a_run_that_is_being_written_is_measured_all_the_same(run, capsys):
    from pyrovae.base import storage

    with storage.locked(run):
        assert cli.main(words_of("gaps", run)) == 0
    shown = capsys.readouterr()
    assert "amortization" in shown.out and "not kept in the run: " in shown.err and "another process" in shown.err


def test_classes_are_told_with_errors_and_calibration_and_kept(few_labels, tmp_path, capsys):
    import pyrovae as pv
    from pyrovae.apps.commands.again import measurement_command

    account, figure = tmp_path / "account.json", tmp_path / "figure.png"
    words = ["classify", str(few_labels), "--num", "60", "--particles", "5", "--bins", "4"]
    assert cli.main([*words, "--json", str(account), "--figure", str(figure)]) == 0
    printed, told = capsys.readouterr().out, json.loads(account.read_text())
    assert "guide, q(y|x)" in printed and "calibration error" in printed and f"kept in {few_labels}" in printed
    error = told["guide"]["error"]
    assert error["mean"] < 0.6 and error["data_se"] == pytest.approx((error["mean"] * (1 - error["mean"]) / 59) ** 0.5)
    assert 0 <= told["guide"]["calibration_error"] <= 1 and told["log_evidence"]["mean"] < 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    kept = pv.runs.reports(few_labels)["classification"]
    assert len(kept) == 60 and kept.labels.tolist() == pv.data.load("digits").test.labels[:60].tolist()
    assert measurement_command(kept, few_labels, 300) == " ".join(
        ["pyrovae", *words[:2], "--num", "60", "--particles", "5", "--bins", "4", "--site", "y", "--seed", "0"]
    )
    assert cli.main([*words, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bins", "0"], "--bins must be at least 1, got 0"),
        (["--particles", "0"], "--particles must be at least 1, got 0"),
        (["--site", "z"], "site 'z' is no class of a datum; discrete latents: y"),
    ],
)
def test_classes_that_cannot_be_told_are_refused_in_one_line(words, message, few_labels, capsys):
    assert cli.main(["classify", str(few_labels), *words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_run_without_classes_is_told_how_to_have_them(run, capsys):
    assert cli.main(["classify", str(run)]) == 2
    assert "was fitted without --semi-supervised, so that it has no class to tell" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["evaluate", "--particles", "30"], ["check", "--draws", "5"]], ids=lambda one: one[0]
)
def test_classes_are_summed_out_of_other_measurements(words, few_labels, capsys):
    assert cli.main([words[0], str(few_labels), "--num", "5", *words[1:]]) == 0
    assert "5 data" in capsys.readouterr().out
