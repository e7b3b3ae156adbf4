"""baseline(): a model without a network on the rows of a data set, whose log p(x) is exact, to be compared with."""

from inspect import signature
from typing import Any

from pyrovae.apps.recipes import choose
from pyrovae.base.arguments import checked
from pyrovae.base.choices import parsed, resolve
from pyrovae.data.split import Dataset
from pyrovae.programs.baselines import BASELINES
from pyrovae.programs.baselines.rows import DENSITIES, Baseline, Rows

KINDS = {"counts": "count", "binary": "binary"}  # of data that are no table; else real


@checked
def baseline(name: str, data: Dataset, *, seed: int = 0) -> Baseline:
    """A baseline by its name, fitted to the training rows of a data set; sizes are chosen by the validation rows.

    It is a pair of programs without a latent: its evidence is exact, by the data protocol of everything else, and what
    is missing is integrated out. Labels and covariates are not told to it. On data of whole numbers "independent" and
    "mixture" are masses, the others densities, which :func:`~pyrovae.compare` keeps apart.

    Args:
        name: a key of ``BASELINES``, alone or with its size: ``"mixture:20"``.
        data: what ``data.load`` gave.
        seed: of the starts of a mixture, and of rows that are drawn anew at each use.

    Raises:
        InputError: for a name that is not there, and for data that it cannot serve.

    Example:
        >>> import pyrovae as pv
        >>> digits = pv.data.load("digits")
        >>> pixels = pv.baseline("independent", digits)
        >>> pv.evaluate(pixels.model, pixels.guide, digits.test, num_particles=25)
        Report(N=300, K=25, log p(x) -107.901 nats per datum)
    """
    choose("baseline", name, BASELINES)
    choice, options = parsed(name, BASELINES)
    return choice(rows_of(data, seed), **options, **({"seed": seed} if is_seeded(name) else {}))


def is_seeded(name: str) -> bool:
    """Whether another seed makes another fit of a baseline."""
    return "seed" in signature(resolve(parsed(name, BASELINES)[0].path)).parameters


def rows_of(data: Dataset, seed: int) -> Rows:
    """The rows of a data set as baselines take them, draws of them fixed."""
    train = data.train.drawn(seed).x.flatten(1).double()
    width, valid = train.shape[1], data.valid.x.flatten(1).double()
    if data.columns is None:
        kind = KINDS.get(data.kind, "real")
        levels = (data.maximum or 0) + 1 if kind != "real" else 0
        return Rows(data.name, train, valid, (kind,) * width, {"x": list(range(width))}, (levels,) * width)
    groups = data.columns.groups()
    sites = {f"x.{label}": places for label, places in groups.items()} if len(groups) > 1 else {"x": [*range(width)]}
    kinds = tuple(one.kind for one in data.columns)
    return Rows(data.name, train, valid, kinds, sites, _levels(data, kinds), is_table=True)


def _levels(data: Any, kinds: tuple[str, ...]) -> tuple[int, ...]:
    """How many levels each column of whole numbers has: its labels, or up to the largest value in any split."""
    largest = [split.x.nan_to_num(0.0).amax(0).tolist() for split in (data.train, data.valid, data.test)]
    found = (max(len(one.labels), *(int(each[d]) + 1 for each in largest)) for d, one in enumerate(data.columns))
    return tuple(0 if kind in DENSITIES else levels for kind, levels in zip(kinds, found, strict=True))
