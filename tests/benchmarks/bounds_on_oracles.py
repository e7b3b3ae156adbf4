"""Bounds from both sides on every continuous oracle, against its exact log p(x): a table, and widths by temperatures.

    python tests/benchmarks/bounds_on_oracles.py --out figures

100 simulated data of each oracle, 16 chains, 3 leapfrog steps, from the prior and from a guide 1.3 times too wide and 0.3
standard deviations off. About three minutes on one core.
"""

import argparse
import math
from pathlib import Path

import pyrovae as pv
from pyrovae.reports import figures

TEMPERATURES = (10, 30, 100, 300)


def cell(values):
    return f"{values.mean():8.3f} (SE {values.std() / math.sqrt(len(values)):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="figures")
    arguments = parser.parse_args()
    print(f"{'oracle':18}{'start':8}{'T':>5}{'lower - exact':>24}{'upper - exact':>24}")
    for name, build in pv.oracles.EXAMPLES.items():
        oracle = build()
        x, _ = oracle.draw(2, seed=0)
        if "mixture" in name and name != "mixture prior":
            continue  # discrete latents do not anneal
        for start in (pv.from_guide, pv.from_prior):
            pair = (oracle.model, pv.widened(oracle.guide, 1.3, shift=0.3))
            settings = {"num_leapfrog": 3, "num_particles": 10, "start": start, "seed": 1}
            bounds = {t: pv.bidirectional(*pair, x, num_temperatures=t, **settings) for t in TEMPERATURES}
            exact = oracle.log_evidence(bounds[10].data[0])
            for t in TEMPERATURES:
                line = f"{name:18}{bounds[t].start:8}{t:5}{cell(bounds[t].lower - exact):>24}"
                print(line + f"{cell(bounds[t].upper - exact):>24}", flush=True)
            path = Path(arguments.out) / f"bounds_{name.replace(' ', '_')}_{bounds[10].start}.png"
            figures.save(figures.bounds(bounds, exact=exact), path)


if __name__ == "__main__":
    main()
