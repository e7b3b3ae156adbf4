"""Every block of code in the README runs, and prints what the README says it prints."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import pyrovae as pv
from pyrovae.apps import cli
from pyrovae.evidence.ladder.climbed import ROUTES

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
BLOCKS = [code for language, code in FENCED if language == "python"]
OUTPUTS = [text for language, text in FENCED if not language]


def rows_of(account):
    """The rows of a printed account: label -> (mean, data SE)."""
    rows = re.findall(r"^(.{38}) *(-?\d+\.\d+) +(\d+\.\d+)", account, re.M)
    return {label.strip(): (float(mean), float(error)) for label, mean, error in rows}


@pytest.fixture(scope="module")
def printed():
    """Runs the Python blocks one after the other, as a reader would, and returns what they print."""
    lines, names = [], {"print": lambda *values: lines.append(" ".join(str(value) for value in values))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.UntrustedPosterior)  # R-hat is near its threshold, on either side of it
        for block in (*BLOCKS[:2], *BLOCKS[3:]):
            exec(compile(block, "README.md", "exec"), names)
    return lines


def words(account):
    """What an account says beside its numbers; which routes data take is one of these, and rounding moves a datum."""
    lines = account.splitlines()
    of_routes = [line for line in lines if line.startswith(ROUTES)]
    assert sum(int(line.removeprefix(line.split()[0]).split()[0]) for line in of_routes) == 300
    return re.sub(r"[-\d.%]+", "", "\n".join(line for line in lines if line not in of_routes)).split()


def test_the_example_prints_its_output(printed):
    account, shown = printed[0], OUTPUTS[0]
    assert words(account) == words(shown)
    # The fit's rounding differs between machines: the means agree within two data standard errors.
    ours, theirs = rows_of(account), rows_of(shown)
    assert len(ours) == 6 and ours.keys() == theirs.keys()
    for label, (mean, error) in ours.items():
        assert abs(mean - theirs[label][0]) < 2 * error, label


def test_swapping_the_prior_compares(printed):
    assert "mixture" in printed[1] and "paired" in printed[1]


def test_the_tools_of_trust_print_their_output(printed):
    """The evidence of two roads agrees here as the README says, within 0.1 nat."""
    annealed = float(re.search(r"log p\(x\) +(-\d+\.\d+) +data SE", printed[3])[1])
    proposals = float(re.search(r"evidence  log p\(x\) +(-\d+\.\d+)", printed[5])[1])
    assert abs(annealed - proposals) < 0.1
    assert len(printed) == 10


def test_the_users_own_file_goes_through_the_commands(tmp_path, capsys):
    (block,) = [block for block in BLOCKS if block.startswith("# gamma_factors.py")]
    file, run = tmp_path / "gamma_factors.py", tmp_path / "gamma"
    file.write_text(block)
    assert cli.main(["fit", str(file), "--data", "digits", "--epochs", "2", "--out", str(run)]) == 0
    assert cli.main(["evaluate", str(run), "--program", str(file), "--particles", "30", "--num", "40"]) == 0
    assert "log p(x)" in capsys.readouterr().out


def test_every_command_line_in_the_readme_parses(capsys):
    for line in re.findall(r"^    (?:\.venv/bin/)?pyrovae (.*?)(?:\s+#.*)?$", TEXT, re.M):
        assert cli.parser().parse_args(line.split()).command in cli.COMMANDS


def test_every_python_block_is_run_by_a_test():
    assert len(BLOCKS) == 5


def test_it_is_short_enough_to_be_read():
    assert TEXT.count("\n") <= 220


def test_files_that_it_names_are_there():
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", TEXT):
        assert (README.parent / name).exists(), name


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "pyrovae", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pyrovae ")
