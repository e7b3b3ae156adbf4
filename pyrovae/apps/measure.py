"""The commands that measure a run: load it, measure, print the account, write JSON and a figure.

To add one: its function here, and its name in ``COMMANDS``; its figure is found by the type of its record. An interrupt
keeps what is done: the account of the data that were finished is printed and written like a whole one, and says of how
many data it is.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae.apps.arguments import (
    Action,
    bring_back,
    check_parent,
    check_picture,
    deliver,
    draw_record,
    keep_in,
    run_arguments,
)
from pyrovae.apps.recipes import choose
from pyrovae.base.errors import InputError, Interrupted
from pyrovae.data.named import PARTS


def evaluate(p: ArgumentParser) -> Action:
    """Account for log p(x): evidence, ELBO, KL, errors, reliability.

    example:
      pyrovae evaluate runs/digits --particles 5000 --json report.json
      pyrovae evaluate runs/digits --method importance
      pyrovae evaluate runs/digits --method ais --num 100 --temperatures 1000
      pyrovae evaluate runs/digits --method bdmc
      pyrovae evaluate runs/mine --program my_programs.py
    """
    data_arguments(p, "only the first so many data; of bdmc, how many to simulate [100]")
    p.add_argument(
        "--method",
        default="auto",
        help="auto: importance sampling, from better proposals where the guide is not good enough; importance: from "
        "the guide alone; laplace, adaptive: up to such proposals; annealed: from them for all; ais: annealed from "
        "the guide; bdmc: bounds on simulated data [auto]",
    )
    for name, (methods, about, settings) in _OPTIONS.items():
        p.add_argument(f"--{name}", help=f"{', '.join(methods)}: {about}", **settings)
    return _evaluate


_SAMPLED = ("auto", "importance", "laplace", "adaptive", "annealed")  # methods of pyrovae.evaluate

# Options of ``evaluate`` that belong to some methods alone, and are None where they were not given.
_OPTIONS: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "particles": ((*_SAMPLED, "bdmc"), "draws of z for each datum [1000]", {"type": int, "metavar": "K"}),
    "defensive": (("auto", "importance"), "fraction of draws from the prior, 0 to 1 [0]", {"type": float}),
    "dtype": (_SAMPLED, "float64 runs the programs in double precision [their own]", {}),
    "no-vectorize": (
        ("auto", "importance"),
        "one particle of one datum at a time",
        {"action": "store_const", "const": True},
    ),
    "budget": (_SAMPLED, "decoder passes for each datum at most [no limit]", {"type": int, "metavar": "PASSES"}),
    "temperatures": (("ais", "bdmc"), "steps of the path [300]", {"type": int, "metavar": "T"}),
    "chains": (("ais", "bdmc"), "chains for each datum [16]", {"type": int}),
    "start": (("ais", "bdmc"), "where the path begins, guide or prior [guide]", {}),
}


def _evaluate(given: Namespace) -> int:
    method, start = choose("method", given.method, (*_SAMPLED, "ais", "bdmc")), given.start or "guide"
    for name, (methods, *_) in _OPTIONS.items():
        if method not in methods and getattr(given, name.replace("-", "_")) is not None:
            belongs = ", ".join(f"--method {one}" for one in methods)
            raise InputError(f"--{name} belongs to {belongs}, and --method {method} makes no use of it: leave it out")
    if method in _SAMPLED:
        return _importance_sampling(given)
    choose("start", start, ("guide", "prior"))
    path = _said(num_temperatures=given.temperatures, num_chains=given.chains)
    path |= {"start": {"guide": pv.from_guide, "prior": pv.from_prior}[start], "at_once": 25}
    if method == "ais":
        return measured(given, pv.annealed_evidence, **path)
    return measured(given, pv.bidirectional, num_data=given.num or 100, **_said(num_particles=given.particles), **path)


def _said(**options: Any) -> dict[str, Any]:
    """The options that were given; the others have the defaults of the function that takes them."""
    return {name: value for name, value in options.items() if value is not None}


def _importance_sampling(given: Namespace) -> int:
    is_whole = given.split == "train" or (given.split == "test" and not given.num)  # enough to speak for the run
    is_kept = is_whole and not (given.defensive or given.later)
    options = _said(num_particles=given.particles, defensive=given.defensive, dtype=given.dtype, budget=given.budget)
    options |= {"vectorize": not given.no_vectorize, "method": given.method}
    status = measured(given, pv.evaluate, keep=is_kept, **options)
    if given.json != "-" and status == 0 and not is_kept:
        kept = "only a report on the whole test split, without --num, --defensive and --later, is"
        print(f"not kept in the run: {kept}")
    return status


def gaps(p: ArgumentParser) -> Action:
    """Split log p(x) - ELBO into approximation and amortization gap.

    example:
      pyrovae gaps runs/digits --num 100 --figure gaps.png
    """
    data_arguments(p)
    _particles(p)
    p.add_argument("--steps", type=int, default=1000, help="of the optimisation of each family [1000]")
    return lambda given: measured(given, pv.gaps, at_once=25, num_particles=given.particles, num_steps=given.steps)


def anatomy(p: ArgumentParser) -> Action:
    """Take KL(q || prior) apart; tell which latent dimensions are used.

    example:
      pyrovae anatomy runs/digits --figure anatomy.png
    """
    data_arguments(p)
    p.add_argument("--queries", type=int, metavar="M", help="data whose draws are scored against all others [all]")
    return lambda given: measured(given, pv.surgery, at_once=500, num_queries=given.queries)


def calibrate(p: ArgumentParser) -> Action:
    """Test on simulated data whether the guide is the posterior.

    example:
      pyrovae calibrate runs/digits --figure calibration.png
    """
    data_arguments(p, "only the first so many rows of the template")
    p.add_argument("--simulations", type=int, default=500, metavar="S", help="data to simulate [500]")
    p.add_argument("--draws", type=int, default=99, metavar="L", help="draws that the truth is ranked among [99]")
    _particles(p)

    def run(given: Namespace) -> int:
        sizes = {"num_simulations": given.simulations, "num_draws": given.draws}
        return measured(given, pv.calibrate, at_once=50, num_particles=max(given.particles, given.draws), **sizes)

    return run


def check(p: ArgumentParser) -> Action:
    """Compare data with what the model makes.

    example:
      pyrovae check runs/digits --num 100 --figure check.png
    """
    data_arguments(p)
    p.add_argument("--draws", type=int, default=200, metavar="S", help="replications of each datum [200]")
    p.add_argument("--site", help="which of several observed sites, as a table of unlike columns has [the first]")
    return lambda given: measured(given, _check_of(given.site), at_once=50, num_draws=given.draws)


def _check_of(site: str | None) -> Callable[..., Any]:
    """The check at a site; where none was given and there are several, at the first, which is said."""

    def check(model: Any, guide: Any, data: Any, **options: Any) -> Any:
        first, *others = [site] if site else _observed(model, guide, data[: options["batch_size"]])
        if others:
            told = f"checked at the first of {len(others) + 1} observed sites, {first}; --site takes another"
            print(f"{told}: {', '.join(others)}", file=sys.stderr)
        return pv.predictive_check(model, guide, data, site=first, **options)

    return check


def _observed(model: Any, guide: Any, data: Any) -> list[str]:
    """The names of the sites that a model observes."""
    from pyrovae.pairs.context import isolated
    from pyrovae.pairs.particles import Particles

    with isolated(model, guide) as (model, guide, device):
        return list(Particles(model, guide, data.to(device).batch(slice(0, len(data)))).structure.observed)


def classify(p: ArgumentParser) -> Action:
    """Tell classes of test data: error and calibration of q(y | x) and p(y | x), and log p(x) with y summed out.

    example:
      pyrovae classify runs/few-labels --figure calibration.png
    The run is that of a fit with few labels, `pyrovae fit --semi-supervised 100`, or with all.
    """
    data_arguments(p)
    about = "draws of z for each class of each datum [100]"
    p.add_argument("--particles", type=int, default=100, metavar="K", help=about)
    p.add_argument("--bins", type=int, default=10, help="of the probability of the class chosen [10]")
    p.add_argument("--site", default="y", help="the latent that is the class [y]")
    return _classify


def _classify(given: Namespace) -> int:
    if pv.runs.recorded(given.run).get("semi_supervised") is None:
        how = "fit one by `pyrovae fit --semi-supervised 100`"
        raise InputError(f"{given.run}: was fitted without --semi-supervised, so that it has no class to tell: {how}")

    def measure(model: Any, guide: Any, data: Any, **options: Any) -> Any:
        return pv.classification(model, guide, data.with_labels(), **options)

    sizes = {"num_particles": given.particles, "num_bins": given.bins}
    return measured(given, measure, at_once=100, site=given.site, **sizes)


def compare(p: ArgumentParser) -> Action:
    """Paired differences in log p(x) between runs.

    example:
      pyrovae compare runs/normal runs/mixture --figure comparison.png
    """
    p.add_argument("runs", nargs="+", metavar="RUN", help="folders of evaluated runs, at least two")
    p.add_argument("--json", metavar="FILE", help="write the table there too; - is standard output")
    p.add_argument("--figure", metavar="FILE", help="draw it there: .png, .svg or .pdf")

    def run(given: Namespace) -> int:
        check_parent(given.json)
        check_picture(given.figure)
        if len(given.runs) < 2:
            raise InputError("a comparison needs at least two runs, got 1")
        names = [Path(run).name for run in given.runs]
        labels = names if len(set(names)) == len(names) else given.runs
        table = pv.compare({label: pv.runs.load_report(run) for label, run in zip(labels, given.runs, strict=True)})
        deliver(given.json, table)
        draw_record(given.figure, table)
        return 0

    return run


COMMANDS = {command.__name__: command for command in (evaluate, gaps, anatomy, calibrate, check, classify, compare)}


# ------------------------------------------------------------------------------------------- what all share


def data_arguments(p: ArgumentParser, num: str = "only the first so many data") -> None:
    """Of every command that measures a run on data; ``num`` is the help of --num."""
    run_arguments(p)
    p.add_argument("--split", default="test", help="train, valid or test [test]")
    p.add_argument("--later", metavar="TABLE", help="rows of a later .csv or .parquet, coded as those of the run")
    p.add_argument("--num", type=int, help=num)
    p.add_argument("--seed", type=int, default=0, help="of the draws [0]")
    p.add_argument("--batch-size", type=int, metavar="N", help="data at once; Ctrl-C keeps whole batches [chosen]")
    p.add_argument("--json", metavar="FILE", help="write the account there too; - is standard output")
    p.add_argument("--figure", metavar="FILE", help="draw it there: .png, .svg or .pdf")


def _particles(p: ArgumentParser) -> None:
    p.add_argument("--particles", type=int, default=1000, metavar="K", help="draws of z for each datum [1000]")


def measured(
    given: Namespace,
    measure: Callable[..., Any],
    *,
    at_once: int | None = None,
    keep: bool | None = None,
    **options: Any,
) -> int:
    """Measures a run, keeps the record in it, prints the account, writes it and draws it where that is asked for.

    Args:
        given: what :func:`data_arguments` gave, and more.
        measure: ``(model, guide, data, *, seed, batch_size, **options) -> record``.
        at_once: data in a batch where nothing is said: few where a datum takes long, as an interrupt keeps whole
            batches.
        keep: whether the record is kept in the run, for ``pyrovae report``; None is that of its own test data.
        options: more keyword arguments of ``measure``.

    Returns:
        0, or 130 after Ctrl-C.
    """
    choose("split", given.split, PARTS)
    if given.num is not None and given.num < 1:
        raise InputError(f"--num must be at least 1, got {given.num}")
    check_parent(given.json)
    check_picture(given.figure)
    from pyrovae.data import load_like

    loaded = bring_back(given)
    data = load_like(given.later, loaded.dataset) if given.later else loaded.split(given.split)
    data = data[: given.num] if given.num else data
    options |= {"seed": given.seed, "batch_size": at_once if given.batch_size is None else given.batch_size}
    try:
        record, status = measure(loaded.fit.model, loaded.fit.guide, data, **options), 0
    except Interrupted as interrupt:
        record, status = interrupt.partial, 130
        print(f"interrupted: this is the account of the {len(record)} data that were done", file=sys.stderr)
    if status == 0 and (given.split == "test" and not given.later if keep is None else keep):
        keep_in(given.run, record, quiet=given.json == "-")
    deliver(given.json, record, interrupted=status == 130)
    draw_record(given.figure, record)
    return status
