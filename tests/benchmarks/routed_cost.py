"""What routed evidence costs over plain importance sampling, K = 1,000: CPU seconds of one thread, by turns.

    pyrovae demo --out runs/demo
    python tests/benchmarks/routed_cost.py runs/demo/vae runs/demo/vae-mixture-prior    # about a minute

As the demonstration evaluates: all test data, no data by more than 20,000 decoder passes. The first round is not counted.
"""

import argparse
import statistics
import time
import warnings

import torch

import pyrovae as pv
from pyrovae.apps.demo import BUDGET

METHODS = {"importance": {}, "auto": {"budget": BUDGET}}


def measured(run, rounds, num_particles):
    """The last report of each method, and its seconds in each round."""
    pair, test = (run.fit.model, run.fit.guide), run.split("test")
    reports, seconds = {}, {method: [] for method in METHODS}
    for _ in range(rounds + 1):
        for method, settings in METHODS.items():
            start = time.process_time()
            settings = {"num_particles": num_particles, "compile": False, "progress": False, **settings}
            reports[method] = pv.evaluate(*pair, test, method=method, **settings)
            seconds[method].append(time.process_time() - start)
    return reports, {method: each[1:] for method, each in seconds.items()}


def row(name, run, given):
    reports, seconds = measured(run, given.rounds, given.particles)
    routed = reports["auto"]
    evidence = routed.numbers()["log_evidence"]
    ratios = sorted(a / b for a, b in zip(seconds["auto"], seconds["importance"], strict=True))
    cells = [f"{evidence['mean']:.3f} ({evidence['mc_se']:.4f})", f"{routed.fraction_unreliable:.1%}"]
    cells += [f"{routed.cost.mean():,.0f}", *(f"{statistics.median(each):.2f}" for each in seconds.values())]
    cells += [f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
    return "| " + " | ".join([name, *cells]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--particles", type=int, default=1000, help="K")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    head = ["run", "log p(x) (MC SE)", "unreliable", "decoder passes", "s, importance", "s, auto", "auto / importance"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for name in given.runs:
        print(row(name, pv.runs.bring_back(name), given), flush=True)


if __name__ == "__main__":
    main()
