"""Signal and noise of the guide's gradients over K: of IWAE, DReG and sticking the landing, on a linear-Gaussian oracle.

    python tests/benchmarks/gradient_snr.py

Writes gradient_snr.json and .png.

The model is ``pv.oracles.ppca``, the guide a factorised normal of known error. Each row of a batch is the same datum with
parameters of its own, so that one backward pass gives as many estimates as rows; the signal-to-noise ratio of a parameter
is |mean| / sd of these, and what is written is its mean over the coordinates of one datum. An estimate of R rows cannot tell
a ratio from zero below about 1 / sqrt(R), which is written too. Rainforth et al. (2018): that of IWAE falls as
1 / sqrt(K), that of the guide in DReG (Tucker et al. 2019) rises as sqrt(K), as does that of any mean of K draws.
About two minutes on one core.
"""

import argparse
import json
import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.pairs.context import own_scope
from pyrovae.reports import figures
from pyrovae.reports.figures.style import HUES, QUIET, new_figure, styled

ESTIMATORS = {
    "IWAE": pv.objectives.IWAE,
    "DReG": pv.objectives.DReG,
    "StickingTheLanding": pv.objectives.StickingTheLanding,
}
SCALE, SHIFT = 1.3, 0.5  # of the guide: by so many posterior standard deviations


def guide_of(oracle):
    """A factorised normal with a mean and a log scale for each row."""

    def guide(x):
        posterior = oracle.posterior(x)
        loc = pyro.param("loc", lambda: posterior.mean + SHIFT * posterior.stddev)
        log_scale = pyro.param("log_scale", lambda: (SCALE * posterior.stddev).log())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return guide


def gradients(objective, oracle, x, seed):
    """Of the bound, by each parameter: name -> (rows, latents), an estimate in each row."""
    guide = guide_of(oracle)
    with own_scope(oracle.model, guide, fresh=True):
        objective.prepare(oracle.model, guide, x)
        torch.manual_seed(seed)
        loss = objective.differentiable_loss(oracle.model, guide, x)
        named = {name: p for name, p in pyro.get_param_store().named_parameters() if name in ("loc", "log_scale")}
        return dict(zip(named, torch.autograd.grad(-loss, list(named.values())), strict=True))


def signal_to_noise(estimator, num_particles, oracle, x, batches):
    """Parameter -> the mean of |mean| / sd over its coordinates."""
    found = [gradients(estimator(num_particles), oracle, x, seed) for seed in range(batches)]
    joined = {name: torch.cat([each[name] for each in found]) for name in found[0]}
    return {name: (g.mean(0) / g.std(0)).abs().mean().item() for name, g in joined.items()}


def slope(num_particles, ratios, least):
    """Of log ratio on log K, by least squares over K of at least 4 whose ratio is well told from zero; or None."""
    points = [(k, ratio) for k, ratio in zip(num_particles, ratios, strict=True) if k >= 4 and ratio > least]
    if len(points) < 2:
        return None
    log_k, log_r = (torch.tensor([math.log(p[i]) for p in points]).double() for i in (0, 1))
    return (((log_k - log_k.mean()) * (log_r - log_r.mean())).sum() / (log_k - log_k.mean()).square().sum()).item()


def measured(num_particles, features, latents, rows, batches):
    oracle = pv.oracles.ppca(features, latents)
    datum, _ = oracle.draw(1, seed=0)
    x = datum.expand(rows, -1).contiguous()
    results, least = {}, 4 / math.sqrt(rows * batches)
    for name, estimator in ESTIMATORS.items():
        each = [signal_to_noise(estimator, k, oracle, x, batches) for k in num_particles]
        results[name] = {which: [one[which] for one in each] for which in ("loc", "log_scale")}
        results[name] |= {
            f"slope_{which}": slope(num_particles, results[name][which], least) for which in ("loc", "log_scale")
        }
        for which in ("loc", "log_scale"):
            print(f"{name:20s} {which:10s}", " ".join(f"{ratio:8.4f}" for ratio in results[name][which]), flush=True)
    return results


@styled
def drawn(results):
    """The ratios over K, a line for each estimator, of the guide's means (left) and of its log scales (right)."""
    figure, axes = new_figure(8.2, 3.4, columns=2)
    labels = {"loc": "means of the guide", "log_scale": "log scales of the guide"}
    for one, (which, label) in zip(axes, labels.items(), strict=True):
        for color, (name, found) in zip(HUES, results["signal_to_noise"].items(), strict=False):
            slope = found[f"slope_{which}"]
            told = name if slope is None else f"{name}: K to the {slope:.2f}"
            one.plot(results["num_particles"], found[which], "o-", color=color, label=told)
        one.axhline(results["not_told_from_zero_below"], color=QUIET, linestyle="--", linewidth=0.8)
        one.set(xscale="log", yscale="log", xlabel="particles K", ylabel="signal to noise of the gradient", title=label)
        one.legend(loc="center right")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--features", type=int, default=5)
    parser.add_argument("--latents", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("tests/benchmarks/results"))
    given = parser.parse_args()
    sizes = {"features": given.features, "latents": given.latents}
    results = {
        "oracle": {"name": "ppca", **sizes, "guide_scale": SCALE, "guide_shift": SHIFT},
        "num_particles": given.particles,
        "num_estimates": given.rows * given.batches,
        "not_told_from_zero_below": 1 / math.sqrt(given.rows * given.batches),
        "torch": torch.__version__,
        "signal_to_noise": measured(given.particles, **sizes, rows=given.rows, batches=given.batches),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gradient_snr.json").write_text(json.dumps(results, indent=1) + "\n")
    figures.save(drawn(results), given.out / "gradient_snr.png")


if __name__ == "__main__":
    main()
