"""Several seeds of one model in one compiled step, against as many compiled steps in turns.

    python tests/benchmarks/stacked_seeds.py --out tests/benchmarks/results     # about five minutes on one core

A VAE written by hand, its step (loss, gradients, Adam) traced and compiled as a fit of this package does it: once for
the parameters of one seed, and once under ``torch.func.vmap`` for those of all seeds, stacked. Each seed has batches
and noise of its own, which both ways are given, so that both do the same work: they take the same steps to rounding.
Rounds of the two alternate; their ratio is taken round by round, by the CPU time of the process.

Small products gain, as a step then costs its calls; from some hundred units on there is nothing to gain, and what is
saved in a whole fit is less than what compiling takes. So a sweep fits one seed after the other, and compiles once
for all of them.
"""

import argparse
import math
import time
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import torch
from side_by_side import results
from torch.func import grad_and_value, vmap

from pyrovae.pairs.graphs.graph import trace

STEPS = 40  # of a round
NOTES = """\
A step of all {seeds} seeds: median of {rounds} rounds of {steps} steps in turns, CPU time, one thread; ratios round by
round, with quartiles. Apart: of any parameter at most. Adam's first step moves each by 0.002 along the sign of its
gradient, which rounding decides where that is next to zero."""


class Problem(NamedTuple):
    """A VAE of counts up to 16."""

    values: int
    hidden: int
    latent: int
    batch_size: int

    @property
    def title(self):
        return f"{self.values}-{self.hidden}-{self.latent}, batch {self.batch_size}"

    def shapes(self):
        widths = [(self.values, self.hidden), (self.hidden, 2 * self.latent)]
        widths += [(self.latent, self.hidden), (self.hidden, self.values)]
        return [shape for inside, outside in widths for shape in ((outside, inside), (outside,))]


PROBLEMS = [
    Problem(11, 50, 5, 64),
    Problem(64, 50, 8, 64),
    Problem(64, 200, 16, 64),
    Problem(64, 200, 16, 128),
    Problem(784, 400, 50, 128),
]


def loss(parameters, x, noise):
    """Minus the ELBO of a binomial VAE, up to a constant, averaged over the batch."""
    w1, b1, w2, b2, w3, b3, w4, b4 = parameters
    linear = torch.nn.functional.linear
    loc, raw = linear(linear(x, w1, b1).relu(), w2, b2).chunk(2, -1)
    scale = torch.nn.functional.softplus(raw) + 1e-4
    z = loc + scale * noise
    logits = linear(linear(z, w3, b3).relu(), w4, b4)
    reconstruction = (x * logits - 16 * torch.nn.functional.softplus(logits)).sum(-1)
    kl = ((z.square() - noise.square()) / 2 - scale.log()).sum(-1)
    return (kl - reconstruction).mean()


class Step:
    """One step of Adam, of one seed or of all: parameters (..., *shape), data (..., B, D), noise (..., B, Z)."""

    def __init__(self, parameters, stacked):
        self.parameters = [parameter.clone() for parameter in parameters]
        self.first, self.second = ([torch.zeros_like(each) for each in parameters] for _ in range(2))
        self.time, self.total = torch.zeros(()), torch.zeros(())
        self.function = grad_and_value(loss)
        if stacked:
            self.function = vmap(self.function)

    def __call__(self, x, noise):
        gradients, value = self.function(self.parameters, x, noise)
        self.time.add_(1)
        corrections = [1 - beta**self.time for beta in (0.9, 0.999)]
        slots = zip(self.parameters, gradients, self.first, self.second, strict=True)
        for parameter, gradient, first, second in slots:
            first.lerp_(gradient, 0.1)
            second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            parameter.sub_(2e-3 * (first / corrections[0]) / ((second / corrections[1]).sqrt() + 1e-8))
        self.total.add_(value.sum())
        return ()


def starts(problem, seeds):
    """The parameters of each seed, data and the noise of its steps."""
    found = []
    for seed in range(seeds):
        noise = torch.Generator().manual_seed(seed)
        parameters = [torch.randn(shape, generator=noise) / math.sqrt(shape[-1]) for shape in problem.shapes()]
        data = torch.randint(0, 17, (4, problem.batch_size, problem.values), generator=noise).float()
        found.append((parameters, data, torch.randn(4, problem.batch_size, problem.latent, generator=noise)))
    return found


def measured(problem, seeds, rounds):
    """Seconds of a step of all seeds: in turns, stacked; and by how much a first step of them differs, and moves."""
    begun = starts(problem, seeds)
    data, noise = (torch.stack([each[place] for each in begun]) for place in (1, 2))  # (S, 4, B, ...)
    singles = [Step(parameters, stacked=False) for parameters, _, _ in begun]
    together = Step([torch.stack(each) for each in zip(*(one[0] for one in begun), strict=True)], stacked=True)
    held = [[t.clone() for t in (*one.parameters, *one.first, *one.second)] for one in (*singles, together)]
    in_turns = [trace(one, data[i, 0], noise[i, 0]).compiled(data[i, 0], noise[i, 0]) for i, one in enumerate(singles)]
    stacked = trace(together, data[:, 0], noise[:, 0]).compiled(data[:, 0], noise[:, 0])
    for one, before in zip((*singles, together), held, strict=True):  # tracing took a step
        for tensor, value in zip((*one.parameters, *one.first, *one.second), before, strict=True):
            tensor.copy_(value)
        one.time.zero_()

    def turns(k):
        for seed, step in enumerate(in_turns):
            step(data[seed, k], noise[seed, k])

    def at_once(k):
        stacked(data[:, k], noise[:, k])

    turns(0), at_once(0)
    pairs = zip(zip(*(one.parameters for one in singles), strict=True), together.parameters, strict=True)
    apart = max(float((torch.stack(each) - one).abs().max()) for each, one in pairs)
    moved = max(float((one - before).abs().max()) for one, before in zip(together.parameters, held[-1], strict=False))
    assert moved > 1e-3  # Adam's first step is the learning rate
    seconds = {turns: [], at_once: []}
    for number in range(rounds + 1):
        for way, found in seconds.items():
            before = time.process_time()
            for k in range(STEPS):
                way(k % 4)
            if number:  # the first warms up
                found.append((time.process_time() - before) / STEPS)
    return (*seconds.values(), apart)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="folder of the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"# {given.seeds} seeds of one model in one compiled step", ""]
    lines += ["| VAE | in turns, ms | stacked, ms | in turns / stacked | a first step apart |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for problem in PROBLEMS:
        turns, stacked, apart = measured(problem, given.seeds, given.rounds)
        ratios = [a / b for a, b in zip(turns, stacked, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        times = " | ".join(f"{1e3 * median(each):.3f}" for each in (turns, stacked))
        lines += [f"| {problem.title} | {times} | {median(ratios):.2f} ({low:.2f} to {high:.2f}) | {apart:.1e} |"]
        print(lines[-1], flush=True)
    lines += ["", *NOTES.format(seeds=given.seeds, rounds=given.rounds, steps=STEPS).splitlines()]
    lines += ["", results.account_of(results.machine("cpu", 1), {"torch": torch.__version__})]
    text = "\n".join(lines) + "\n"
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "stacked_seeds.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
