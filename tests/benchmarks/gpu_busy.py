"""How much of a training step the GPU is busy: python tests/benchmarks/gpu_busy.py [--batch-size 20].

One epoch of the compiled fit of the 784-400-50 VAE under torch's profiler. Busy is the time during which some kernel or
copy runs, over the time from the first to the last of them; what the profiler itself costs counts as idle.
"""

import argparse

import torch
from side_by_side import by_hand, with_pyrovae
from side_by_side.problems import Problem
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import pyrovae as pv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    problem = Problem("784-400-50", arguments.steps * arguments.batch_size, arguments.batch_size)
    vae, data = with_pyrovae.built_in(problem), by_hand.resident(problem, "cuda")
    profiler = profile(activities=[ProfilerActivity.CUDA])

    def around_the_last(epoch: int, so_far: pv.Fit) -> None:
        if epoch == 4:
            torch.cuda.synchronize()
            profiler.start()
        if epoch == 5:
            torch.cuda.synchronize()
            profiler.stop()

    options = {"epochs": 5, "batch_size": problem.batch_size, "device": "cuda", "progress": False}
    fit = pv.fit(vae.model, vae.guide, data, compile=True, callback=around_the_last, **options)
    busy, span, number = union(profiler)
    print(f"batch {problem.batch_size}: {1e6 * fit.history[3]['seconds'] / problem.steps:.1f} µs per step unprofiled")
    print(f"profiled: {span / problem.steps:.1f} µs per step in {number / problem.steps:.1f} kernels and copies,")
    print(f"the GPU busy for {busy / span:.1%} of it")


def union(profiler: profile) -> tuple[float, float, int]:
    """(microseconds in which something ran, from the first to the last, how many ran)."""
    ranges = [
        (one.time_range.start, one.time_range.end) for one in profiler.events() if one.device_type == DeviceType.CUDA
    ]
    busy, reached = 0.0, 0.0
    for start, end in sorted(ranges):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy, reached - min(ranges)[0], len(ranges)


if __name__ == "__main__":
    main()
