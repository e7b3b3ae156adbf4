"""Recipes: a few plain values -> a VAE. And what can be chosen by name, which is listed without importing torch."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import pyrovae as pv
from pyrovae.base.choices import Choice, parsed, resolve
from pyrovae.base.errors import InputError, nearest
from pyrovae.data.named import DATASETS
from pyrovae.data.tables.names import MASSES
from pyrovae.programs.baselines import BASELINES
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
    "baseline": BASELINES,
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
    named = {"guide": "normal", **recipe, "likelihood": recipe["likelihood"] or _natural(dataset)}
    names = {kind: choose(kind, named[kind]) for kind in ("prior", "likelihood", "guide", "network")}
    return {
        **names,
        "latent": recipe["latent"],
        "hidden": list(parsed(names["network"], NETWORKS)[1].get("hidden", recipe["hidden"])),
        "seed": recipe["seed"],
    }


def _natural(dataset: "Dataset") -> str:
    """The name of the likelihood for data of such a kind."""
    natural = {choice.natural_for: name for name, choice in FAMILIES.items()}
    return natural["bytes" if dataset.is_bytes else dataset.kind]


def natural_likelihood(dataset: "Dataset") -> Any:
    """The family of x that suits the kind of a data set: ``families.binomial(16)`` for counts 0..16.

    Raises:
        InputError: for a table, whose columns have families of their own (:func:`likelihood_of_columns`).

    Example:
        >>> natural_likelihood(pv.data.load("digits")).name
        'binomial(16)'
    """
    if dataset.columns is not None:
        raise InputError(
            f"{dataset.name} is a table, whose columns have likelihoods of their own; `pyrovae new FILE.py --data "
            f"{dataset.name}` writes programs that score them apart"
        )
    return _likelihood({"likelihood": _natural(dataset)}, dataset)


def likelihood_of_columns(dataset: "Dataset") -> Any:
    """The mixed family of a table, a family for each kind of columns: :class:`~pyrovae.TableVAE` scores them apart."""
    return _likelihood({"likelihood": _natural(dataset)}, dataset)


def build(recipe: Mapping[str, Any], dataset: "Dataset") -> Any:
    """The VAE of a complete recipe, with weights drawn from its seed.

    Missing entries of the data (NaN) are left out of the likelihood, and the encoder is told which they are.

    Raises:
        InputError: naming what does not fit.
    """
    latent, hidden = recipe["latent"], recipe["hidden"]
    if latent < 1 or any(width < 1 for width in hidden):
        raise InputError(f"latent and hidden sizes must be at least 1, got latent={latent}, hidden={hidden}")
    check_support(recipe["prior"], recipe["guide"])
    if dataset.columns is not None:
        return _of_table(recipe, dataset)
    if option_of_labels(recipe):
        return _of_classes(recipe, dataset)
    shape = _latent_shape(recipe)
    decode, encode = _networks(recipe, shape, dataset.shape, dataset)
    if has_missing := any(rows_with_missing(dataset).values()):
        _, of_masked = _networks(recipe, shape, pv.networks.shape_beside_mask(dataset.shape), dataset)
        encode = pv.networks.masked_input(dataset.shape, lambda _: of_masked, fill="learned")
    encoder = _encoder(recipe, shape, encode)
    vae = pv.VAE(
        prior=_prior(recipe, encoder, dataset.train),
        decoder=pv.Conditional(_likelihood(recipe, dataset), dataset.shape, decode),
        encoder=encoder,
    )
    if has_missing:
        vae.model = pv.observed_entries(vae.model)  # type: ignore[method-assign]
    return vae


def rows_with_missing(dataset: "Dataset") -> dict[str, int]:
    """Split -> how many of its rows hold missing values (NaN)."""
    return {name: len(getattr(dataset, name).missing()) for name in ("train", "valid", "test")}


def option_of_labels(record: Mapping[str, Any]) -> str | None:
    """The option by which the programs of a record take labels."""
    if record.get("semi_supervised") is not None:
        return "--semi-supervised"
    return "--labels" if record.get("labels") else None


def _of_classes(recipe: Mapping[str, Any], dataset: "Dataset") -> Any:
    """The VAE whose networks read a class beside data and latents: given each, or with few labels, a latent."""
    shape, num_classes = _latent_shape(recipe), _num_classes(recipe, dataset)
    label = pv.networks.OneHot(num_classes)
    into, read = ((math.prod(one) + num_classes,) for one in (shape, dataset.shape))
    decode, encode = _networks(recipe, into, read, dataset)
    decode = pv.networks.beside([shape, label], decode)
    encoder = _encoder(recipe, shape, encode)
    parts = {
        "prior": _prior(recipe, encoder, dataset.train),
        "decoder": pv.Conditional(_likelihood(recipe, dataset), dataset.shape, decode),
        "encoder": pv.networks.Beside([dataset.shape, label], encoder),
    }
    if recipe.get("semi_supervised") is None:
        return pv.ConditionalVAE(**parts)
    _, classify = _networks({**recipe, "seed": ~recipe["seed"]}, shape, dataset.shape, dataset)  # no seed of the others
    classifier = pv.Conditional(pv.families.categorical(num_classes), (), classify)
    return pv.SemiSupervisedVAE(**parts, classifier=classifier, num_classes=num_classes)


def _num_classes(recipe: Mapping[str, Any], dataset: "Dataset") -> int:
    """How many classes there are; raises InputError for data without them, and for what cannot read them."""
    option = option_of_labels(recipe)
    if dataset.num_classes is None:
        raise InputError(f"{dataset.name} has no labels to be conditioned on: leave {option} out")
    prior, network = (parsed(recipe[kind], CHOICES[kind])[0] for kind in ("prior", "network"))
    for kind, bad in (("prior", prior.needs), ("network", network.of_images)):
        if bad:
            reason = "is made of an encoder that reads data alone" if kind == "prior" else "reads images alone"
            raise InputError(f"{kind} '{recipe[kind]}' {reason}, and {option} conditions on labels: take another")
    return dataset.num_classes


def _of_table(recipe: Mapping[str, Any], dataset: "Dataset") -> Any:
    """The VAE of a table: networks read features of rows and of covariates, and missing entries are left out."""
    read, beside, features, has_missing = reading(dataset)
    shape, extra = _latent_shape(recipe), beside.size if beside else 0
    into = (math.prod(shape) + extra,) if extra else shape
    decode, encode = _networks(recipe, into, (read.size + extra,), dataset)
    decoder = pv.Conditional(_likelihood(recipe, dataset), dataset.shape, decode)
    encoder = _encoder(recipe, shape, encode)
    _check_rows(recipe["likelihood"], decoder, into, dataset)
    vae = pv.TableVAE(
        prior=_prior(recipe, encoder, features),
        decoder=decoder,
        encoder=encoder,
        read=read,
        read_covariates=beside,
        latent_dim=len(shape),
    )
    if has_missing:
        vae.model = pv.observed_entries(vae.model)  # type: ignore[method-assign]
    return vae


def reading(dataset: "Dataset") -> tuple[Any, Any, Any, bool]:
    """What reads rows of a table and covariates (None), the training data so read, and whether any entry is missing."""
    import torch

    from pyrovae.programs.guides.inputs import TableRows

    tensors = dataset.train.tensors
    missing = torch.stack([split.x.isnan().any(0) for split in (dataset.train, dataset.valid, dataset.test)]).any(0)
    seen = [missing, missing.new_zeros(len(dataset.covariates or ()))]
    kinds = [[(one.kind, len(one.labels)) for one in some] for some in (dataset.columns, dataset.covariates) if some]
    read, *beside = (TableRows(*each) for each in zip(kinds, tensors, seen, strict=False))
    features = torch.cat([module(rows) for module, rows in zip((read, *beside), tensors, strict=True)], -1)
    return read, beside[0] if beside else None, features, bool(missing.any())


def _check_rows(likelihood: str, decoder: Any, into: tuple[int, ...], dataset: "Dataset") -> None:
    """Raises InputError, naming columns and rows, where values of a table are outside of a likelihood's support."""
    import torch

    from pyrovae.programs.tables import outside

    with torch.no_grad():
        y = decoder(torch.zeros(1, *into))
    whole = [one for one in dataset.columns or () if one.kind in MASSES]
    if whole and not parsed(likelihood, FAMILIES)[0].of_columns and not y.support.is_discrete:
        raise InputError(
            f"likelihood '{likelihood}' is a density, and {whole[0].kind} columns of {dataset.name} are whole numbers "
            f"in their own unit ({', '.join(one.name for one in whole[:3])}{', ...' * (len(whole) > 3)}): declare them "
            "real, which makes them standard scores, or take 'mixed', which follows the kinds"
        )
    for split in (dataset.train, dataset.valid, dataset.test):
        bad = outside(y, split.x)
        if not bad.any():
            continue
        raise InputError(
            f"likelihood '{likelihood}': values of {dataset.name} {split.protocol.split} are outside of its support: "
            f"{_told(bad, split.x, dataset)}. Take 'mixed', which follows the kinds of columns, or declare others: "
            "real columns are standard scores, positive ones are not"
        )


def _told(bad: Any, x: Any, dataset: "Dataset") -> str:
    """The first columns that hold bad values, with the first row of each."""
    places = bad.any(0).nonzero().flatten().tolist()
    firsts = {place: int(bad[:, place].nonzero()[0]) for place in places[:3]}
    found = [
        f'"{dataset.columns.names[place]}" in {int(bad[:, place].sum())} rows, the first is row {row} '  # type: ignore[union-attr]
        f"({x[row, place]:.4g})"
        for place, row in firsts.items()
    ]
    return ", ".join(found) + f", and {len(places) - 3} more columns" * (len(places) > 3)


def likelihood_of(vae: Any) -> str:
    """The likelihood of what :func:`build` gave, with its constants: ``"binomial(16)"``."""
    return vae.decoder.family.name


def _latent_shape(recipe: Mapping[str, Any]) -> tuple[int, ...]:
    prior, options = parsed(recipe["prior"], PRIORS)
    return prior.shape(recipe["latent"], **options) if prior.shape else (recipe["latent"],)


def _prior(recipe: Mapping[str, Any], encoder: Any, rows: Any) -> Any:
    """The prior, made of the encoder and of rows as that reads them where it needs them."""
    prior, options = parsed(recipe["prior"], PRIORS)
    made_from = {"encoder": encoder, "rows": rows}
    own = {**options, **_own_seed(resolve(prior.path), recipe), **{name: made_from[name] for name in prior.needs}}
    return prior(recipe["latent"], **own)


def _likelihood(recipe: Mapping[str, Any], dataset: "Dataset") -> Any:
    """The family of a decoder.

    Raises:
        InputError: for one that is made of columns, where the data are no table.
    """
    likelihood, options = parsed(recipe["likelihood"], FAMILIES)
    if likelihood.of_columns:
        if dataset.columns is None:
            raise InputError(
                f"likelihood '{recipe['likelihood']}' is made of the columns of a table, and {dataset.name} holds "
                f"{dataset.range}; load a .csv, .parquet or frame, or take another likelihood"
            )
        kinds = [(one.kind, len(one.labels)) for one in dataset.columns]
        options = {**options, "kinds": kinds, "means": dataset.train.x.nanmean(0).tolist()}
    return likelihood(dataset.maximum, **options)


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


def _networks(
    recipe: Mapping[str, Any], latent: tuple[int, ...], read: tuple[int, ...], dataset: "Dataset"
) -> tuple[Any, Any]:
    """What builds the networks of decoder and encoder, which read events of these shapes.

    Numbers behind the name come before the widths of the recipe.
    """
    network, of_network = parsed(recipe["network"], NETWORKS)
    if network.of_images and len(dataset.shape) not in (2, 3):
        fitting = [name for name, choice in NETWORKS.items() if not choice.of_images]
        raise InputError(
            f"network '{recipe['network']}' is for images, of shape (H, W) or (C, H, W), and a datum of {dataset.name} "
            f"has shape {tuple(dataset.shape)}; networks that go with it: {', '.join(fitting)}"
        )
    return network(latent, read, **{"hidden": recipe["hidden"], **of_network}, seed=recipe["seed"])


def _encoder(recipe: Mapping[str, Any], shape: tuple[int, ...], network: Callable[[int], Any]) -> Any:
    """What gives q(z|x), from a family or from what is more than one."""
    from pyrovae.programs.families import Family

    choice, options = parsed(recipe["guide"], GUIDES)
    guide = choice(**options)
    if isinstance(guide, Family):
        return pv.Conditional(guide, shape, network)
    return guide(shape, network, **_own_seed(guide, recipe))


def _own_seed(build: Callable[..., Any], recipe: Mapping[str, Any]) -> dict[str, int]:
    """The recipe's seed, for what draws weights of its own."""
    return {"seed": recipe["seed"]} if "seed" in signature(build).parameters else {}


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
