"""The command new: a file with a model and a guide to begin with, which runs as it is written."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pyrovae.apps.arguments import Action, check_parent
from pyrovae.base.errors import InputError

TEMPLATE = '''\
"""A model of digits and the guide that inverts it; fit, then measure:

    pyrovae fit {file} --data digits --epochs 100 --out runs/{name}
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
    likelihood = pv.families.binomial(dataset.maximum)
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


def new(p: ArgumentParser) -> Action:
    """Write a model and a guide of your own to begin with.

    example:
      pyrovae new my_model.py && pyrovae fit my_model.py --data digits --epochs 20 --out runs/my_model
    """
    p.add_argument("file", metavar="FILE.py", help="the file to write; one that is there is left as it is")
    return _new


def _new(given: Namespace) -> int:
    path = Path(given.file)
    if path.suffix != ".py":
        raise InputError(f"{path}: give a name that ends in .py")
    check_parent(given.file)
    try:
        with path.open("x") as file:
            file.write(TEMPLATE.format(file=path, name=path.stem))
    except FileExistsError:
        raise InputError(f"{path}: is there already, and stays as it is; give another name") from None
    print(
        f"{path}: a model, a guide and the line to change\n"
        f"next: pyrovae fit {path} --data digits --out runs/{path.stem}"
    )
    return 0
