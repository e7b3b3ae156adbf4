"""The command new: a file with a model and a guide to begin with, which runs as it is written."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pyrovae.apps.arguments import Action, check_parent
from pyrovae.base.errors import InputError
from pyrovae.data.named import DATASETS, existing
from pyrovae.data.tables.names import SUFFIXES

TEMPLATE = '''\
"""A model of x and the guide that inverts it; fit, then measure:

    pyrovae fit {file} --data {data} --epochs 100 --out runs/{name}
    pyrovae evaluate runs/{name} --program {file}
"""

import pyro
import torch

import pyrovae as pv


def build(dataset):
    """The two programs, for data of this shape."""
    latents = 8

    # The line to change, say to pv.priors.GaussianMixture(latents, num_components=20, seed=0).
    prior = pv.priors.StandardNormal(latents)

    # Network, then family: z -> p(x | z) and x -> q(z | x). `pyrovae list` prints what else there is.
    likelihood = pv.recipes.natural_likelihood(dataset)  # of digits pv.families.binomial(16)
    decoder = pv.Conditional(likelihood, dataset.shape, pv.networks.mlp(latents, 200, seed=0))
    encoder = pv.Conditional(pv.families.normal(), latents, pv.networks.mlp(dataset.shape, 200, seed=1))
    weights = torch.nn.ModuleList([prior, decoder, encoder])

    def model(x):  # x: (N, *shape), a row for each datum
        pyro.module("weights", weights)  # makes them parameters of the program
        with pyro.plate("data", len(x)):  # rows are independent given the weights
            z = pyro.sample("z", prior())  # z ~ p(z)
            pyro.sample("x", decoder(z), obs=x)  # x ~ p(x | z)

    def guide(x):
        pyro.module("weights", weights)
        with pyro.plate("data", len(x)):
            pyro.sample("z", encoder(x))  # z ~ q(z | x)

    return model, guide
'''

OF_A_TABLE = '''\
"""A model of the rows of a table and the guide that inverts it; fit, then measure:

    pyrovae fit {file} --data {data} --epochs 100 --out runs/{name}
    pyrovae evaluate runs/{name} --program {file}
"""

import pyrovae as pv


def build(dataset):
    """The two programs, for these columns: of each kind its own likelihood, missing cells left out of it."""
    latents = 4

    # The line to change, say to pv.priors.GaussianMixture(latents, num_components=20, seed=0).
    prior = pv.priors.StandardNormal(latents)

    # What the encoder reads of a row, and both networks of its covariates: standard scores, classes, what is missing.
    read, of_covariates, features, _ = pv.recipes.reading(dataset)
    beside = of_covariates.size if of_covariates else 0

    # Network, then family: z -> p(x | z) and x -> q(z | x). `pyrovae list` prints what else there is.
    likelihood = pv.recipes.likelihood_of_columns(dataset)
    decoder = pv.Conditional(likelihood, dataset.shape, pv.networks.mlp(latents + beside, 100, seed=0))
    encoder = pv.Conditional(pv.families.normal(), latents, pv.networks.mlp(features.shape[-1], 100, seed=1))
    programs = pv.TableVAE(prior, decoder, encoder, read=read, read_covariates=of_covariates)
    return pv.observed_entries(programs.model), programs.guide
'''


def new(p: ArgumentParser) -> Action:
    """Write a model and a guide of your own to begin with.

    example:
      pyrovae new my_model.py && pyrovae fit my_model.py --data digits --epochs 20 --out runs/my_model
      pyrovae new of_wine.py --data wine.csv && pyrovae fit of_wine.py --data wine.csv --out runs/wine
    """
    p.add_argument("file", metavar="FILE.py", help="the file to write; one that is there is left as it is")
    p.add_argument("--data", default="digits", help="what it is to be fitted to: a name, or a path [digits]")
    return _new


def _new(given: Namespace) -> int:
    path = Path(given.file)
    if path.suffix != ".py":
        raise InputError(f"{path}: give a name that ends in .py")
    check_parent(given.file)
    if given.data not in DATASETS:
        existing(given.data)
    text = OF_A_TABLE if Path(given.data).suffix.lower() in SUFFIXES else TEMPLATE
    try:
        with path.open("x") as file:
            file.write(text.format(file=path, name=path.stem, data=given.data))
    except FileExistsError:
        raise InputError(f"{path}: is there already, and stays as it is; give another name") from None
    print(
        f"{path}: a model, a guide and the line to change\n"
        f"next: pyrovae fit {path} --data {given.data} --out runs/{path.stem}"
    )
    return 0
