"""Recipes: a few plain values -> a VAE. What the command line offers, as dicts of functions that a reader can copy."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pyrovae.base.errors import InputError, nearest
from pyrovae.data import Dataset
from pyrovae.programs import families, networks, priors
from pyrovae.programs.conditional import Conditional
from pyrovae.programs.families.family import Family
from pyrovae.programs.vae import VAE
from pyrovae.training.optimizers import adam

PRIORS: dict[str, Callable[[int], nn.Module]] = {
    "normal": priors.StandardNormal,
    "mixture": lambda latent: priors.GaussianMixture(latent, num_components=20, seed=0),
}

LIKELIHOODS: dict[str, Callable[[Dataset], Family]] = {
    "bernoulli": lambda dataset: families.bernoulli(),
    "continuous-bernoulli": lambda dataset: families.continuous_bernoulli(),
    "binomial": lambda dataset: families.binomial(dataset.maximum or 1),
    "categorical": lambda dataset: families.categorical((dataset.maximum or 1) + 1),
    "poisson": lambda dataset: families.poisson(),
    "normal": lambda dataset: families.normal(scale=families.learned(0.5)),
}

NATURAL = {"counts": "binomial", "binary": "bernoulli", "unit": "continuous-bernoulli", "real": "normal"}

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
}

NETWORKS = ("mlp", "conv")

# Everything that decides a fit, with what it is where nothing is said; None: it depends on the data.
SETTINGS: dict[str, Any] = {
    "data": "digits",
    "binarization": None,
    "divisor": None,
    "labels": False,
    "prior": "normal",
    "likelihood": None,
    "network": "mlp",
    "latent": None,
    "hidden": None,
    "epochs": None,
    "batch_size": None,
    "lr": None,
    "schedule": "cosine",
    "kl_warmup": None,
    "patience": None,
    "precision": "float32",
    "seed": 0,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"latent": 16, "hidden": [200], "epochs": 300, "batch_size": 64, "lr": 2e-3, "kl_warmup": 30.0},
    "mnist": {"latent": 50, "hidden": [400, 400], "epochs": 100, "batch_size": 128, "lr": 2e-3, "kl_warmup": 10.0},
    "other": {"latent": 10, "hidden": [200], "epochs": 100, "batch_size": 128, "lr": 1e-3, "kl_warmup": 0.0},
}

OF_THE_VAE = ("prior", "likelihood", "network", "latent", "hidden")  # settings that a user's own file replaces
MNIST_LIKE = ("mnist", "mnist-static", "fashion-mnist")


def record(**given: Any) -> dict[str, Any]:
    """A full record of a fit as plain values: what is given, else what suits the data.

    Raises:
        InputError: for a rate, a warm-up or a schedule that cannot be.
    """
    source = given.get("data") or SETTINGS["data"]
    settings = SETTINGS | DEFAULTS.get("mnist" if source in MNIST_LIKE else source, DEFAULTS["other"])
    settings |= {name: value for name, value in given.items() if value is not None}
    for kind, choices in (("schedule", SCHEDULES), ("prior", PRIORS), ("network", NETWORKS)):
        choose(kind, settings[kind], choices)
    if settings["likelihood"] is not None:
        choose("likelihood", settings["likelihood"], LIKELIHOODS)
    if not settings["lr"] > 0:
        raise InputError(f"--lr must be positive, got {settings['lr']}")
    if settings["kl_warmup"] < 0:
        raise InputError(f"--kl-warmup must not be negative, got {settings['kl_warmup']}")
    return settings


def training(record: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`pyrovae.fit` that a record decides."""
    record = {**SETTINGS, **record}  # a run of long ago may lack what came later
    same = {name: record[name] for name in ("kl_warmup", "epochs", "batch_size", "patience", "precision", "seed")}
    return {"optimizer": adam(record["lr"]), "schedule": SCHEDULES[record["schedule"]], **same}


def choose(kind: str, name: str, choices: Mapping[str, Any] | tuple[str, ...]) -> str:
    """The name, if it is one of the choices.

    Raises:
        InputError: listing the choices and offering the nearest.
    """
    if name not in choices:
        raise InputError(f"unknown {kind} '{name}':{nearest(name, choices)} there are {', '.join(choices)}")
    return name


def complete(recipe: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The values of a recipe among others, its likelihood named and every name checked."""
    likelihood = recipe.get("likelihood") or NATURAL[dataset.kind]
    return {
        "prior": choose("prior", recipe["prior"], PRIORS),
        "likelihood": choose("likelihood", likelihood, LIKELIHOODS),
        "network": choose("network", recipe["network"], NETWORKS),
        "latent": recipe["latent"],
        "hidden": list(recipe["hidden"]),
        "seed": recipe["seed"],
    }


def build(recipe: Mapping[str, Any], dataset: Dataset) -> VAE:
    """The VAE of a complete recipe, with weights drawn from its seed.

    Raises:
        InputError: naming what does not fit.
    """
    latent, hidden, seed = recipe["latent"], recipe["hidden"], recipe["seed"]
    if latent < 1 or any(width < 1 for width in hidden):
        raise InputError(f"latent and hidden sizes must be at least 1, got latent={latent}, hidden={hidden}")
    if recipe["network"] == "conv":
        width = hidden[-1] if hidden else 256
        decode = networks.conv_decoder(latent, dataset.shape, hidden=width, seed=2 * seed)
        encode = networks.conv_encoder(dataset.shape, hidden=width, seed=2 * seed + 1)
    else:
        decode = networks.mlp(latent, *reversed(hidden), seed=2 * seed)
        encode = networks.mlp(dataset.shape, *hidden, seed=2 * seed + 1)
    return VAE(
        prior=PRIORS[recipe["prior"]](latent),
        decoder=Conditional(LIKELIHOODS[recipe["likelihood"]](dataset), dataset.shape, decode),
        encoder=Conditional(families.normal(), (latent,), encode),
    )
