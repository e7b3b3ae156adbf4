"""Arguments of public functions: whatever is of another type than its signature says is refused by name, at once."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError

OF_PAIRS = (
    *("fit", "evaluate", "convergence", "annealed_evidence", "bidirectional", "gaps", "surgery", "calibrate"),
    *("predictive_check", "posterior", "reference_posterior", "reconstruct", "sample", "decode", "compare"),
    *("log_terms", "widened", "tempered", "in_precision"),
)
GIVEN = {  # annotated name -> what is not of its type, and the words for what is
    "num_particles": (1.5, "a whole number, got 1.5"),
    "num_draws": ("three", "a whole number, got 'three'"),
    "batch_size": ([1], r"a whole number( or None)?, got \[1\]"),
    "seed": (None, "a whole number, got None"),
    "num_chains": (True, "a whole number, got True"),
    "num_temperatures": (10**30, "a whole number, got 1000"),
    "defensive": (math.nan, "a real number, got nan"),
    "threshold": ("high", "a real number, got 'high'"),
    "plate": (0, "a string or None, got 0"),
    "method": (1, "a string, got 1"),
    "vectorize": ("no", "True or False, got 'no'"),
    "progress": (None, "True or False, got None"),
    "families": (10, "a list or tuple of strings, got 10"),
    "statistics": ([], r"a dict or None, got \[\]"),
    "start": ("prior", "a function such as from_guide, got 'prior'"),
    "model": (3, "a function, got 3"),
    "guide": ("q", "a function, got 'q'"),
    "reports": (None, "a dict, got None"),
    "optimizer": (0.1, "a PyroOptim or a function or None, got 0.1"),
}


def parameters(name):
    return [key for key in getattr(pv, name).__wrapped__.__annotations__ if key in GIVEN]


@pytest.mark.parametrize(("name", "argument"), [(name, key) for name in OF_PAIRS for key in parameters(name)])
def test_another_type_is_refused_by_name(name, argument):
    value, words = GIVEN[argument]
    with pytest.raises(InputError, match=f"^{argument} must be {words}"):
        getattr(pv, name)(**{argument: value})


def test_families_given_as_a_word_are_no_list_of_letters():
    with pytest.raises(InputError, match="families must be a list or tuple of strings, got 'own'"):
        pv.gaps(families="own")


def test_lists_are_of_what_they_say_or_of_anything():
    @checked
    def size(words: Sequence[str] = (), widths: Sequence[int] = (), rest: Sequence[Any] | None = None) -> int:
        return len(words) + len(widths)

    assert size(["a"], (1, 2), rest=[None]) == 3
    for given in ({"words": (1, 2)}, {"words": "ab"}):
        with pytest.raises(InputError, match="words must be a list or tuple of strings, got"):
            size(**given)
    for given in (10, "ten"):
        with pytest.raises(InputError, match="widths must be a list or tuple, got"):
            size(widths=given)
    with pytest.raises(InputError, match="rest must be a list or tuple or None, got 1"):
        size(rest=1)


def test_flags_are_single_ones():
    @checked
    def same(flag: bool) -> bool:
        return bool(flag)

    class bool_:
        """Named like NumPy's."""

    assert same(np.bool_(True)) and not same(False)
    for given in (1, np.int64(1), np.ones(1, dtype=bool), bool_()):
        with pytest.raises(InputError, match="flag must be True or False, got"):
            same(given)


def test_numbers_of_other_libraries_are_taken():
    @checked
    def total(*whole: int, real: float = 0.0, flag: bool = False) -> float:
        return sum(whole) + real + flag

    assert total(np.int64(2), 1, real=np.float32(0.5), flag=np.bool_(True)) == 4.5
    assert total(real=1) == 1
    with pytest.raises(InputError, match=r"whole must be a whole number, got 2\.5"):
        total(1, 2.5)
    with pytest.raises(TypeError, match=r"total\(\) takes no other: its arguments are whole, real, flag"):
        total(other=1)
    with pytest.raises(TypeError, match='did you mean "real"'):
        total(reel=1)
