"""How often calibrate() at its defaults rejects guides of known error: python tests/benchmarks/calibration.py [200].

The share that a guide passes has a standard error of at most 1.5% over 200 repetitions at 95%.
"""

import sys
import time

import pyrovae as pv
from pyrovae.diagnostics.calibration import calibrate

ORACLES = {"D = 6, Z = 2": pv.oracles.ppca(6, 2), "D = 20, Z = 3": pv.oracles.ppca(20, 3)}
SCALES = (1.0, 0.7, 1.4)


def main(num_repetitions: int) -> None:
    print(f"{'oracle':15}{'scale':>6}{'guide passes':>14}{'resampled passes':>18}{'seconds each':>14}")
    for name, oracle in ORACLES.items():
        template, _ = oracle.draw(1, seed=0)
        for scale in SCALES:
            guide, start = pv.widened(oracle.guide, scale), time.perf_counter()
            found = [calibrate(oracle.model, guide, template, seed=seed) for seed in range(num_repetitions)]
            passes = [sum(getattr(one, kind).passed for one in found) for kind in ("guide", "resampled")]
            seconds = (time.perf_counter() - start) / num_repetitions
            shares = [f"{100 * number / num_repetitions:.1f}%" for number in passes]
            print(f"{name:15}{scale:6.1f}{shares[0]:>14}{shares[1]:>18}{seconds:14.2f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
