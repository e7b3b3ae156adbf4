"""The command sweep: what can be swapped as lists set apart by commas, every combination from several seeds."""

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

import pyrovae as pv
from pyrovae.apps.arguments import Action, check_parent, check_picture, deliver, draw_record
from pyrovae.apps.fit import SETTINGS
from pyrovae.apps.recipes import CHOICES, choose
from pyrovae.apps.sweeps.grid import FIXED, OF_THE_DATA, grid, listed
from pyrovae.base.errors import InputError, Interrupted
from pyrovae.data.named import DATASETS, existing
from pyrovae.programs.baselines import BASELINES

_NAMES = [name for name in SETTINGS if name not in FIXED]


def sweep(p: ArgumentParser) -> Action:
    """Fit every combination of priors, likelihoods, guides, ... from several seeds, and compare log p(x).

    example:
      pyrovae sweep --data digits --prior normal,mixture:20,vamp --likelihood binomial,beta-binomial --out runs/sweep
      pyrovae sweep --data mnist --prior normal,vamp:500 --network gated:300,300 --seeds 3 --out runs/priors
      pyrovae sweep --data digits --latent 4,8,16 --seeds 3 --out runs/latents --figure latents.png
      pyrovae sweep --data wine.csv --columns '*:real' --baselines normal,factor-analysis,mixture --out runs/wine
    Lists are set apart by commas. Stopped, the same command goes on where it was; each fit is a run of its own.
    """
    p.add_argument("--data", default="digits", help=f"{', '.join(DATASETS)}, or a path [digits]")
    for name in OF_THE_DATA:
        p.add_argument(f"--{name}", default=None, help=SETTINGS[name].about, **SETTINGS[name].argument)
    for name in _NAMES:
        names = CHOICES.get(name, ())
        about = SETTINGS[name].about.partition(" [")[0].format(names=", ".join(names), default="", of_data="")
        p.add_argument(f"--{name.replace('_', '-')}", metavar="A,B,...", help=about)
    help = "the first of each list together, and each other value in place of its first alone [every combination]"
    p.add_argument("--one-at-a-time", action="store_true", help=help)
    help = "models without a network beside them: " + ", ".join(BASELINES)
    p.add_argument("--baselines", metavar="A,B,...", help=help)
    p.add_argument("--seeds", type=int, default=5, help="fits of each combination [5]")
    p.add_argument("--particles", type=int, default=1000, metavar="K", help="draws of z for each datum [1000]")
    p.add_argument("--method", default="auto", help="of the evaluation: auto, importance, ... [auto]")
    p.add_argument("--workers", type=int, default=1, metavar="N", help="fits side by side, one thread each [1]")
    p.add_argument("--data-dir", help="where the files of named data sets lie [PYROVAE_DATA]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto: cuda where there is one]")
    p.add_argument("--out", required=True, metavar="FOLDER", help="of the sweep; a run for each fit")
    p.add_argument("--json", metavar="FILE", help="write the table there; - for stdout")
    p.add_argument("--figure", metavar="FILE", help="draw it there: .png, .svg or .pdf")
    return _sweep


def _sweep(given: Namespace) -> int:
    check_picture(given.figure)
    for path in (given.figure, given.json):
        check_parent(path)
    if given.data not in DATASETS:
        existing(given.data)
    settings = {name: swapped(name, getattr(given, name)) for name in _NAMES if getattr(given, name) is not None}
    settings |= {name: getattr(given, name) for name in OF_THE_DATA if getattr(given, name) is not None}
    grid(settings, one_at_a_time=given.one_at_a_time)  # names, before torch is imported
    for name in _baselines(given):
        choose("baseline", name)
    try:
        table, status = _swept(given, settings), 0
    except Interrupted as stop:
        table, status = stop.partial, 130
        print(f"interrupted; what was fitted is in {given.out}: the same command goes on", file=sys.stderr)
    if table is not None:
        deliver(given.json, table, interrupted=status == 130)
        draw_record(given.figure, table)
    return status


def _swept(given: Namespace, settings: dict[str, Any]) -> Any:
    return pv.sweep(
        given.data,
        seeds=given.seeds,
        out=given.out,
        num_particles=given.particles,
        method=given.method,
        one_at_a_time=given.one_at_a_time,
        baselines=_baselines(given),
        workers=given.workers,
        data_dir=given.data_dir,
        device=given.device,
        **settings,
    )


def _baselines(given: Namespace) -> list[str]:
    return listed(given.baselines) if given.baselines else []


def swapped(name: str, text: str) -> Any:
    """The values of one option: a value, or a list of those set apart by commas.

    Example:
        >>> swapped("prior", "normal,vamp:500"), swapped("latent", "4,8"), swapped("hidden", "300-100,200")
        (['normal', 'vamp:500'], [4, 8], [[300, 100], [200]])
    """
    if name == "hidden":
        widths = [[_number(name, part, int) for part in one.split("-")] for one in text.split(",")]
        return widths if len(widths) > 1 else widths[0]
    if name in CHOICES:
        values: list[Any] = listed(text)
    else:
        kind = SETTINGS[name].argument.get("type", str)
        values = [_number(name, part, kind) for part in text.split(",")]
    return values if len(values) > 1 else values[0]


def _number(name: str, text: str, kind: Any) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"--{name.replace('_', '-')} takes numbers set apart by commas, got '{text}'") from None
