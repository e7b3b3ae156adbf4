"""What bfloat16 networks do to the evidence of a fitted MNIST VAE: the same weights, digits and draws in both precisions.

    pyrovae fit --data mnist --out runs/mnist
    python tests/benchmarks/precision.py runs/mnist          # about 3 minutes on 2 cores

Prints the mean log p(x) in float32 and in bfloat16, and their paired difference. A second run that was fitted with
--precision bfloat16 may follow: its evidence, in float32, is compared datum by datum with that of the first.
"""

import argparse
import math

import pyrovae as pv


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    first = evidence(arguments, arguments.runs[0], "float32")
    compare("the same weights in bfloat16", evidence(arguments, arguments.runs[0], "bfloat16"), first)
    for run in arguments.runs[1:]:
        compare(f"{run}, in float32", evidence(arguments, run, "float32"), first)


def evidence(arguments, run, precision):
    loaded = pv.runs.bring_back(run, data_dir=arguments.data_dir)
    pair = (pv.in_precision(program, precision) for program in (loaded.fit.model, loaded.fit.guide))
    digits = loaded.split("test")[: arguments.num]
    report = pv.evaluate(*pair, digits, num_particles=arguments.particles, method="importance")
    print(f"{run}, {precision}: log p(x) {report.log_evidence.mean():.4f}", flush=True)
    return report.log_evidence


def compare(what, found, first):
    difference = found - first
    se = difference.std() / math.sqrt(len(difference))
    print(f"{what}, less the first in float32: {difference.mean():.4f} (SE {se:.4f} over {len(difference)} data)")


if __name__ == "__main__":
    main()
