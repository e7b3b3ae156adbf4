"""The command ask: of each row of a table, which of the columns that it lacks would tell most of another."""

from argparse import ArgumentParser, Namespace

import pyrovae as pv
from pyrovae.apps.arguments import (
    Action,
    bring_back,
    check_parent,
    check_picture,
    deliver,
    draw_record,
    run_arguments,
)
from pyrovae.base.errors import InputError


def ask(p: ArgumentParser) -> Action:
    """Say what to ask for next: how much each column that a row lacks would tell of one, in nats.

    example:
      pyrovae ask runs/wine later.csv --about quality --row 3
      pyrovae ask runs/wine later.csv --about quality,alcohol --draws 400 --json -
    """
    run_arguments(p)
    p.add_argument("table", metavar="TABLE", help="a .csv or .parquet of the columns of the run: what it has is given")
    about = "what is to be known: a column, or several with commas between; taken as unknown in all rows"
    p.add_argument("--about", required=True, metavar="COLUMN", help=about)
    p.add_argument("--row", type=int, metavar="N", help="one row of the table, from 0 [all]")
    p.add_argument("--draws", type=int, default=100, help="of each row [100]")
    p.add_argument("--particles", type=int, default=1000, metavar="K", help="for each evidence [1000]")
    p.add_argument("--method", default="auto", help="of evaluate [auto]")
    p.add_argument("--seed", type=int, default=0, help="of all draws [0]")
    p.add_argument("--figure", metavar="FILE", help="a picture of it: .png, .svg or .pdf")
    p.add_argument("--json", metavar="FILE", help='the account as JSON; "-" prints it')
    return _ask


def _ask(given: Namespace) -> int:
    check_picture(given.figure)
    for path in (given.figure, given.json):
        check_parent(path)
    from pyrovae.data import load_like
    from pyrovae.data.missing.masks import as_entries

    loaded = bring_back(given)
    split = load_like(given.table, loaded.dataset)
    if given.row is not None:
        if not 0 <= given.row < len(split):
            raise InputError(f"--row is from 0 to {len(split) - 1:,}, the rows of {given.table}; got {given.row}")
        split = split[given.row : given.row + 1]
    names = loaded.dataset.columns.names
    about = as_entries([name.strip() for name in given.about.split(",")], split.x.shape, "--about", names)
    how = {"num_draws": given.draws, "num_particles": given.particles, "method": given.method, "seed": given.seed}
    known = ~split.x.isnan() & ~about
    record = pv.information(loaded.fit.model, loaded.fit.guide, split, about=about, given=known, names=names, **how)
    deliver(given.json, record)
    draw_record(given.figure, record)
    return 0
