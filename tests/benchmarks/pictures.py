"""Nats of the truth given what was observed of it: a VAE's exact conditionals, independent pixels, and a regressor.

    python tests/benchmarks/pictures.py --num 50

Writes pictures.md, pictures.json, and a figure of each task, pictures_<task>.png.

Data are the digits, (count + uniform noise) / 17, so that densities are honest ones; and for colorization the
``colour-digits``, which are made of them. One VAE of each, 16 latents, 200 hidden units, a normal likelihood with one
learned scale a pixel, 150 epochs; ``restore`` conditions it on each task, nothing is fitted to a task. The encoder is
given a guess of x from y, and the evidence repairs the rest. Independent pixels are normals with the mean and sd of the
training rows, conditioned by the same operators. The regressor is fitted to each task: y -> 200 -> 16 -> 200 -> x, tanh,
Adam, 150 epochs, best weights on the validation rows; its error is normal with a learned sd a pixel, and where y is
exact it is conditioned on y as the others are. Nats are per number of x that y leaves open; larger is better.
About ten minutes on one core.
"""

import argparse
import itertools
import json
import warnings
from pathlib import Path

import pyro.distributions as dist
import torch
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import UntrustedPosterior

TASKS = {
    "digits": (
        "lower-half",
        "quadrant",
        "random:0.5",
        "centre",
        "coarse:2",
        "coarse:4",
        "blur:1,0.05",
        "salt-and-pepper:0.2,0,1",
    ),
    "colour-digits": ("grey", "lower-half"),
}
EPOCHS, HIDDEN, LATENT = 150, 200, 16


def dequantized(data, seed):
    noise = torch.Generator().manual_seed(seed)
    return [(part.x + torch.rand(part.x.shape, generator=noise)) / 17 for part in (data.train, data.valid, data.test)]


def adam(parameters):
    return torch.optim.Adam(parameters, lr=2e-3)


def fitted_vae(train, valid, shape):
    scale = pv.families.learned(torch.full(shape, 0.2))
    vae = pv.VAE(
        pv.priors.StandardNormal(LATENT),
        pv.Conditional(pv.families.normal(scale=scale), shape, pv.networks.mlp(LATENT, HIDDEN, seed=0)),
        pv.Conditional(pv.families.normal(), (LATENT,), pv.networks.mlp(shape, HIDDEN, seed=1)),
    )
    how = {"epochs": EPOCHS, "batch_size": 64, "optimizer": adam, "patience": 30, "progress": False}
    return pv.fit(vae.model, vae.guide, train, valid=valid, seed=0, **how)


def conditioned(fn, operator, y, x):
    """log p(x | y) where x has a distribution, given y or before it is known."""
    return operator.log_conditional(fn, y, x)


def independent(train, operator, y, x):
    fn = dist.Normal(train.mean(0), train.std(0).clamp_min(1e-3)).to_event(train.dim() - 1).expand((len(x),))
    return conditioned(fn, operator, y, x)


class Regressor(nn.Module):
    def __init__(self, operator, is_exact):
        super().__init__()
        self.operator, self.is_exact = operator, is_exact
        sizes = (operator.of_shape.numel(), HIDDEN, LATENT, HIDDEN)
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
        self.body = nn.Sequential(nn.Flatten(), *layers, nn.Linear(HIDDEN, operator.shape.numel()))
        self.raw = nn.Parameter(torch.full(operator.shape, -1.5))

    def log_density(self, y, x):
        mean = self.body(y.nan_to_num(0.0)).unflatten(1, self.operator.shape)
        fn = dist.Normal(mean, self.raw.exp() + 1e-3, validate_args=False).to_event(x.dim() - 1)
        return conditioned(fn, self.operator, y, x) if self.is_exact else fn.log_prob(x)


def fitted_regressor(operator, is_exact, train, valid, seed=0):
    torch.manual_seed(seed)
    module = Regressor(operator, is_exact)
    optimizer, y_valid, best = adam(module.parameters()), operator.apply(valid, seed=1), (-float("inf"), None)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train)).split(64):
            x = train[rows]
            loss = -module.log_density(operator.draw(x, None), x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            here = float(module.log_density(y_valid, valid).mean())
        if here > best[0]:
            best = here, {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(best[1])
    return module


def per_hidden(log_density, num_hidden):
    """Nats per number left open, and its standard error over data."""
    each = log_density.double() / num_hidden.mean()
    return float(each.mean()), float(each.std() / len(each) ** 0.5)


def task(name, of, fitted, parts, evidence, num, out):
    train, valid, test = parts
    x = test[:num]
    operator = pv.operators.named(name, tuple(x.shape[1:]))
    y = operator.apply(x, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustedPosterior)  # the table says it
        found = pv.restore(
            fitted.model, fitted.guide, y, operator, truth=x, evidence=evidence, num_draws=100, progress=False
        )
    is_exact = "blur" not in name
    regressor = fitted_regressor(operator, is_exact, train, valid)
    with torch.no_grad():
        others = {"regressor": regressor.log_density(y, x), "independent": independent(train, operator, y, x)}
    pv.figures.save(
        pv.figures.completions(found, num=6), out / f"pictures_{of}_{name.partition(':')[0]}_{num_of(name)}.png"
    )
    account = found.numbers()
    row = {
        "data": of,
        "task": name,
        "open": float(found.num_hidden.mean()),
        "vae": per_hidden(found.log_density, found.num_hidden),
        "mc_se": account["nats_per_hidden"]["mc_se"],
        "unreliable": account["fraction_unreliable"],
        "unreliable_density": account["fraction_density_unreliable"],
        "routes": {route: one["num_data"] for route, one in account["routes"].items() if one["num_data"]},
        **{key: per_hidden(value, found.num_hidden) for key, value in others.items()},
        "over_regressor": per_hidden(found.log_density - others["regressor"], found.num_hidden),
    }
    print(json.dumps(row), flush=True)
    return row


def num_of(name):
    return name.partition(":")[2].replace(",", "_").replace(".", "") or "0"


def table(rows):
    head = "| data | task | open | VAE | MC SE | regressor | independent | VAE - regressor | k-hat bad: p(y), either | routes |"
    lines = [head, "| --- " * 10 + "|"]
    for row in rows:
        nats = [
            f"{row[key][0]:.4f} ({row[key][1]:.4f})" for key in ("vae", "regressor", "independent", "over_regressor")
        ]
        routes = ", ".join(f"{name} {count}" for name, count in row["routes"].items())
        doubt = f"{row['unreliable']:.0%}, {row['unreliable_density']:.0%}"
        lines.append(
            f"| {row['data']} | {row['task']} | {row['open']:.1f} | {nats[0]} | {row['mc_se']:.4f} | {nats[1]} | {nats[2]} "
            f"| {nats[3]} | {doubt} | {routes} |"
        )
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--num", type=int, default=50)
    p.add_argument("--data", default=",".join(TASKS))
    p.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = p.parse_args()
    rows = []
    for of in given.data.split(","):
        parts = dequantized(pv.data.load(of), seed=0)
        fitted = fitted_vae(*parts[:2], tuple(parts[0].shape[1:]))
        evidence = pv.evaluate(fitted.model, fitted.guide, parts[2][: given.num], progress=False)
        print(of, evidence.summary(), flush=True)
        rows += [task(name, of, fitted, parts, evidence, given.num, given.out) for name in TASKS[of]]
    (given.out / "pictures.json").write_text(json.dumps(rows, indent=1) + "\n")
    about = (
        f"Nats of the truth per number of x left open, given y; standard errors over {given.num} test data in brackets."
    )
    (given.out / "pictures.md").write_text(f"# Pictures\n\n{about}\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
