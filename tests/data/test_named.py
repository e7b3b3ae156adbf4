"""The data sets by name: listed without being read, each with a fit of it as plain values."""

import json

import pytest

from pyrovae.data.named import DATASETS, FitDefaults


@pytest.mark.parametrize("name", DATASETS)
def test_a_set_says_what_it_is_and_what_a_fit_of_it_is_like(name):
    assert DATASETS[name].about and "\n" not in DATASETS[name].about
    settings = DATASETS[name].fit.to_dict()
    assert json.loads(json.dumps(settings)) == settings and settings.keys() == FitDefaults().to_dict().keys()


def test_a_set_is_loaded_by_its_path():
    assert len(DATASETS["digits"](binarization="static").train) == 1197
