"""Missing pixels of MNIST's test digits: nats of the truth given what is seen, and two ways of drawing what is not.

    pyrovae fit --data mnist --out runs/mnist
    python tests/benchmarks/missing_pixels.py runs/mnist --num 100    # --num 40: four minutes on one core

Joint: log p(x_m | x_o) = log p(x) - log p(x_o), both by routed evidence, over the number of missing pixels. Pixel by
pixel: mean of log p(x_j | x_o) over missing pixels j, of the mean of p(x_j = 1 | z_l) over L draws of p(z | x_o), by
resampling from routed proposals and by chains of Metropolis-within-Gibbs, which no weight enters; and of two that know
no latents: the rate of each pixel in the training set, and one rate of all. Errors are over data; the two ways of
drawing are compared datum by datum.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from evidence_mnist import timed
from published_priors import told

import pyrovae as pv
from pyrovae.base.errors import UntrustedPosterior

MASKS = ("lower-half", "quadrant", "random:0.5")
HEAD = (
    "hidden", "pixels", "joint", "MC SE", "pixel by pixel, resampled", "by chains", "difference", "rate of each pixel",
    "one rate", "unreliable", "routes of log p(x_o)", "R-hat above 1.05", "seconds",
)  # fmt: skip


def marginal(x, rate, hidden):
    """Mean over a datum's hidden pixels of the log mass of each by itself, (N,)."""
    log_mass = torch.where(x > 0.5, rate.double(), 1 - rate.double()).clamp_min(1e-12).log()
    return torch.where(hidden, log_mass, 0.0).flatten(1).sum(1) / hidden.flatten(1).sum(1)


def completed(fit, x, observed, given, **how):
    """Draws of what is hidden, and their seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustedPosterior)  # the table says it
        return timed(
            lambda: pv.conditional(fit.model, fit.guide, x, observed, num_draws=given.draws, progress=False, **how)
        )


def row(name, fit, x, train, given):
    """Of one mask."""
    observed = ~pv.operators.named(name, tuple(x.shape[1:])).apply(x, seed=0).isnan()
    hidden = ~observed
    resampled, seconds = completed(fit, x, observed, given)
    chains, more = completed(fit, x, observed, given, method="gibbs", num_warmup=given.warmup)
    by = [marginal(x, one.mean, hidden) for one in (resampled, chains)]
    others = [marginal(x, rate.expand_as(x), hidden) for rate in (train.mean(0), train.mean())]
    density = resampled.density
    entries = density.numbers()["nats_per_entry"]
    routes = {route: of["num_data"] for route, of in density.numbers()["routes"]["given"].items() if of["num_data"]}
    cells = [name, f"{hidden.flatten(1).sum(1).double().mean():.0f}"]
    cells += [told(density.log_density / density.num_entries, 4), f"{entries['mc_se']:.5f}"]
    cells += [told(each, 4) for each in (*by, by[0] - by[1], *others)]
    cells += [f"{density.fraction_unreliable:.1%}", ", ".join(f"{route} {count:,}" for route, count in routes.items())]
    cells += [f"{(chains.mixing.rhat > 1.05).double().mean():.1%}", f"{seconds:.0f}, {more:.0f}"]
    stem = name.partition(":")[0]
    pv.figures.save(pv.figures.completions(resampled, num=6), given.out / f"missing_pixels_{stem}.png")
    return cells


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", type=Path)
    p.add_argument("--num", type=int, default=100)
    p.add_argument("--draws", type=int, default=400)
    p.add_argument("--warmup", type=int, default=200)
    p.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = p.parse_args()
    fit, data = pv.runs.load(given.run), pv.runs.dataset(given.run)
    x = data.test.drawn(0).tensors[0][: given.num]
    train = data.train.drawn(0).tensors[0]
    lines = ["| " + " | ".join(HEAD) + " |", "| --- |" + " ---: |" * (len(HEAD) - 1)]
    for name in MASKS:
        lines.append("| " + " | ".join(row(name, fit, x, train, given)) + " |")
        print(lines[-1], flush=True)
    about = (
        f"The first {given.num} test digits of {data.name}, binarized once; nats per hidden pixel, over data (SE). "
        f"`python tests/benchmarks/missing_pixels.py RUN --num {given.num} --draws {given.draws} --warmup {given.warmup}`; "
        "seconds: both evidences and draws, then chains."
    )
    version = f"Python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads."
    text = "\n".join(["# Missing pixels", "", about, "", *lines, "", version])
    (given.out / "missing_pixels.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
