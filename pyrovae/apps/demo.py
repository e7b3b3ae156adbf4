"""The demonstration: a VAE on handwritten digits, its account, a swapped prior, two baselines, and the figures."""

import shutil
from pathlib import Path

import pyro.distributions as dist
from torch import Tensor

import pyrovae as pv
from pyrovae.apps import fit, loading, runs
from pyrovae.apps.draw import run_figures
from pyrovae.base.errors import InputError
from pyrovae.data.split import Dataset
from pyrovae.evidence.report import Report
from pyrovae.programs.baselines.em import fit_mixture
from pyrovae.programs.oracles.mixtures import FiniteMixture
from pyrovae.reports import figures
from pyrovae.training.fit import Fit

MARK = "made-by-pyrovae-demo"
RUNS = {"vae": "normal", "vae-mixture-prior": "mixture"}  # run -> prior
BUDGET = 20_000  # decoder passes for each digit: a demonstration anneals none
GRID = (1, 5, 20, 40, 80, 160, 240, 320, 480, 640, 960)  # numbers of mixture components tried on the validation data


def run(folder: Path, *, epochs: int | None = None, num_particles: int = 1000) -> int:
    """Carries it out in a folder of its own: 0, or 130 after Ctrl-C.

    Raises:
        InputError: if the folder holds anything that no earlier demonstration made.
    """
    _own_folder(folder)
    digits = pv.data.load("digits")
    print(f"data      {digits.train.protocol}\n          {digits.test.protocol}")
    reports: dict[str, Report] = {}
    for name, prior in RUNS.items():
        print(f"\nfitting   {name}: z ~ {prior} prior, x | z ~ binomial(16) for each of 64 pixels")
        fitted = _fit(digits, prior, folder / name, epochs)
        if fitted.interrupted:
            print("interrupted; what was fitted is saved")
            return 130
        budget = max(BUDGET, num_particles)
        reports[name] = pv.evaluate(fitted.model, fitted.guide, digits.test, num_particles=num_particles, budget=budget)
        runs.save_report(folder / name, reports[name])
        if name == "vae":
            print(f"\n{reports[name].summary()}")
            drawn = run_figures(fitted, digits.test)
    reports |= baselines(digits)
    table = pv.compare(reports)
    print(f"\n{table}")
    drawn |= {"account": figures.account({n: reports[n] for n in RUNS}), "comparison": figures.comparison(table)}
    for name, figure in drawn.items():
        figures.save(figure, folder / "figures" / f"{name}.png")
    print(f"\nfigures   {folder / 'figures'}: {', '.join(drawn)}")
    print(f"next      pyrovae evaluate {folder / 'vae'} --particles 10000")
    return 0


def baselines(digits: Dataset) -> dict[str, Report]:
    """Two models without a network, evaluated by the same function on the same rows.

    Independent pixels, and a finite mixture fitted by EM whose number of components is the best of ``GRID`` on
    the validation data. Their component is summed out, so no latent is left and their evidence is exact.
    """
    mixtures = {c: fit_mixture(digits.train.x.double(), c, _pixels, maximum=16.0, num_restarts=3) for c in GRID}
    valid = {c: float(m.log_evidence(digits.valid.x.double()).mean()) for c, m in mixtures.items()}
    best = max(valid, key=lambda c: valid[c])
    print(f"\nbaseline  mixture of {best} components, best on the validation data of {GRID}")
    chosen: dict[str, FiniteMixture] = {"independent-pixels": mixtures[1], f"mixture-of-{best}": mixtures[best]}
    return {name: pv.evaluate(m.marginal, lambda x: None, digits.test, num_particles=25) for name, m in chosen.items()}


def _fit(digits: Dataset, prior: str, folder: Path, epochs: int | None) -> Fit:
    record = fit.record(data="digits", prior=prior, epochs=epochs)
    model, guide, record = loading.pair_of(record, digits, None)
    return pv.fit(model, guide, digits.train, valid=digits.valid, **fit.training(record), out=folder, record=record)


def _pixels(mean: Tensor) -> dist.TorchDistribution:
    return dist.Binomial(16, probs=mean / 16).to_event(2)


def _own_folder(folder: Path) -> None:
    """Makes the folder, or clears what an earlier demonstration left in it, and nothing else."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists())):
        raise InputError(f"{folder}: holds something that the demonstration did not make; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("A folder of `pyrovae demo`, which overwrites its own runs and figures here.\n")
    for name in (*RUNS, "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
