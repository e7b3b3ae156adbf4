"""Guides trained alone: to the posteriors of exact programs, and to the digits of the README's fit, its model as it is.

    python tests/benchmarks/guide_only.py --out tests/benchmarks/results

Oracles: KL(q || p) before and after, exact, mean of 1,000 data. Digits: `gaps` on 100 test digits before and after, each
refit from the same weights, its best epoch by the ELBO of the validation digits. About ten minutes on one core.
"""

import argparse
import copy
import math
import sys
import time
from pathlib import Path

import torch

import pyrovae as pv
from pyrovae.training.optimizers import adam

sys.path.insert(0, str(Path(__file__).parents[1]))
from examples.learned_guides import PAIRS

OBJECTIVES = {
    "ForwardKL()": pv.objectives.ForwardKL,
    "HalfAsleep()": pv.objectives.HalfAsleep,
    "SelfConsistency()": pv.objectives.SelfConsistency,
}
REFITS = {  # objective, epochs, learning rate
    "ELBO": (pv.objectives.SampledELBO, 300, 1e-3),
    "SelfConsistency()": (pv.objectives.SelfConsistency, 300, 1e-3),
    "ForwardKL()": (pv.objectives.ForwardKL, 2500, 2e-3),
    "HalfAsleep()": (pv.objectives.HalfAsleep, 2500, 2e-3),
    "HalfAsleep(0.7)": (lambda: pv.objectives.HalfAsleep(0.7), 2500, 2e-3),
}


def cosine(fraction):
    return 0.5 * (1 + math.cos(math.pi * fraction))


def oracles():
    yield "| oracle | before | " + " | ".join(OBJECTIVES) + " |"
    yield "| --- | --- | " + " | ".join("---" for _ in OBJECTIVES) + " |"
    for name, make in PAIRS.items():
        cells = []
        for objective in OBJECTIVES.values():
            pair = make()
            x, _ = pair.oracle.draw(1000, seed=0)
            before = pair.kl(x).mean()
            settings = {"optimizer": adam(0.2), "schedule": cosine, "epochs": 500, "batch_size": 1000}
            pv.fit(pair.oracle.model, pair.learned.guide, x, only="guide", objective=objective(), **settings)
            cells.append(f"{abs(pair.kl(x).mean()):.6f}")
        yield f"| {name} | {before:.3f} | " + " | ".join(cells) + " |"


def readme():
    """The VAE of the README, fitted as there."""
    digits = pv.data.load("digits")
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(8),
        decoder=pv.Conditional(pv.families.binomial(16), digits.shape, pv.networks.mlp(8, 200, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), (8,), pv.networks.mlp(digits.shape, 200, seed=1)),
    )
    pv.fit(vae.model, vae.guide, digits.train, epochs=100, seed=1)
    return digits, vae


def refitted(digits, vae, objective, epochs, rate):
    """A copy of a VAE with its encoder trained on, the fit, and whether its model is bit-equal."""
    other = copy.deepcopy(vae)
    settings = {"optimizer": adam(rate), "schedule": cosine, "epochs": epochs, "patience": epochs, "seed": 1}
    fitted = pv.fit(
        other.model, other.guide, digits.train, valid=digits.valid, only="guide", objective=objective(), **settings
    )
    before, after = vae.state_dict(), other.state_dict()
    return other, fitted, all(torch.equal(before[name], after[name]) or name.startswith("encoder.") for name in before)


def row(name, vae, digits, num, about):
    gaps = pv.gaps(vae.model, vae.guide, digits.test[:num], families=["own"])
    gap, se = gaps.amortization, gaps.mc_se_amortization.square().sum().sqrt() / num
    columns = [gaps.elbo["guide"].mean(), gaps.elbo["own"].mean(), gaps.log_evidence.mean()]
    return f"| {name} | {about} | {gap.mean():.3f} ({se:.3f}) | " + " | ".join(f"{one:.3f}" for one in columns) + " |"


def on_digits(num, only):
    digits, vae = readme()
    head = ["refit", "epochs, best, rate, seconds, model bit-equal", "amortization gap (MC SE)", "ELBO, test"]
    yield "| " + " | ".join([*head, "best of the family", "log p(x)"]) + " |"
    yield "| --- | --- | --- | --- | --- | --- |"
    yield row("none", vae, digits, num, "100")
    for name in only or REFITS:
        objective, epochs, rate = REFITS[name]
        start = time.perf_counter()
        other, fitted, same = refitted(digits, vae, objective, epochs, rate)
        seconds = time.perf_counter() - start
        yield row(name, other, digits, num, f"{epochs}, {fitted.best_epoch}, {rate:g}, {seconds:.0f}, {same}")


def report(num, only):
    yield "# Guides trained alone"
    yield ""
    yield '`fit(only="guide")`; nats per datum. `python tests/benchmarks/guide_only.py`'
    yield ""
    yield "Exact KL(q || p), mean of 1,000 data, after 500 steps of Adam (0.2, cosine) from a guide that knows nothing."
    yield ""
    yield from oracles()
    yield ""
    yield f"The README's fit of the digits (100 epochs), its encoder trained on; `gaps` on {num} test digits."
    yield ""
    yield from on_digits(num, only)
    yield ""
    yield f"Python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=100, help="test digits")
    parser.add_argument("--refits", nargs="*", choices=REFITS, help="[all]")
    parser.add_argument("--out", help="folder for guide_only.md")
    arguments = parser.parse_args()
    lines = []
    for line in report(arguments.num, arguments.refits):
        print(line, flush=True)
        lines.append(line)
    if arguments.out:
        Path(arguments.out, "guide_only.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
