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


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs Python with the toys added and returns what it prints."""
    folder = tmp_path_factory.mktemp("toys")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "COLUMNS": "600"}

    def run(*words):
        done = subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_they_are_listed_and_in_the_help(python):
    listed, helped = python("-m", "pyrovae", "list"), python("-m", "pyrovae", "fit", "--help")
    for name, about in {**ABOUT, "toy-data": "noise"}.items():
        assert re.search(rf"^  {name} +{about}", listed, re.M), name
        assert re.search(rf"^  --\w+ [A-Z]+\s+.*\b{name}\b", helped, re.M), name
    assert "dimensions of z [digits 16" in helped and "toy-data 3, else 10]" in helped
    assert re.search(r"^ +toy-diagnostic\s+count the data of a run$", python("-m", "pyrovae", "--help"), re.M)


def test_the_command_line_takes_them(python, tmp_path):
    names = [
        "--prior",
        "toy-prior",
        "--likelihood",
        "toy-family",
        "--guide",
        "toy-guide",
        "--objective",
        "toy-objective",
    ]
    run, figure = tmp_path / "run", tmp_path / "count.png"
    lines = [
        ["fit", "--data", "toy-data", *names, "--out", str(run)],
        ["toy-diagnostic", str(run), "--figure", str(figure)],
    ]
    code = f"""
import pyrovae as pv
from pyrovae.apps.cli import main
assert [main(words) for words in {lines!r}] == [0, 0]
print(pv.runs.load({str(run)!r}).settings['objective'])
"""
    printed = python("-c", code)
    assert "a toy that counted 10 data" in printed
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert printed.splitlines()[-1].startswith("SampledELBO(")


def test_the_contract_tests_take_them(python):
    suites = ["programs/priors", "programs/families", "training/objectives", "apps/test_recipes.py", "apps/test_fit.py"]
    suites += ["apps/test_cli.py", "programs/guides/test_guides.py"]
    words = ["-m", "pytest", "-k", "toy", "-rA", "-p", "no:cacheprovider", "--import-mode=importlib"]
    passed = re.findall(r"^PASSED (\S+)", python(*words, *(f"tests/{suite}" for suite in suites)), re.M)
    least = {"toy-prior": 8, "toy-family": 8, "toy-guide": 6, "toy-objective": 10, "toy-data": 1, "toy-diagnostic": 1}
    for name, number in least.items():
        assert sum(name in test for test in passed) >= number, (name, passed)
