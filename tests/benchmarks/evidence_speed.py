"""The evidence of the same VAE, K particles a datum: the decoder alone, by hand, by pythae and by pyrovae, side by side.

    python tests/benchmarks/evidence_speed.py                 # 100 data, K = 1000: about 3 minutes on 2 cores
    python tests/benchmarks/evidence_speed.py --device cuda   # 10,000 data, K = 5000; pythae on 100 of them

Writes tests/benchmarks/results/evidence_cpu.md, .json and .png (evidence_cuda where a GPU was asked for). A round is one
evaluation of all data; times are per decoder pass, of which there are K for each datum. Then the most memory that
evaluate uses at K = 500 and at K = 5000.
"""

import argparse

from side_by_side import results
from side_by_side.alternating import Outcome, alternate
from side_by_side.problems import Problem

DECODER, NLL = "the decoder's passes alone", "pythae get_nll"
CONTENDERS = {
    DECODER: "by_hand:decoder_passes",
    "importance sampling fused by hand": "by_hand:fused",
    NLL: "with_pythae:get_nll",
    "ours, compiled, pv.VAE": "with_pyrovae:evidence",
    "ours, compiled, hand-written pair": "with_pyrovae:evidence_of_own_pair",
    "ours, compiled, pair of torch's distributions": "with_pyrovae:evidence_of_torch_families",
    "ours, eager, pv.VAE": "with_pyrovae:evidence_eager",
    "ours, eager, evaluate with k-hat": "with_pyrovae:evaluate",
}
SIZES = {"cpu": (100, 1000), "cuda": (10_000, 5000)}  # N, K
NOTES = """\
Times and ratios: median (first to third quartile) over rounds in turns; ratios are taken round by round.
784-400-50 ReLU, Bernoulli, float32, weights as initialized and the same for all (the guides' scales, exp in some and
softplus in ours, start at 1), made-up bits for data; Pyro's validation off. "log p(x)" is the mean evidence in nats
that the last round found. The rows by hand and pythae's take the block size that was fastest for them; ours are as
they come. Compiled is what evaluate does by itself from 10,000,000 passes on (on CUDA always); that once costs the
difference of "first round after", and fewer passes run eagerly. All but the last leave out k-hat and the errors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--num-data", type=int, help="N")
    parser.add_argument("--num-particles", type=int, help="K")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--memory", type=int, nargs="*", default=[500, 5000], help="K of the peaks; none leaves it out")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="folder of the results")
    arguments = parser.parse_args()
    num_data, num_particles = SIZES[arguments.device]
    problem = Problem(
        "784-400-50", arguments.num_data or num_data, num_particles=arguments.num_particles or num_particles
    )
    common = {"device": arguments.device, "threads": arguments.threads}
    contenders = {name: (CONTENDERS[name], problem) for name in arguments.contenders}
    outcomes = alternate(contenders, rounds=arguments.rounds, **common)
    sizes = {f"K = {k}": ("with_pyrovae:peak_memory", _with(problem, k)) for k in arguments.memory}
    peaks = alternate(sizes, rounds=3, warm_up=1, **common) if sizes else {}
    print_and_write(arguments, problem, outcomes, peaks)


def _with(problem: Problem, num_particles: int) -> Problem:
    return Problem(problem.title, min(problem.num_data, 1000), num_particles=num_particles)


def print_and_write(
    arguments: argparse.Namespace, problem: Problem, outcomes: dict[str, Outcome], peaks: dict[str, Outcome]
) -> None:
    from side_by_side import pictures

    machine, versions = results.machine(arguments.device, arguments.threads), results.versions(outcomes)
    there = [name for name in (DECODER, NLL) if name in outcomes and not outcomes[name].absent]
    columns = [results.Column(f"this / {name}", name) for name in there]
    title = f"# The evidence of {problem.num_data:,} data at K = {problem.num_particles:,}"
    parts = [title, results.table(outcomes, results.PER_PASS, columns, "log p(x)"), _memory(peaks), NOTES]
    markdown = "\n\n".join([*filter(None, parts), results.account_of(machine, versions)])
    numbers = {
        "machine": machine,
        "versions": versions,
        "num_data": problem.num_data,
        "num_particles": problem.num_particles,
        "seconds per decoder pass": {name: one.to_dict() for name, one in outcomes.items()},
        "peak MB of evaluate": {name: one.absent or one.value for name, one in peaks.items()},
    }
    own = [name for name in outcomes if name.startswith("ours")]
    figure = pictures.bars(
        {f"N = {problem.num_data:,}, K = {problem.num_particles:,}": outcomes}, results.PER_PASS, own
    )
    results.write(f"evidence_{arguments.device}", markdown, numbers, figure, arguments.out)


def _memory(peaks: dict[str, Outcome]) -> str:
    found = [f"{name}: {one.absent or f'{one.value:.0f} MB'}" for name, one in peaks.items()]
    return f"The most memory of evaluate beyond what was in use before it, {'; '.join(found)}." if found else ""


if __name__ == "__main__":
    main()
