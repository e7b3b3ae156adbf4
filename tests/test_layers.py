"""How the package hangs together: who imports whom, what an import leaves behind, what every public name owes."""

import ast
import doctest
import functools
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

import pyrovae

ROOT = Path(pyrovae.__file__).parent
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
# What each folder may import beside itself.
MAY_IMPORT = {
    "base": set(),
    "programs": {"base"},
    "pairs": {"base"},
    "data": {"base"},
    "training": {"base", "pairs", "data"},
    "evidence": {"base", "pairs", "data"},
    "posteriors": {"base", "pairs", "data", "evidence"},
    "diagnostics": {"base", "pairs", "data", "evidence", "posteriors"},
    "reports": {"base", "pairs", "data", "training", "evidence", "posteriors", "diagnostics"},
    "apps": {"base", "programs", "pairs", "data", "training", "evidence", "posteriors", "diagnostics", "reports"},
}
MODULES = {
    name: ".".join(["pyrovae", *Path(name).with_suffix("").parts]).removesuffix(".__init__")
    for name in FILES
    if name != "__main__.py"
}


@functools.cache
def imported(path):
    """Dotted names that a file imports, at its top, in its functions or for its types."""
    tree = ast.parse(path.read_text())
    package = ["pyrovae", *path.relative_to(ROOT).parent.parts]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def imports(path, module):
    """Whether a file imports a module or something in it."""
    return any(name == module or name.startswith(module + ".") for name in imported(path))


def public(module):
    """Public functions and classes that a public module defines, by name."""
    if module.__name__.split(".")[-1].startswith("_"):
        return {}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def modules():
    return [importlib.import_module(name) for name in MODULES.values()]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_one_way(folder):
    allowed = {folder} | MAY_IMPORT[folder]
    for name in (name for name in FILES if name.startswith(f"{folder}/")):
        folders = {found.split(".")[1] for found in imported(FILES[name]) if found.startswith("pyrovae.")}
        assert folders - {"__version__"} <= allowed, name


def test_every_folder_has_its_place():
    assert {name.split("/")[0] for name in FILES if "/" in name} == set(MAY_IMPORT)
    assert {name for name in FILES if "/" not in name} == {"__init__.py", "__main__.py"}


def test_no_folder_holds_more_than_ten_modules():
    folders = [str(Path(name).parent) for name in FILES if not name.endswith("__init__.py")]
    assert {folder: folders.count(folder) for folder in folders if folders.count(folder) > 10} == {}


@pytest.mark.parametrize(
    ("word", "home"),
    [
        (r"get_trace\(", "pairs/"),
        (r"\.nodes\[", "pairs/"),
        (r"log_prob_sum", "pairs/"),
        (r"torch\._|_inductor", "pairs/graphs/"),
        (r"warnings\.warn\(", "base/errors.py"),
    ],
)
def test_traces_are_read_and_private_names_used_in_one_place_alone(word, home):
    assert [
        name for name, path in FILES.items() if re.search(word, path.read_text()) and not name.startswith(home)
    ] == []


def test_nothing_imports_the_command_line():
    found = [name for name, path in FILES.items() if imports(path, "pyrovae.apps.cli")]
    assert found == ["__main__.py"]  # which is the command line


@pytest.mark.parametrize("name", ["estimators", "pareto"])
def test_estimators_are_functions_of_tensors_alone(name):
    found = imported(FILES[f"evidence/{name}.py"])
    assert "pyro" not in {module.split(".")[0] for module in found}
    assert all(module.startswith("pyrovae.evidence.pareto") for module in found if module.startswith("pyrovae"))


def test_imports_have_no_cycle():
    left = {MODULES[name]: imported(FILES[name]) for name in MODULES if not name.endswith("__init__.py")}
    while left:
        free = [name for name, needs in left.items() if needs.isdisjoint(left.keys() - {name})]
        assert free, f"these import each other: {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


@pytest.mark.parametrize("name", pyrovae.__all__)
def test_every_public_name_resolves(name):
    assert getattr(pyrovae, name) is not None
    assert name in dir(pyrovae)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'vae_of_the_year'"):
        pyrovae.vae_of_the_year


def test_importing_the_package_does_not_import_torch():
    code = "import sys, pyrovae; print([name for name in ('torch', 'pyro', 'numpy') if name in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_importing_every_module_changes_nothing_global():
    code = f"""
import importlib, random, numpy, torch, pyro
from torch.distributions import Distribution

def state():
    return [
        Distribution._validate_args, torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist(),
        dict(pyro.get_param_store()),
    ]

before = state()
for name in {list(MODULES.values())!r}:
    importlib.import_module(name)
print([a == b for a, b in zip(before, state())], before[0], before[-1])
"""
    result = run_python(code)
    assert result.stdout.strip() == f"{[True] * 8} True {{}}", result.stdout + result.stderr


@pytest.mark.parametrize("name", MODULES.values())
def test_doctests(name, capsys):
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        result = doctest.testmod(
            importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        )
    assert result.failed == 0, capsys.readouterr().out


def test_every_module_says_its_idea(modules):
    assert [module.__name__ for module in modules if not (module.__doc__ and module.__doc__.strip())] == []


def test_every_public_function_and_class_says_what_it_does(modules):
    for module in modules:
        silent = [name for name, value in public(module).items() if not (value.__doc__ and value.__doc__.strip())]
        assert silent == [], module.__name__


def test_every_public_function_is_annotated(modules):
    for module in modules:
        for name, value in public(module).items():
            if inspect.isfunction(value):
                where, signature = f"{module.__name__}.{name}", inspect.signature(value)
                missing = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
                assert not missing, f"{where}: {missing}"
                assert signature.return_annotation is not inspect.Signature.empty, where
