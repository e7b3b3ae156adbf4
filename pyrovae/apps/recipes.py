"""Recipes: a few plain values -> a VAE. And what can be chosen by name, which is listed without importing torch."""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import pyrovae as pv
from pyrovae.apps.arguments import Action
from pyrovae.base.choices import Choice
from pyrovae.base.errors import InputError, nearest
from pyrovae.data.named import DATASETS
from pyrovae.programs.families import FAMILIES, GUIDES
from pyrovae.programs.priors import PRIORS
from pyrovae.training.objectives import OBJECTIVES

if TYPE_CHECKING:
    from pyrovae.data.split import Dataset

NETWORKS = {
    "mlp": Choice("hidden layers of the widths --hidden", f"{__name__}:mlps"),
    "conv": Choice("two convolutions of stride 2, one hidden layer; for images", f"{__name__}:convolutions"),
}
CHOICES: dict[str, Mapping[str, Any]] = {
    "prior": PRIORS,
    "likelihood": FAMILIES,
    "guide": GUIDES,
    "network": NETWORKS,
    "objective": OBJECTIVES,
    "data set": DATASETS,
}


def listing(p: ArgumentParser) -> Action:
    """List what can be chosen by name: priors, likelihoods, guides, networks, objectives, data sets.

    example:
      pyrovae list
    """

    def show(_: Namespace) -> int:
        for kind, choices in CHOICES.items():
            print(f"{kind}s")
            for name, choice in choices.items():
                print(f"  {name:22}{choice.about}")
        return 0

    return show


def choose(kind: str, name: str, choices: Collection[str] | None = None) -> str:
    """The name, if it is one of the choices: those given, else those of its kind.

    Raises:
        InputError: listing the choices and offering the nearest.
    """
    choices = CHOICES[kind] if choices is None else choices
    if name not in choices:
        raise InputError(f"unknown {kind} '{name}':{nearest(name, choices)} there are {', '.join(choices)}")
    return name


def complete(recipe: Mapping[str, Any], dataset: "Dataset") -> dict[str, Any]:
    """The values of a recipe among others, its likelihood named and every name checked."""
    natural = {choice.natural_for: name for name, choice in FAMILIES.items()}
    named = {"guide": "normal", **recipe, "likelihood": recipe["likelihood"] or natural[dataset.kind]}
    return {
        **{kind: choose(kind, named[kind]) for kind in ("prior", "likelihood", "guide", "network")},
        "latent": recipe["latent"],
        "hidden": list(recipe["hidden"]),
        "seed": recipe["seed"],
    }


def build(recipe: Mapping[str, Any], dataset: "Dataset") -> Any:
    """The VAE of a complete recipe, with weights drawn from its seed.

    Raises:
        InputError: naming what does not fit.
    """
    latent, hidden = recipe["latent"], recipe["hidden"]
    if latent < 1 or any(width < 1 for width in hidden):
        raise InputError(f"latent and hidden sizes must be at least 1, got latent={latent}, hidden={hidden}")
    decode, encode = NETWORKS[recipe["network"]](latent, dataset.shape, hidden, recipe["seed"])
    likelihood, guide = FAMILIES[recipe["likelihood"]](dataset.maximum), GUIDES[recipe["guide"]]()
    return pv.VAE(
        prior=PRIORS[recipe["prior"]](latent),
        decoder=pv.Conditional(likelihood, dataset.shape, decode),
        encoder=pv.Conditional(guide, (latent,), encode),
    )


def mlps(latent: int, shape: tuple[int, ...], hidden: list[int], seed: int) -> tuple[Any, Any]:
    """Perceptrons of a decoder and of an encoder, the one the mirror of the other."""
    decode = pv.networks.mlp(latent, *reversed(hidden), seed=2 * seed)
    return decode, pv.networks.mlp(shape, *hidden, seed=2 * seed + 1)


def convolutions(latent: int, shape: tuple[int, ...], hidden: list[int], seed: int) -> tuple[Any, Any]:
    """Convolutions of a decoder and of an encoder, beside a hidden layer of the last width."""
    width = hidden[-1] if hidden else 256
    decode = pv.networks.conv_decoder(latent, shape, hidden=width, seed=2 * seed)
    return decode, pv.networks.conv_encoder(shape, hidden=width, seed=2 * seed + 1)
