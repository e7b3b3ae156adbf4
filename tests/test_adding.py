"""One place to add a thing: a file with it and its line in a dict; command line, help and contract tests follow.

Each thing is written into a file of its own; ``sitecustomize.py``, which every Python reads when it starts, adds the
lines to the dicts, as an edit of them would.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    "toy_prior.py": """
import pyro.distributions as dist
import torch
from torch import nn


class Scaled(nn.Module):
    def __init__(self, num_latents):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_latents))

    def forward(self):
        return dist.Normal(torch.zeros_like(self.scale), 0.5 + self.scale.abs()).to_event(1)
""",
    "toy_family.py": """
import pyro.distributions as dist

from pyrovae.programs.families import Family, positive


def student():
    def build(event_dim, loc, raw_scale):
        return dist.StudentT(5.0, loc, positive(raw_scale)).to_event(event_dim)

    return Family("student", lambda event_shape: (event_shape, event_shape), build)
""",
    "toy_objective.py": """
from pyrovae.training.objectives import SampledELBO


def of_two():
    return SampledELBO(2)
""",
    "toy_data.py": """
import torch

from pyrovae.data.user_files import Rows


def read(name, options):
    rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).numpy()
    parts = {"train": rows[:40], "valid": rows[40:50], "test": rows[50:]}
    return {part: Rows(x, None) for part, x in parts.items()}
""",
    "toy_diagnostic.py": """
from dataclasses import dataclass

from pyrovae.reports.figures.style import draws, new_figure


@dataclass(frozen=True)
class Count:
    num_data: int

    def __len__(self):
        return self.num_data

    def summary(self):
        return f"a toy that counted {self.num_data} data"

    def to_dict(self):
        return {"num_data": self.num_data}


def count(model, guide, data, *, seed, batch_size):
    return Count(len(data))


@draws(Count)
def bar(record):
    figure, (axes,) = new_figure(3, 2)
    axes.bar([0], [record.num_data])
    return figure
""",
    "sitecustomize.py": '''
from pyrovae.apps.measure import COMMANDS, data_arguments, measured
from pyrovae.base.choices import Choice, resolve
from pyrovae.data.named import DATASETS, FitDefaults, NamedSet
from pyrovae.programs.families import FAMILIES, Likelihood
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.priors import PRIORS
from pyrovae.training.objectives import OBJECTIVES

PRIORS["toy-prior"] = Choice("a learned scale", "toy_prior:Scaled")
FAMILIES["toy-family"] = Likelihood("reals with heavy tails", "toy_family:student")
GUIDES["toy-guide"] = Choice("a guide with heavy tails", "toy_family:student")
OBJECTIVES["toy-objective"] = Choice("two draws", "toy_objective:of_two")
DATASETS["toy-data"] = NamedSet("noise", "toy_data:read", FitDefaults(latent=3, hidden=(7,), epochs=2))


def toy(p):
    """Count the data of a run.

    example:
      pyrovae toy-diagnostic runs/digits
    """
    data_arguments(p)
    return lambda given: measured(given, resolve("toy_diagnostic:count"))


COMMANDS["toy-diagnostic"] = toy
''',
}
ABOUT = {
    "toy-prior": "a learned scale",
    "toy-family": "reals with",
    "toy-guide": "a guide with",
    "toy-objective": "two draws",
}


NAMES = ["--prior", "toy-prior", "--likelihood", "toy-family", "--guide", "toy-guide", "--objective", "toy-objective"]
SUITES = ("programs/priors", "programs/families", "training/objectives", "apps/test_recipes.py", "apps/test_fit.py")
SUITES += ("apps/test_cli.py", "programs/guides/test_guides.py")
RUN = """
import contextlib, io, sys
import pytest
import pyrovae as pv
from pyrovae.apps.cli import main

def printed(name, function, *words):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            status = function(*words)
        except SystemExit as stop:
            status = stop.code
    open(f"{out}/{name}.txt", "w").write(text.getvalue())
    assert status == 0, (name, text.getvalue())

out = sys.argv[1]
printed("listed", main, ["list"])
printed("helped", main, ["fit", "--help"])
printed("commands", main, ["--help"])
printed("fitted", main, ["fit", "--data", "toy-data", *NAMES, "--out", f"{out}/run"])
printed("counted", main, ["toy-diagnostic", f"{out}/run", "--figure", f"{out}/count.png"])
printed("objective", lambda: print(pv.runs.load(f"{out}/run").settings["objective"]) or 0)
words = ["-k", "toy", "-rA", "-p", "no:cacheprovider", "--import-mode=importlib"]
printed("tested", pytest.main, words + [f"tests/{suite}" for suite in SUITES])
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What one Python with the toys added printed of each command and of the contract tests, and the run it made."""
    folder, out = tmp_path_factory.mktemp("toys"), tmp_path_factory.mktemp("printed")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "COLUMNS": "600"}
    code = f"NAMES, SUITES = {NAMES!r}, {SUITES!r}{RUN}"
    words = [sys.executable, "-c", code, str(out)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_they_are_listed_and_in_the_help(out):
    listed, helped, commands = ((out / f"{name}.txt").read_text() for name in ("listed", "helped", "commands"))
    for name, about in {**ABOUT, "toy-data": "noise"}.items():
        assert re.search(rf"^  {name} +{about}", listed, re.M), name
        assert re.search(rf"^  --\w+ [A-Z]+\s+.*\b{name}\b", helped, re.M), name
    assert "dimensions of z [digits 16" in helped and "toy-data 3, else 10]" in helped
    assert re.search(r"^ +toy-diagnostic\s+count the data of a run$", commands, re.M)


def test_the_command_line_takes_them(out):
    assert "a toy that counted 10 data" in (out / "counted.txt").read_text()
    assert (out / "count.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "objective.txt").read_text().startswith("SampledELBO(")


def test_the_contract_tests_take_them(out):
    passed = re.findall(r"^PASSED (\S+)", (out / "tested.txt").read_text(), re.M)
    least = {"toy-prior": 8, "toy-family": 8, "toy-guide": 6, "toy-objective": 8, "toy-data": 1, "toy-diagnostic": 1}
    for name, number in least.items():
        assert sum(name in test for test in passed) >= number, (name, passed)
