"""The command reference: every public name stands in one theme, and every choice in its table."""

from examples.browser import opened

import pyrovae as pv
from pyrovae.apps import cli
from pyrovae.apps.recipes import CHOICES


def test_every_public_name_and_choice_is_in_the_page(tmp_path, capsys):
    out = tmp_path / "reference.html"
    assert cli.main(["reference", "--out", str(out)]) == 0
    text = out.read_text()
    for name in set(pv.__all__) - {"__version__"}:
        assert f'id="pv.{name}"' in text or f'id="module-{name}"' in text, name
    for kind, choices in CHOICES.items():
        for name in choices:
            assert f"<td><code>{name}" in text, (kind, name)
    assert "pv.tempered" in text and "pv.decode" in text and "<svg" in text
    assert capsys.readouterr().out.startswith(f"{out}: ")
    found = opened(out, tmp_path)
    assert found.requests == set() and found.complaints == []


def test_another_name_is_refused(tmp_path):
    assert cli.main(["reference", "--out", str(tmp_path / "reference.txt")]) == 2
