"""From plain values to a fitted VAE: the names of both worlds, and weights that survive as arrays."""

import numpy as np
import pytest

from pyrovae.apps import fit
from pyrovae.apps.sklearn import programs, rows
from pyrovae.apps.sklearn.estimator import VAE

PARTS = {name: np.arange(20) for name in ("train", "valid", "test")}


def test_every_renamed_setting_is_one_of_both():
    parameters = VAE().get_params()
    assert set(programs.RENAMED) | set(programs.ALIKE) | set(programs.WHOLE) <= set(parameters)
    assert set(programs.RENAMED.values()) | set(programs.ALIKE) <= set(fit.SETTINGS)
    record = programs.record_of({**parameters, "max_iter": 7, "n_components": 3}, seed=5)
    assert (record["epochs"], record["latent"], record["seed"], record["hidden"]) == (7, 3, 5, [50])


@pytest.mark.parametrize("prior", ["normal", "vamp:4", "exemplar"])
def test_weights_come_back(prior):
    values = np.random.default_rng(0).normal(size=(20, 3))
    data = rows.dataset_of(rows.table_of(values, None), PARTS, likelihood=None, columns=None, standardize=None)
    record = programs.record_of({**VAE(prior=prior, max_iter=1).get_params()}, seed=0)
    vae, recipe = programs.build(record, data)
    programs.fitted(vae, data, record, device="cpu", progress=False)
    weights = programs.weights_of(vae)
    back = programs.weights_of(programs.restored(recipe, data, weights))
    assert list(back) == list(weights) and all((back[name] == weights[name]).all() for name in weights)
