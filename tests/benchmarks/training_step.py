"""One training step of the same VAE, by hand, by the peers and by pyrovae, side by side.

    make bench                                                # this, evidence_speed.py and scaling.py, on the CPU
    python tests/benchmarks/training_step.py                  # about 6 minutes on 2 cores
    python tests/benchmarks/training_step.py --device cuda --problems mlp-128 mlp-20 --rounds 7

Writes tests/benchmarks/results/training_cpu.md, .json and .png (training_cuda where a GPU was asked for). A round is
one epoch over data that lie on the device, batches taken in a new order inside the time; it ends when the epoch's mean
loss is a number on the host. Every contender has a process and all cores to itself while its round lasts.
"""

import argparse
from dataclasses import replace

from side_by_side import results
from side_by_side.alternating import Outcome, alternate
from side_by_side.problems import Problem

OURS, OURS_EAGER = "ours, compiled", "ours, eager"
CONTENDERS = {
    "by hand, eager": "by_hand:eager",
    "by hand, torch.compile(loss) + fused Adam": "by_hand:compiled_loss",
    "by hand, the whole step traced": "by_hand:whole",
    "Pyro SVI, Trace_ELBO": "with_pyro:svi",
    "NumPyro, jitted step": "with_numpyro:step_by_step",
    "NumPyro, jitted epoch": "with_numpyro:epoch_in_a_loop",
    "pythae trainer": "with_pythae:trainer",
    OURS_EAGER: "with_pyrovae:eager",
    OURS: "with_pyrovae:compiled",
}
BURDA = {"hidden": (200, 200), "activation": "Tanh"}
PROBLEMS = {  # batch sizes by steps in a round
    "mlp-128": Problem("784-400-50 ReLU, batch 128", 128 * 100, 128),
    "burda-20": Problem("784-200-200-50 tanh, batch 20", 20 * 200, 20, **BURDA),
    "conv-128": Problem("convolutions 32, 64, batch 128", 128 * 15, 128, network="conv"),
    "mlp-20": Problem("784-400-50 ReLU, batch 20", 20 * 200, 20),
    "burda-128": Problem("784-200-200-50 tanh, batch 128", 128 * 100, 128, **BURDA),
}
TOO_SLOW = {("cpu", "conv-128"): "NumPyro, jitted epoch"}  # XLA's convolutions in a loop: 2 s a step on the CPU
BY_DEFAULT = ("mlp-128", "burda-20", "conv-128")
NOTES = """\
Times and ratios: median (first to third quartile) over rounds in turns; ratios are taken round by round.
Float32, Adam at 1e-3, one latent draw for each datum, Pyro's validation off, made-up bits for data. The loss is the
negative ELBO of the last epoch, nats per datum: all do the same work. KL is sampled, log q(z|x) - log p(z), but
in pythae, which has it in closed form. A step is an epoch's time over its steps: taking the batch, logging and, in
ours, the sums of both ELBO terms and, once an epoch, the look whether all gradients were finite are in it. NumPyro's two
rows are one step in two ways; the faster is the one to compare with (a loop of convolutions takes XLA seconds a step on
the CPU, and is left out there). "First round after" holds imports and compilation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--problems", nargs="+", default=BY_DEFAULT, choices=list(PROBLEMS))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, help="of a round, in place of each problem's own")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="folder of the results")
    arguments = parser.parse_args()
    print_and_write(arguments, {name: timed(name, arguments) for name in arguments.problems})


def timed(name: str, arguments: argparse.Namespace) -> dict[str, Outcome]:
    problem, without = PROBLEMS[name], TOO_SLOW.get((arguments.device, name))
    if arguments.steps:
        problem = replace(problem, num_data=arguments.steps * problem.batch_size)
    elif arguments.device == "cuda":
        problem = replace(problem, num_data=4 * problem.num_data)  # a step is so short there
    contenders = {key: (CONTENDERS[key], problem) for key in arguments.contenders if key != without}
    return alternate(contenders, device=arguments.device, rounds=arguments.rounds, threads=arguments.threads)


def print_and_write(arguments: argparse.Namespace, timings: dict[str, dict[str, Outcome]]) -> None:
    from side_by_side import pictures

    unit = results.MILLISECONDS if arguments.device == "cpu" else results.MICROSECONDS
    machine, versions = results.machine(arguments.device, arguments.threads), results.versions(*timings.values())
    sections = [f"## {PROBLEMS[name].title}\n\n{_table(outcomes, unit)}" for name, outcomes in timings.items()]
    markdown = "\n\n".join(["# One training step", *sections, NOTES, results.account_of(machine, versions)])
    problems = {name: {key: one.to_dict() for key, one in outcomes.items()} for name, outcomes in timings.items()}
    figure = pictures.bars({PROBLEMS[k].title: v for k, v in timings.items()}, unit, own=(OURS, OURS_EAGER))
    numbers = {"machine": machine, "versions": versions, "seconds per step": problems}
    results.write(f"training_{arguments.device}", markdown, numbers, figure, arguments.out)


def _table(outcomes: dict[str, Outcome], unit: results.Unit) -> str:
    """Ours over each: the compiled step, where it ran, and the eager one."""
    ours = [name for name in (OURS, OURS_EAGER) if name in outcomes and not outcomes[name].absent]
    columns = [results.Column(f"{name} / this", name, inverse=True) for name in ours]
    return results.table(outcomes, unit, columns, "loss")


if __name__ == "__main__":
    main()
