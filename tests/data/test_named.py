"""The data sets by name: listed without being read, each with a fit of it as plain values."""

import json

import pytest

from pyrovae.base.choices import resolve
from pyrovae.data.named import DATASETS, FitDefaults


@pytest.mark.parametrize("name", DATASETS)
def test_a_set_says_what_it_is_and_what_a_fit_of_it_is_like(name):
    assert DATASETS[name].about and "\n" not in DATASETS[name].about
    settings = DATASETS[name].fit.to_dict()
    assert json.loads(json.dumps(settings)) == settings and settings.keys() == FitDefaults().to_dict().keys()


def test_a_set_is_read_by_its_path():
    assert all(callable(resolve(entry.path)) for entry in DATASETS.values())
