"""The commands that draw: sample, figures, demo."""

from argparse import Namespace
from pathlib import Path

import numpy as np

import pyrovae as pv
from pyrovae.apps import demo as demonstration
from pyrovae.apps import runs
from pyrovae.apps.fit import fit
from pyrovae.apps.loading import load_run
from pyrovae.base import storage
from pyrovae.base.errors import InputError
from pyrovae.reports import figures


def sample(arguments: Namespace) -> int:
    """Writes data drawn from the model of a run."""
    loaded, path = load_run(arguments), Path(arguments.out)
    if path.suffix not in (".npy", ".png", ".svg", ".pdf"):
        raise InputError(f"{path}: give a name that ends in .npy (values) or .png, .svg or .pdf (a picture)")
    template = loaded.split("test")
    if path.suffix == ".npy":
        draws = pv.sample(loaded.fit.model, template, num_samples=arguments.num, seed=arguments.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = [name for name, value in draws.values.items() if value.shape[1:].numel() == template.shape.numel()]
        if not wanted:
            raise InputError(
                f"{path}: no site draws values of the shape of a datum; the sites are {list(draws.values)}"
            )
        np.save(path, draws.values[wanted[-1]].reshape(-1, *template.shape).numpy())
    else:
        figures.save(figures.prior_samples(loaded.fit.model, template, num=arguments.num, seed=arguments.seed), path)
    print(f"{path}: {arguments.num} {'draws of x' if path.suffix == '.npy' else 'means of p(x|z) at draws of z'}")
    return 0


def draw(arguments: Namespace) -> int:
    """Draws the figures of a run."""
    loaded = load_run(arguments)
    drawn = demonstration.run_figures(loaded.fit, loaded.split("test"))
    if "report.json" in storage.read(arguments.run)[1]:
        drawn["account"] = figures.account(runs.load_report(arguments.run))
    folder = Path(arguments.out or f"{Path(arguments.run)}-figures")
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")
        print(folder / f"{name}.png")
    return 0


def demo(arguments: Namespace) -> int:
    """The demonstration on handwritten digits."""
    return demonstration.run(Path(arguments.out))


COMMANDS = {"fit": fit, "sample": sample, "figures": draw, "demo": demo}
