"""Recipes: a few plain values -> a VAE. And what can be chosen by name, which is listed without importing torch."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyrovae as pv
from pyrovae.base.choices import Choice, parsed
from pyrovae.base.errors import InputError, nearest
from pyrovae.data.named import DATASETS
from pyrovae.programs.families import FAMILIES
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.priors import PRIORS
from pyrovae.training.objectives import OBJECTIVES

if TYPE_CHECKING:
    from pyrovae.data.split import Dataset

NETWORKS = {
    "mlp": Choice(
        "hidden layers of the widths --hidden",
        f"{__name__}:perceptrons",
        source="Rumelhart et al. (1986)",
        takes=["*hidden"],
    ),
    "residual": Choice(
        "the same, each layer added to what it reads; layer norm",
        f"{__name__}:residual_perceptrons",
        source="He et al. (2016), Ba et al. (2016)",
        takes=["*hidden"],
    ),
    "gated": Choice(
        "hidden layers that gate themselves, h * sigmoid(g)",
        f"{__name__}:perceptrons",
        source="Dauphin et al. (2017), Tomczak and Welling (2018)",
        takes=["*hidden"],
        kind="gated",
    ),
    "conv": Choice(
        "convolutions of stride 2, one hidden layer; for images",
        f"{__name__}:convolutions",
        source="LeCun et al. (1989)",
        takes=["*channels"],
        of_images=True,
    ),
    "residual-conv": Choice(
        "the same, a residual block behind each; for images",
        f"{__name__}:convolutions",
        source="He et al. (2016)",
        takes=["*channels"],
        of_images=True,
        num_blocks=1,
    ),
}
CHOICES: dict[str, Mapping[str, Any]] = {
    "prior": PRIORS,
    "likelihood": FAMILIES,
    "guide": GUIDES,
    "network": NETWORKS,
    "objective": OBJECTIVES,
    "data set": DATASETS,
}


def choose(kind: str, text: str, choices: Collection[str] | None = None) -> str:
    """What was given, if it is one of the choices: those named, else those of its kind, numbers behind them or not.

    Raises:
        InputError: listing the choices and offering the nearest; for numbers that it does not take.
    """
    if choices is None:
        choices = CHOICES[kind]
    name = text.partition(":")[0] if isinstance(choices, Mapping) else text
    if name not in choices:
        raise InputError(f"unknown {kind} '{name}':{nearest(name, choices)} there are {', '.join(choices)}")
    if name != text and isinstance(choices, Mapping):
        parsed(text, choices)
    return text


def complete(recipe: Mapping[str, Any], dataset: "Dataset") -> dict[str, Any]:
    """The values of a recipe among others, its likelihood named and every name checked."""
    natural = {choice.natural_for: name for name, choice in FAMILIES.items()}
    # The largest of bytes is a level of grey, not a number of trials.
    kind = "bytes" if dataset.kind == "counts" and dataset.maximum == 255 else dataset.kind
    named = {"guide": "normal", **recipe, "likelihood": recipe["likelihood"] or natural[kind]}
    names = {kind: choose(kind, named[kind]) for kind in ("prior", "likelihood", "guide", "network")}
    return {
        **names,
        "latent": recipe["latent"],
        "hidden": list(parsed(names["network"], NETWORKS)[1].get("hidden", recipe["hidden"])),
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
    (prior, of_prior), (guide, of_guide) = parsed(recipe["prior"], PRIORS), parsed(recipe["guide"], GUIDES)
    check_support(recipe["prior"], recipe["guide"])
    shape = prior.shape(latent, **of_prior) if prior.shape else (latent,)
    likelihood, of_likelihood = parsed(recipe["likelihood"], FAMILIES)
    decode, encode = _networks(recipe, shape, dataset)
    encoder = _encoder(guide(**of_guide), shape, encode)
    made_from = {"encoder": encoder, "rows": dataset.train}
    return pv.VAE(
        prior=prior(latent, **of_prior, **{name: made_from[name] for name in prior.needs}),
        decoder=pv.Conditional(likelihood(dataset.maximum, **of_likelihood), dataset.shape, decode),
        encoder=encoder,
    )


def check_support(prior: str, guide: str) -> None:
    """Raises InputError unless a prior and a guide, by their names, go together: over latents of one support."""
    (of_prior, _), (of_guide, _) = parsed(prior, PRIORS), parsed(guide, GUIDES)
    if _go_together(of_prior, of_guide):
        return
    fitting = [name for name, choice in GUIDES.items() if _go_together(of_prior, choice)]
    if of_prior.support != of_guide.support:
        reason = (
            f"prior '{prior}' is over {of_prior.support} latents, guide '{guide}' over {of_guide.support} ones, so "
            "that log p(z) - log q(z|x) means nothing"
        )
    else:
        reason = f"prior '{prior}' is about the means of the guide's distributions, and those of '{guide}' have none"
    raise InputError(f"{reason}; guides that go with it: {', '.join(fitting) or 'none'}")


def _go_together(prior: Choice, guide: Choice) -> bool:
    return prior.support == guide.support and (guide.has_mean or not prior.needs_mean)


def _networks(recipe: Mapping[str, Any], shape: tuple[int, ...], dataset: "Dataset") -> tuple[Any, Any]:
    """What builds the networks of decoder and encoder; numbers behind the name come before the widths of the recipe."""
    network, of_network = parsed(recipe["network"], NETWORKS)
    if network.of_images and len(dataset.shape) not in (2, 3):
        fitting = [name for name, choice in NETWORKS.items() if not choice.of_images]
        raise InputError(
            f"network '{recipe['network']}' is for images, of shape (H, W) or (C, H, W), and a datum of {dataset.name} "
            f"has shape {tuple(dataset.shape)}; networks that go with it: {', '.join(fitting)}"
        )
    return network(shape, dataset.shape, **{"hidden": recipe["hidden"], **of_network}, seed=recipe["seed"])


def _encoder(guide: Any, shape: tuple[int, ...], network: Callable[[int], Any]) -> Any:
    """What gives q(z|x), from a family or from what is more than one."""
    from pyrovae.programs.families import Family

    return pv.Conditional(guide, shape, network) if isinstance(guide, Family) else guide(shape, network)


def perceptrons(
    latent: tuple[int, ...], shape: tuple[int, ...], *, hidden: list[int], seed: int, kind: str = "mlp", **options: Any
) -> tuple[Any, Any]:
    """Perceptrons of a decoder and of an encoder, the one the mirror of the other."""
    network = getattr(pv.networks, kind)
    decode = network(latent, *reversed(hidden), seed=2 * seed, **options)
    return decode, network(shape, *hidden, seed=2 * seed + 1, **options)


def residual_perceptrons(
    latent: tuple[int, ...], shape: tuple[int, ...], *, hidden: list[int], seed: int
) -> tuple[Any, Any]:
    """The same with skip connections and layer norm."""
    from torch import nn

    return perceptrons(latent, shape, hidden=hidden, seed=seed, residual=True, normalization=nn.LayerNorm)


def convolutions(
    latent: tuple[int, ...],
    shape: tuple[int, ...],
    *,
    hidden: list[int],
    seed: int,
    channels: Sequence[int] = (32, 64),
    **options: Any,
) -> tuple[Any, Any]:
    """Convolutions of a decoder and of an encoder, its mirror, beside a hidden layer of the last width."""
    options |= {"hidden": hidden[-1] if hidden else 256}
    decode = pv.networks.conv_decoder(latent, shape, channels=tuple(reversed(channels)), seed=2 * seed, **options)
    return decode, pv.networks.conv_encoder(shape, channels=tuple(channels), seed=2 * seed + 1, **options)
