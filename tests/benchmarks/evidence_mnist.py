"""Importance sampling against annealing on a fitted MNIST VAE: 100 test digits, and 100 digits of the model's own.

    pyrovae fit --data mnist --out runs/mnist
    python tests/benchmarks/evidence_mnist.py runs/mnist --out figures

Prints the evidence in K, the annealed evidence of the same digits, the paired difference, and the width of the bounds on
simulated digits at several numbers of temperatures; draws both as figures. About 8 minutes on 2 cores.
"""

import argparse
import json
import math
import time
from pathlib import Path

import pyrovae as pv
from pyrovae.reports import figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--particles", type=int, default=100_000)
    parser.add_argument("--temperatures", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--annealed", type=int, default=1000, help="temperatures for the test digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", default="figures")
    arguments = parser.parse_args()
    loaded = pv.runs.bring_back(arguments.run, data_dir=arguments.data_dir)
    pair, digits = (loaded.fit.model, loaded.fit.guide), loaded.split("test")[: arguments.num]

    start = time.perf_counter()
    rising = pv.convergence(*pair, digits, num_particles=arguments.particles)
    print(rising, f"\n{time.perf_counter() - start:.0f} s\n", flush=True)

    start = time.perf_counter()
    annealed = pv.annealed_evidence(*pair, digits, num_temperatures=arguments.annealed)
    print(annealed, f"\n{time.perf_counter() - start:.0f} s\n", flush=True)

    print("annealed minus importance sampling at K, paired over the same digits")
    for num_particles, evidence in zip(rising.num_particles, rising.log_evidence, strict=True):
        difference = annealed.log_evidence - evidence
        se = difference.std() / math.sqrt(len(difference))
        print(f"K = {num_particles:7}: {difference.mean():8.3f}  (SE {se:.3f})")

    bounds = {}
    for num_temperatures in arguments.temperatures:
        start = time.perf_counter()
        bounds[num_temperatures] = pv.bidirectional(
            *pair, digits, num_data=arguments.num, num_temperatures=num_temperatures
        )
        print("", bounds[num_temperatures], f"{time.perf_counter() - start:.0f} s", sep="\n", flush=True)

    out = Path(arguments.out)
    figures.save(figures.convergence(rising, annealed=annealed), out / "evidence_in_k.png")
    figures.save(figures.bounds(bounds), out / "bounds.png")
    account = {"annealed": annealed.to_dict(), "bounds": {t: bound.to_dict() for t, bound in bounds.items()}}
    (out / "evidence_mnist.json").write_text(json.dumps(account, indent=1))


if __name__ == "__main__":
    main()
