"""The command report: one page of runs, what is missing named with its command, or measured."""

import re
import shutil

import pytest

import pyrovae as pv
from pyrovae.apps import cli
from pyrovae.apps.commands import report
from pyrovae.base.errors import InputError


@pytest.fixture(scope="module")
def copy(run, tmp_path_factory):
    """The run that commands share, apart, so that what is kept in it is this file's own."""
    folder = tmp_path_factory.mktemp("reports") / "copy"
    shutil.copytree(run, folder)
    content, files = pv.runs.storage.read(folder)
    pv.runs.storage.write(folder, content, {name: files[name] for name in ("weights.safetensors", "history.csv")})
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    """The pair's own pictures, which take seconds, are those of another test."""
    monkeypatch.setattr("pyrovae.apps.draw.run_figures", lambda *pair: {"training": None})


def test_a_run_that_was_not_measured_names_every_command(copy, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert cli.main(["report", str(copy), "--out", str(out)]) == 0
    text = out.read_text()
    for name in report.MEASUREMENTS:
        assert report.command_for(name, str(copy)).replace("'", "&#39;") in text
    assert 'id="p1-fit"' in text and 'id="p1-programs"' in text and 'id="p1-account"' not in text
    assert "pyrovae fit --data digits " in text
    assert re.search(r"<dt>weights</dt><dd>sha256 [0-9a-f]{64}</dd>", text)
    assert "page.html: 0." in capsys.readouterr().out


def test_what_is_missing_is_measured_kept_and_shown(copy, tmp_path, capsys, monkeypatch, no_pictures):
    small = {"evaluate": ("evaluate", "--particles", "50", "--budget", "500"), "anatomy": ("anatomy", "--num", "40")}
    for name, words in small.items():
        monkeypatch.setitem(report.MEASUREMENTS, name, report.MEASUREMENTS[name]._replace(words=words))
    out = tmp_path / "page.html"
    assert cli.main(["report", str(copy), "--out", str(out), "--compute", "evaluate,anatomy"]) == 0
    printed, text = capsys.readouterr().out, out.read_text()
    assert "evidence  log p(x)" in printed and "mutual information" in printed
    assert 'id="p1-account"' in text and 'id="p1-surgery"' in text
    assert set(pv.runs.reports(copy)) == {"report-auto-50", "surgery"}
    assert report.command_for("gaps", str(copy)) in text and "pyrovae anatomy" in text
    assert not {"evaluate", "anatomy"} & set(report.missing(pv.runs.reports(copy)))


def test_several_runs_stand_side_by_side(run, account, tmp_path, no_pictures):
    out = tmp_path / "page.html"
    assert cli.main(["report", str(run), str(run), "--out", str(out)]) == 0
    text = out.read_text()
    assert 'id="all"' in text and 'id="p2-account"' in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "{run}", "--out", "page.txt"], "ends in .html"),
        (["report", "{run}", "--compute", "gap"], 'did you mean "gaps"'),
        (["report", "{run}/none"], "no such folder"),
    ],
)
def test_bad_input_is_one_line(words, message, run, capsys):
    assert cli.main([word.format(run=run) for word in words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_what_is_missing_of_records():
    assert report.missing({}) == list(report.MEASUREMENTS)


def test_a_record_that_this_version_does_not_know_is_named(copy):
    _, files = pv.runs.storage.read(copy)
    with pytest.raises(InputError, match="holds a Whatever, which this version does not know"):
        pv.runs.reports_in(copy, {**files, "x.json": b'{"record": {"kind": "Whatever"}}'})
    with pytest.raises(InputError, match="holds a VAE, which"):
        pv.runs.reports_in(copy, {**files, "x.json": b'{"record": {"kind": "VAE"}}'})
    with pytest.raises(InputError, match="not a record that pyrovae saved"):
        pv.runs.reports_in(copy, {**files, "x.json": b"[]"})
