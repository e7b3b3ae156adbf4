"""One compiled training step under each objective and some priors, by hand and ours, side by side.

    python tests/benchmarks/objective_steps.py                       # about 20 minutes
    python tests/benchmarks/objective_steps.py --of dreg vamp:500 --rounds 5

Writes tests/benchmarks/results/objectives_cpu.md, .json and .png (objectives_cuda where a GPU was asked for). By hand
is plain PyTorch: torch.compile(loss) with the fused Adam, and loss, backward and Adam traced and compiled as one graph.
"""

import argparse
from collections.abc import Mapping

from side_by_side import results
from side_by_side.alternating import Outcome, alternate
from side_by_side.objectives import LOSSES, PRIORS
from side_by_side.problems import Problem

BY_HAND, WHOLE, OURS = "by hand, torch.compile(loss) + fused Adam", "by hand, the whole step traced", "ours, compiled"
CONTENDERS = {BY_HAND: "compiled_loss", WHOLE: "whole", OURS: "ours"}
PARTICLES = 10
NOTES = """\
Times and ratios: median (first to third quartile) over rounds in turns; ratios are taken round by round: below one, ours
takes less. 784-400-50 ReLU, Bernoulli, float32, batch 128, Adam at 1e-3, made-up bits for data; K = 10 particles (2 x 5 in
PIWAE) where the objective has any. A round is one epoch of {steps} steps; a step is an epoch's time over its steps, so that
taking the batch and logging are in it; ours logs ELBO, reconstruction and KL whatever it optimizes. Priors are under the
sampled ELBO. Now and then ours takes a step eagerly too and holds the one against the other, which is in its time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    names = [*LOSSES, *PRIORS]
    parser.add_argument("--of", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="folder of the results")
    arguments = parser.parse_args()
    print_and_write(arguments, {name: timed(name, arguments) for name in arguments.of})


def timed(name: str, arguments: argparse.Namespace) -> dict[str, Outcome]:
    which = {"objective": name} if name in LOSSES else {"prior": name}
    problem = Problem(name, 128 * arguments.steps, 128, num_particles=PARTICLES, **which)
    contenders = {key: (f"objectives:{function}", problem) for key, function in CONTENDERS.items()}
    return alternate(contenders, device=arguments.device, rounds=arguments.rounds, threads=arguments.threads)


def print_and_write(arguments: argparse.Namespace, timings: Mapping[str, Mapping[str, Outcome]]) -> None:
    from side_by_side import pictures

    unit = results.MILLISECONDS if arguments.device == "cpu" else results.MICROSECONDS
    machine, versions = results.machine(arguments.device, arguments.threads), results.versions(*timings.values())
    account = results.account_of(machine, versions)
    markdown = "\n\n".join(
        [
            "# One training step under each objective and prior",
            table(timings, unit),
            NOTES.format(steps=arguments.steps),
            account,
        ]
    )
    numbers = {name: {key: one.to_dict() for key, one in outcomes.items()} for name, outcomes in timings.items()}
    numbers = {"machine": machine, "versions": versions, "seconds per step": numbers}
    figure = pictures.ratios(timings, OURS, (BY_HAND, WHOLE))
    results.write(f"objectives_{arguments.device}", markdown, numbers, figure, arguments.out)


def table(timings: Mapping[str, Mapping[str, Outcome]], unit: results.Unit) -> str:
    """Markdown: a row for each objective and prior."""
    titles = [
        "",
        f"ours, {unit.name}",
        f"{BY_HAND}, {unit.name}",
        "ours / this",
        f"{WHOLE}, {unit.name}",
        "ours / this",
    ]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for name, outcomes in timings.items():
        cells = [_time(outcomes[OURS], unit)]
        for other in (BY_HAND, WHOLE):
            cells += [_time(outcomes[other], unit), results.text(outcomes[OURS].over(outcomes[other]))]
        lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _time(outcome: Outcome, unit: results.Unit) -> str:
    from side_by_side.alternating import Middle

    if outcome.absent:
        return outcome.absent
    return results.number(Middle.of([seconds * unit.per_second for seconds in outcome.seconds]).median)


if __name__ == "__main__":
    main()
