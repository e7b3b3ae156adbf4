"""The command that writes the explorer of a run."""

import pytest

from pyrovae.apps import cli


def test_the_page_of_a_run_is_written_with_its_report(run, account, tmp_path, capsys):
    out = tmp_path / "explorer.html"
    assert cli.main(["explore", str(run), "--out", str(out)]) == 0
    assert f"{out}: 0." in (said := capsys.readouterr().out) and "MB, decoder and encoder live" in said
    assert '"found_by":"auto, K = 50, budget 500"' in out.read_text()
    assert cli.main(["explore", str(run), "--out", str(out), "--split", "valid", "--plane", "1,0"]) == 0
    assert '"report":null' in out.read_text() and '"names":["z[1]","z[0]"]' in out.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plane", "1"], "--plane takes two coordinates as 0,1, got '1'"),
        (["--plane", "0,9"], "two of the coordinates 0..1"),
        (["--split", "tests"], "unknown split 'tests'"),
        (["--out", "/nowhere/page.html"], "there is no folder"),
        (["--out", "page.png"], "ends in .html"),
    ],
)
def test_what_does_not_fit_is_refused(run, capsys, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explore", str(run), *words]) == 2
    assert message in capsys.readouterr().err
