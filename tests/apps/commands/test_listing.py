"""The command list: every choice once, with what it is and where it comes from, at the cost of no import."""

import re
import subprocess
import sys

import pytest

from pyrovae.apps.cli import main
from pyrovae.apps.commands.listing import option, section
from pyrovae.apps.recipes import CHOICES


def test_every_choice_stands_in_its_section_with_its_source(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for kind, choices in CHOICES.items():
        text = section(kind)
        assert text in printed and text.startswith(f"{kind}s\n")
        rows = dict(re.findall(r"^  (\S+)  +(.+)$", text, re.M))
        assert list(rows) == list(choices)
        for name, choice in choices.items():
            assert rows[name].startswith(choice.about)
            assert getattr(choice, "source", "") in rows[name]


def test_one_axis_shows_the_numbers_behind_its_names(capsys):
    assert main(["list", "prior"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("priors, by --prior NAME, or NAME:NUMBER")
    assert re.search(r"^  vamp\[:num_pseudo_inputs\]  ", printed, re.M) and "likelihoods" not in printed


def test_the_command_line_calls_an_axis_by_its_option():
    axes = {"prior", "likelihood", "guide", "network", "objective", "baseline", "data"}
    assert {option(kind) for kind in CHOICES} == axes


def test_an_axis_that_is_not_there_has_a_neighbour(capsys):
    assert main(["list", "priors"]) == 2
    assert "unknown axis 'priors': did you mean \"prior\"?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["list"], ["list", "guide"]], ids=" ".join)
def test_it_imports_nothing_that_takes_seconds(words):
    code = f"import sys; from pyrovae.apps.cli import main; main({words!r}); print([n for n in ('torch', 'pyro') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
