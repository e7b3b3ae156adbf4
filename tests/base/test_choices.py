"""Names are listed without what stands behind them."""

import subprocess
import sys

import pytest

import pyrovae as pv
from pyrovae.base.choices import Choice, handed_on, parsed, resolve
from pyrovae.base.errors import InputError


def test_a_path_is_a_module_or_something_in_it():
    import fractions

    assert resolve("fractions") is fractions and resolve("fractions:Fraction") is fractions.Fraction


def test_a_choice_calls_what_it_names_with_its_options_or_others():
    choice = Choice("a fraction", "fractions:Fraction", denominator=4)
    assert str(choice(3)) == "3/4" and str(choice(3, denominator=5)) == "3/5"
    assert choice.about == "a fraction"


def test_names_of_a_package_are_resolved_or_refused():
    find, listed = handed_on("package", {"Fraction": "fractions:Fraction"}, "NAMES")
    assert listed() == ["Fraction", "NAMES"]
    assert find("Fraction").__name__ == "Fraction"
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'Decimal'"):
        find("Decimal")


@pytest.mark.parametrize(
    "package",
    [
        "programs.priors",
        "programs.families",
        "programs.guides",
        "training.objectives",
        "data",
        "apps.recipes",
        "apps.cli",
    ],
)
def test_what_lists_choices_imports_nothing_heavy(package):
    code = f"import sys, pyrovae.{package}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_numbers_behind_a_name_are_options():
    choices = {"one": Choice("a fraction", "fractions:Fraction", takes=["numerator", "denominator"])}
    assert parsed("one", choices)[1] == {} and parsed("one:3,4", choices)[1] == {"numerator": 3, "denominator": 4}
    assert parsed("one:0.5", choices)[1] == {"numerator": 0.5}
    with pytest.raises(InputError, match="'one:1,2,3': 3 numbers behind one, which takes at most 2: numerator, denom"):
        parsed("one:1,2,3", choices)
    with pytest.raises(InputError, match="'one:x': 'x' is no number"):
        parsed("one:x", choices)


@pytest.mark.parametrize("name", ["data", "families", "figures", "guides", "networks", "objectives", "priors"])
def test_packages_list_the_names_that_they_hand_on(name):
    package = getattr(pv, name)
    assert dir(package) == sorted(package.__all__) and all(hasattr(package, one) for one in dir(package))
    assert dir(pv) == sorted(pv.__all__)
