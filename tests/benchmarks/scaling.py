"""What pyrovae costs against the number of data, of particles, of data in a batch and of latents.

    python tests/benchmarks/scaling.py                        # about 3 minutes on 2 cores
    python tests/benchmarks/scaling.py --device cuda

Writes tests/benchmarks/results/scaling_cpu.md, .json and .png (scaling_cuda where a GPU was asked for). Each size has a
process of its own; those of one series take turns. The time of an evaluation is that of the evidence, without k-hat.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from side_by_side import results
from side_by_side.alternating import Middle, Outcome, alternate
from side_by_side.problems import Problem
from side_by_side.series import Series

BASE = Problem("784-400-50 ReLU", 100, num_particles=200)
BATCHES = 20  # in a round of training
EVIDENCE, STEP = "with_pyrovae:evidence", "with_pyrovae:compiled"


class Sweep(NamedTuple):
    """One size varied: which problem each makes, and how many units of work its time counts."""

    what: str
    size: str
    contender: str
    sizes: list[int]
    problem: Callable[[int], Problem]
    units: Callable[[Problem], int]
    times_cuda: int  # what the sizes are multiplied by on a GPU


def _passes(problem: Problem) -> int:
    return problem.num_data * problem.num_particles


SWEEPS = (
    Sweep("an evaluation, K = 200", "data N", EVIDENCE, [25, 50, 100, 200, 400, 800],
          lambda n: replace(BASE, num_data=n), _passes, 20),
    Sweep("an evaluation, N = 100", "particles K", EVIDENCE, [25, 50, 100, 200, 400, 800],
          lambda k: replace(BASE, num_particles=k), _passes, 20),
    Sweep("a training step", "data in a batch", STEP, [32, 64, 128, 256, 512],
          lambda b: replace(BASE, num_data=BATCHES * b, batch_size=b), lambda problem: 1, 8),
    Sweep("a decoder pass", "latents", EVIDENCE, [2, 10, 50, 200, 800],
          lambda z: replace(BASE, latent=z), lambda problem: 1, 1),
)  # fmt: skip
NOTES = """\
Each: least-squares line through the medians. Slope: of log seconds against log size over the upper half of the sizes;
1 is linear. K x N decoder passes make an evaluation: what each more of them costs is the named constant."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="folder of the results")
    arguments = parser.parse_args()
    found = [measured(sweep, arguments) for sweep in SWEEPS]
    print_and_write(arguments, [series for series, _ in found if series], [outcomes for _, outcomes in found])


def measured(sweep: Sweep, arguments: argparse.Namespace) -> tuple[Series | None, dict[str, Outcome]]:
    sizes = [size * (sweep.times_cuda if arguments.device == "cuda" else 1) for size in sweep.sizes]
    problems = {f"{size} {sweep.size}": sweep.problem(size) for size in sizes}
    contenders = {name: (sweep.contender, problem) for name, problem in problems.items()}
    outcomes = alternate(contenders, device=arguments.device, rounds=arguments.rounds, threads=arguments.threads)
    if any(outcome.absent for outcome in outcomes.values()):
        return None, outcomes
    seconds = [
        Middle.of([one * sweep.units(problems[name]) for one in outcome.seconds]) for name, outcome in outcomes.items()
    ]
    return Series(sweep.what, sweep.size, sizes, seconds), outcomes


def print_and_write(arguments: argparse.Namespace, series: list[Series], outcomes: list[dict[str, Outcome]]) -> None:
    from side_by_side import pictures

    machine, versions = results.machine(arguments.device, arguments.threads), results.versions(*outcomes)
    lines = [["seconds of", "against", "from", "to", "fixed", "each", "slope"], ["---", "---", *["---:"] * 5]]
    lines += [_row(one) for one in series]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    constant = series[0].line[1] / BASE.num_particles
    named = f"An evaluation costs {results.seconds_text(constant)} for each decoder pass (784-400-50)."
    markdown = "\n\n".join(["# What cost grows with", table, named, NOTES, results.account_of(machine, versions)])
    numbers = {
        "machine": machine,
        "versions": versions,
        "series": [vars(one) | {"line": one.line, "slope": one.slope} for one in series],
    }
    results.write(f"scaling_{arguments.device}", markdown, numbers, pictures.scaling(series), arguments.out)


def _row(one: Series) -> list[str]:
    fixed, each = map(results.seconds_text, one.line)
    return [one.what, one.size, str(one.sizes[0]), str(one.sizes[-1]), fixed, each, f"{one.slope:.2f}"]


if __name__ == "__main__":
    main()
