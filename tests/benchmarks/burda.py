"""The protocol of Burda et al. (2016) on MNIST: 3,280 epochs in 8 stages, test log p(x) at K = 5000.

    PYROVAE_DATA=/data python tests/benchmarks/burda.py --particles 1  --batch-size 20 --minutes 9
    PYROVAE_DATA=/data python tests/benchmarks/burda.py --particles 50 --batch-size 20 --minutes 9

784-200-200-50, tanh; Adam with epsilon 1e-4, stage i of 0..7 with learning rate 10^(-3 - i/7) for 3^i epochs; bits drawn
anew at each use; initialized as theirs (Glorot and Bengio's weights, and the log odds of the mean image behind the
decoder). --particles 1 is the VAE (ELBO), 50 the IWAE. --minutes ends a command in time: the same command again goes on
from there, and once the fit is whole it evaluates and writes tests/benchmarks/results/burda_vae_1.json (burda_iwae_50),
fit and evaluation timed apart. --epochs-scale 0.01 tries it all out. Theirs: 86.76 nats (VAE), 84.78 (IWAE, K = 50).
A larger batch than 20 takes fewer steps; --learning-rate then scales with its root, say. Their 60,000 training images
are ours with the 10,000 that validate; --without-valid trains on 50,000.
"""

import argparse
import hashlib
import json
import math
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from side_by_side import results
from torch import nn

import pyrovae as pv
from pyrovae.data.encoding import Column
from pyrovae.data.split import Split

STAGES, EPOCHS = 8, 3280
UNTOLD = ("out", "data_dir", "run", "minutes")  # of the arguments: where files lie, and in how many commands
CHOICES: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}


def stage(share: float) -> int:
    """0..7, after this share of all epochs: stage i ends with (3^(i+1) - 1) / 2 of 3,280 epochs."""
    ends = [(3 ** (i + 1) - 1) / 2 / EPOCHS for i in range(STAGES)]
    return sum(share >= end - 1e-9 for end in ends)


def schedule(share: float) -> float:
    """Factor on the learning rate."""
    return 10 ** (-stage(share) / (STAGES - 1))


def programs(mean_image: torch.Tensor, seed: int) -> pv.VAE:
    tanh = {"activation": nn.Tanh, "seed": seed}
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(50),
        decoder=pv.Conditional(pv.families.bernoulli(), (28, 28), pv.networks.mlp(50, 200, 200, **tanh)),
        encoder=pv.Conditional(pv.families.normal(), 50, pv.networks.mlp((28, 28), 200, 200, **tanh)),
    )
    torch.manual_seed(seed)
    linear = [layer for layer in vae.modules() if isinstance(layer, nn.Linear)]
    for layer in linear:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    last = next(layer for layer in linear if layer.out_features == 784)
    last.bias.data.copy_(mean_image.flatten().clamp(0.001, 0.999).logit())
    return vae


def training_rows(dataset: Any, *, with_valid: bool) -> Split:
    """The training images as probabilities, drawn anew at each use; with those that validate, their 60,000."""
    if not with_valid:
        return dataset.train
    source = torch.cat([dataset.train.source, dataset.valid.source])
    sha256 = hashlib.sha256(source.numpy().tobytes()).hexdigest()
    named = {"dataset": "mnist, train and valid", "num_data": len(source)}
    protocol = replace(dataset.train.protocol, **named, sha256=sha256, source_sha256=sha256)
    return Split((Column(source, torch.float32, 255.0),), protocol, source=source)


def fitted(arguments: argparse.Namespace, vae: pv.VAE, train: Split, folder: Path) -> pv.Fit:
    """All epochs, or as many as the minutes allow; what was fitted lies in the folder."""
    until = time.monotonic() + 60 * arguments.minutes

    def stop_in_time(epoch: int, so_far: pv.Fit) -> None:
        if time.monotonic() > until:
            signal.raise_signal(signal.SIGINT)  # fit then keeps what there is and returns

    return pv.fit(
        vae.model,
        vae.guide,
        train,
        objective=None if arguments.particles == 1 else pv.objectives.IWAE(arguments.particles),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=arguments.learning_rate, eps=1e-4, fused=True),
        schedule=schedule,
        epochs=max(STAGES, round(EPOCHS * arguments.epochs_scale)),
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        device=arguments.device,
        out=folder,
        resume=True,
        callback=stop_in_time,
        compile=CHOICES[arguments.compile],
    )


def account(arguments: argparse.Namespace, fit: pv.Fit, train: Split, report: pv.Report, seconds: float) -> dict:
    """Everything that is kept, as plain values: at most a row of the history for each stage."""
    last = {stage((row["epoch"] - 1) / len(fit.history)): row for row in fit.history}
    spent = sum(row["seconds"] for row in fit.history)
    steps = len(fit.history) * math.ceil(len(train) / arguments.batch_size)
    return {
        "machine": results.machine("cuda" if fit.settings["device"].startswith("cuda") else "cpu"),
        "versions": {"torch": torch.__version__},
        "arguments": {name: value for name, value in vars(arguments).items() if name not in UNTOLD},
        "settings": fit.settings,
        "epochs": len(fit.history),
        "steps": steps,
        "fit_seconds": spent,
        "microseconds_per_step": 1e6 * spent / steps,
        "evaluation_seconds": seconds,
        "last_epoch_of_each_stage": list(last.values()),
        "report": report.to_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=1, help="1: the VAE; more: the IWAE")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs-scale", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of fitting, after which the command ends")
    parser.add_argument("--test-particles", type=int, default=5000)
    parser.add_argument("--without-valid", action="store_true")
    parser.add_argument("--compile", default="auto", choices=list(CHOICES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir")
    parser.add_argument("--run", help="folder of the fit; runs/burda_... is the default")
    parser.add_argument("--out", help="folder of the report")
    arguments = parser.parse_args()
    dataset = pv.data.load("mnist", binarization="dynamic", data_dir=arguments.data_dir)
    train = training_rows(dataset, with_valid=not arguments.without_valid)
    name = f"burda_{'vae' if arguments.particles == 1 else 'iwae'}_{arguments.particles}"
    folder = Path(arguments.run or f"runs/{name}_batch_{arguments.batch_size}")
    fit = fitted(arguments, programs(train.x.mean(0), arguments.seed), train, folder)
    print(f"{len(fit.history)} epochs in {sum(row['seconds'] for row in fit.history):.1f} s: {fit}", flush=True)
    if fit.interrupted:
        print(f"not done yet: the same command goes on from {folder}")
        return
    started = time.perf_counter()
    report = pv.evaluate(
        fit.model, fit.guide, dataset.test, num_particles=arguments.test_particles, method="importance"
    )
    numbers = account(arguments, fit, train, report, time.perf_counter() - started)
    path = Path(arguments.out or results.FOLDER_OF_RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results.rounded(numbers), indent=1) + "\n")
    print(
        f"{report}\n\nfit {numbers['fit_seconds']:.1f} s, {numbers['microseconds_per_step']:.1f} µs per step; ", end=""
    )
    print(f"evaluation {numbers['evaluation_seconds']:.1f} s; written to {path}")


if __name__ == "__main__":
    main()
