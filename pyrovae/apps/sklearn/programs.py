"""Plain values, named as scikit-learn names them, become a fitted VAE; its weights are arrays in a pickle."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import pyrovae as pv
from pyrovae.apps import fit as settings
from pyrovae.apps import recipes
from pyrovae.base.errors import InputError
from pyrovae.data.split import Dataset

# Parameter of the estimator -> setting of a fit, where they are called otherwise.
RENAMED = {
    "n_components": "latent",
    "hidden_layer_sizes": "hidden",
    "max_iter": "epochs",
    "learning_rate": "lr",
    "n_iter_no_change": "patience",
}
ALIKE = ("prior", "likelihood", "guide", "network", "objective", "batch_size", "schedule", "kl_warmup")
WHOLE = ("n_components", "max_iter", "batch_size", "n_particles")


def record_of(parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The record of a fit, from the parameters of an estimator.

    Raises:
        InputError: for a name that is not there, and a number that cannot be.
    """
    for name in WHOLE:
        if not isinstance(parameters[name], (int, np.integer)) or parameters[name] < 1:
            raise InputError(f"{name} must be a whole number from 1, got {parameters[name]!r}")
    for name, positive in (("learning_rate", True), ("kl_warmup", False)):
        value = parameters[name]
        if value < 0 or (positive and value == 0):
            raise InputError(f"{name} must {'be positive' if positive else 'not be negative'}, got {value}")
    names = {**RENAMED, **{name: name for name in ALIKE}}
    given = {setting: parameters[name] for name, setting in names.items()}
    return settings.record(**{**given, "hidden": list(given["hidden"]), "seed": seed})


def build(record: Mapping[str, Any], dataset: Dataset) -> tuple[Any, dict[str, Any]]:
    """The VAE of a record, and its recipe, from which :func:`restored` builds it again."""
    recipe = recipes.complete(record, dataset)
    return recipes.build(recipe, dataset), recipe


def fitted(vae: Any, dataset: Dataset, record: Mapping[str, Any], *, device: str, progress: bool) -> pv.Fit:
    """Fits a VAE in place, by the validation split where there is patience."""
    valid = None if record["patience"] is None else dataset.valid
    how = {**settings.training(record), "device": device, "progress": progress}
    return pv.fit(vae.model, vae.guide, dataset.train, valid=valid, **how)


def weights_of(vae: Any) -> dict[str, Any]:
    """The weights of a VAE as arrays."""
    return {name: tensor.cpu().numpy().copy() for name, tensor in vae.state_dict().items()}


def restored(recipe: Mapping[str, Any], dataset: Dataset, weights: Mapping[str, Any]) -> Any:
    """The VAE of a recipe with these weights, on the CPU."""
    vae = recipes.build(recipe, dataset)
    vae.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return vae
