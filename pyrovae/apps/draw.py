"""The commands that draw: sample, figures, demo."""

import csv
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae.apps.arguments import PICTURES, Action, bring_back, run_arguments
from pyrovae.base.choices import resolve
from pyrovae.base.errors import InputError


def sample(p: ArgumentParser) -> Action:
    """Draw data from the model of a run.

    example:
      pyrovae sample runs/digits --num 64 --out samples.png
      pyrovae sample runs/wine --num 500 --out samples.csv
    """
    run_arguments(p)
    p.add_argument("--num", type=int, default=64, help="how many data [64]")
    p.add_argument("--seed", type=int, default=0, help="of the draws [0]")
    p.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".npy for the values; .csv for rows of a table with its labels; .png, .svg or .pdf for a picture",
    )
    return _sample


def _sample(given: Namespace) -> int:
    loaded, path = bring_back(given), Path(given.out)
    if path.suffix not in (".npy", ".csv", *PICTURES):
        raise InputError(f"{path}: give a name that ends in .npy or .csv (values), or .png, .svg or .pdf (a picture)")
    model, template = loaded.fit.model, loaded.split("test")
    if path.suffix in PICTURES:
        pv.figures.save(pv.figures.prior_samples(model, template, num=given.num, seed=given.seed), path)
    else:
        _write(pv.sample(model, template, num_samples=given.num, seed=given.seed), loaded.dataset, path)
    print(f"{path}: {given.num} {'means of p(x|z) at draws of z' if path.suffix in PICTURES else 'draws of x'}")
    return 0


def _write(draws: Any, dataset: Any, path: Path) -> None:
    """Values as .npy, or rows of a table as .csv, in the units and with the labels of its source."""
    columns, sites = dataset.columns, draws.values
    if path.suffix == ".csv" and columns is None:
        raise InputError(f"{path}: .csv is for rows of a table, and {dataset.name} holds {dataset.range}; take .npy")
    if columns is not None and {f"x.{name}" for name in columns.groups()} <= sites.keys():
        sites = {"x": columns.joined(sites)}
    values = _values_like(sites, dataset.shape, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        import numpy as np

        np.save(path, values.numpy())
        return
    found = columns.decoded(values)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(found)
        writer.writerows(zip(*found.values(), strict=True))


def _values_like(sites: Any, shape: Any, path: Path) -> Any:
    """The values of the last site that are of the shape of a datum."""
    wanted = [name for name, value in sites.items() if value.shape[1:].numel() == shape.numel()]
    if not wanted:
        raise InputError(f"{path}: no site draws values of the shape of a datum; the sites are {list(sites)}")
    return sites[wanted[-1]].reshape(-1, *shape)


def draw(p: ArgumentParser) -> Action:
    """Draw training curves, reconstructions, samples, latents and the account.

    example:
      pyrovae figures runs/digits --out figures
    """
    run_arguments(p)
    p.add_argument("--out", metavar="DIR", help="folder for the figures [RUN-figures]")
    return _figures


def _figures(given: Namespace) -> int:
    loaded = bring_back(given)
    drawn = run_figures(loaded.fit, loaded.split("test"))
    if (report := pv.runs.best_report(given.run)) is not None:
        drawn["account"] = pv.figures.account(report)
        if set(report.route) != {"encoder"}:
            drawn["routes"] = pv.figures.routes(report)
    folder = Path(given.out or f"{Path(given.run)}-figures")
    for name, figure in drawn.items():
        pv.figures.save(figure, folder / f"{name}.png")
        print(folder / f"{name}.png")
    return 0


def run_figures(fitted: Any, data: Any) -> dict[str, Any]:
    """The figures that a fit has by itself, by name; those that its data or latents have no place for are left out."""
    figures, model, guide = pv.figures, fitted.model, fitted.guide
    drawings: dict[str, Callable[[], Any]] = {
        "training": lambda: figures.training_curves(fitted.history, best_epoch=fitted.best_epoch),
        "reconstructions": lambda: figures.reconstructions(model, guide, data),
        "samples": lambda: figures.prior_samples(model, data),
        "latents": lambda: figures.latent_means(model, guide, data),
        "interpolation": lambda: figures.interpolation(model, guide, data),
        "manifold": lambda: figures.manifold(model, data, guide=guide),
    }
    drawn = {}
    for name, drawing in drawings.items():
        try:
            drawn[name] = drawing()
        except InputError:
            continue
    return drawn


def demo(p: ArgumentParser) -> Action:
    """Fit a VAE to handwritten digits, print the account, compare, draw.

    example:
      pyrovae demo --out runs/demo
    """
    about = "folder of the demo's runs and figures [runs/demo]"
    p.add_argument("--out", default="runs/demo", metavar="DIR", help=about)

    return lambda given: resolve("pyrovae.apps.demo:run")(Path(given.out))
