"""The command that completes pictures: draws of what is hidden of test data, beside the truth, and its nats."""

from argparse import ArgumentParser, Namespace

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
from pyrovae.base.errors import InputError


def complete(p: ArgumentParser) -> Action:
    """Complete pictures: draws of what is hidden of test data, and the nats of the truth.

    example:
      pyrovae complete runs/mnist --mask lower-half --num 16 --out figure.png
      pyrovae complete runs/mnist --mask random:0.5 --json -
      pyrovae complete runs/colours --task grey --out colours.png
    """
    run_arguments(p)
    p.add_argument(
        "--mask",
        metavar="NAME",
        help="what is hidden: lower-half, upper-half, left, right, quadrant, or all but the centre: centre; random:0.5 "
        "observes half of the pixels",
    )
    p.add_argument(
        "--task",
        metavar="NAME",
        help="what is observed in place of the pixels: grey, coarse:2, blur:1,0.05 (width and noise; these for normal "
        "likelihoods) or salt-and-pepper:0.1,0,1 (rate, lowest, highest)",
    )
    p.add_argument("--num", type=int, default=16, help="how many of the first test data [16]")
    p.add_argument("--draws", type=int, default=100, help="of each [100]")
    p.add_argument("--particles", type=int, default=1000, metavar="K", help="that draws are resampled from [1000]")
    p.add_argument("--seed", type=int, default=0, help="of all draws [0]")
    p.add_argument("--out", metavar="FILE", help="a picture of them: .png, .svg or .pdf")
    p.add_argument("--json", metavar="FILE", help='the account as JSON; "-" prints it')
    return _complete


def _complete(given: Namespace) -> int:
    check_picture(given.out)
    for path in (given.out, given.json):
        check_parent(path)
    if (given.mask is None) == (given.task is None):
        raise InputError("give one of --mask (as lower-half) and --task (as coarse:2)")
    loaded = bring_back(given)
    x, *others = loaded.split("test")[: given.num].tensors
    operator = pv.operators.named(given.mask or given.task, tuple(x.shape[1:]))
    record = pv.restore(
        loaded.fit.model,
        loaded.fit.guide,
        (operator.apply(x, seed=given.seed), *others),
        operator,
        truth=x,
        num_draws=given.draws,
        num_particles=given.particles,
        seed=given.seed,
    )
    deliver(given.json, record)
    draw_record(given.out, record)
    keep_in(given.run, record, quiet=given.json == "-")
    return 0
