"""Real tables: answers with gaps, and wines, under likelihoods by kind and under scikit-learn's models.

    PYROVAE_DATA=... python tests/benchmarks/real_tables.py --out tests/benchmarks/results

bfi: 25 answers on a scale of six, some missing, given age and gender. A fifth of the answers of the test rows is hidden;
each is predicted from the answers of its row that are left, in nats per answer. A normal's density becomes a mass by
its bins: level k takes what lies between k - 1/2 and k + 1/2, the ends what lies beyond. Wine: log p(x) of the test
rows in the source's units, log Jacobians included. About twenty minutes on one core.
"""

import argparse
import math
import sys
import warnings
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pyro.distributions as dist
import torch
from sklearn.decomposition import FactorAnalysis
from sklearn.mixture import GaussianMixture

import pyrovae as pv
from pyrovae.data.tables.names import parse_columns
from pyrovae.training.optimizers import adam

BFI = "[ACENO][1-5]:{items},gender:binary,age:real,*:ignored"
RECIPE = {"prior": "normal", "guide": "normal", "network": "mlp"}
FACTORS = (1, 2, 3, 4, 5, 6, 8, 10)
COMPONENTS = range(1, 11)
NUM_PARTICLES = 1000


def cosine(fraction):
    return 0.5 * (1 + math.cos(math.pi * fraction))


def fitted(data, likelihood, seed, *, latent, hidden, epochs):
    """A VAE of a table at its best epoch by the validation rows."""
    recipe = {**RECIPE, "likelihood": likelihood, "latent": latent, "hidden": hidden, "seed": seed}
    vae = pv.recipes.build(pv.recipes.complete(recipe, data), data)
    settings = {"optimizer": adam(2e-3), "schedule": cosine, "epochs": epochs, "patience": epochs, "seed": seed}
    pv.fit(vae.model, vae.guide, data.train, valid=data.valid, **settings)
    return vae.eval()


def factor_analysis(count):
    return FactorAnalysis(count, max_iter=20_000, tol=1e-3, svd_method="lapack")


def with_spread(values):
    """Mean over fits, and their standard deviation."""
    return f"{mean(values):.4f} ({stdev(values):.4f})" if len(values) > 1 else f"{values[0]:.4f}"


# ------------------------------------------------------------------------------------------------- answers with gaps


def hidden_answers(x, seed=0):
    """Which of the answers of rows (N, D) are hidden: a fifth of those that are there."""
    draw = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    return (draw < 0.2) & ~x.isnan()


def bins(x, columns):
    """The ends of the level that each value stands for, in the unit of the rows, the first and the last open."""
    scale, shift = (torch.tensor(each, dtype=x.dtype) for each in (columns.scale, columns.shift))
    level = (x * scale + shift).round()
    low, high = ((level + side - shift) / scale for side in (-0.5, 0.5))
    return low.where(level > 1, -math.inf), high.where(level < 6, math.inf)


def log_mass(y, x, columns):
    """Log masses of the entries of rows under their own distributions: (K, N, D), NaN entries as zero."""
    base = y.parts[0].base_dist if hasattr(y, "parts") else y.base_dist
    seen = ~x.isnan()
    if isinstance(base, dist.Normal):
        low, high = bins(x.nan_to_num(0.0), columns)
        below, above = (torch.special.ndtr(((end - base.loc) / base.scale).double()) for end in (low, high))
        return torch.where(seen, (above - below).clamp_min(1e-30).log(), 0.0)
    return torch.where(seen, base.log_prob(x.nan_to_num(1.0)).double(), 0.0)


@torch.no_grad()
def of_vae(vae, split, hidden, columns):
    """log p(answer | the answers of its row that are left, covariates) of hidden answers, by importance sampling.

    Conditioned on all that is left with the likelihood that was fitted; (N, D), NaN where nothing is hidden.
    """
    x, covariates = split.tensors
    torch.manual_seed(0)
    left = x.masked_fill(hidden, math.nan)
    q = vae.encoder(vae.features(left, covariates))
    z = q.sample((NUM_PARTICLES,))
    y = vae.decoder(vae.beside(z, covariates))
    base = y.parts[0].base_dist if hasattr(y, "parts") else y.base_dist
    there = torch.where(left.isnan(), 0.0, base.log_prob(left.nan_to_num(1.0))).sum(-1)
    log_weight = (there + vae.prior().log_prob(z) - q.log_prob(z)).double().log_softmax(0)
    masses = log_mass(y, x, columns)
    found = (log_weight[..., None] + masses).logsumexp(0)
    return found.masked_fill(~hidden, math.nan), 1 / log_weight.exp().square().sum(0)


def of_factors(data, hidden):
    """The same by scikit-learn's factor analysis of answers and covariates, on the training rows without gaps."""
    rows = {name: torch.cat(getattr(data, name).tensors, -1).double() for name in ("train", "valid", "test")}
    whole = {name: x[~x.isnan().any(1)].numpy() for name, x in rows.items()}
    sizes = [count for count in FACTORS if count <= whole["train"].shape[1]]
    models = [factor_analysis(count).fit(whole["train"]) for count in sizes]
    best = max(models, key=lambda model: model.score(whole["valid"]))
    centre, covariance = torch.tensor(best.mean_), torch.tensor(best.get_covariance())
    x, found = rows["test"], torch.full(hidden.shape, math.nan, dtype=torch.float64)
    low, high = bins(data.test.x.nan_to_num(0.0), data.columns)
    for n, row in enumerate(x):
        left = ~row.isnan()
        left[: hidden.shape[1]] &= ~hidden[n]
        gain = torch.linalg.solve(covariance[left][:, left], covariance[left])
        loc = centre + (row[left] - centre[left]) @ gain
        variance = covariance.diagonal() - (covariance[left] * gain).sum(0)
        for d in hidden[n].nonzero().flatten().tolist():
            scale = variance[d].sqrt()
            below, above = (torch.special.ndtr((end[n, d].double() - loc[d]) / scale) for end in (low, high))
            found[n, d] = (above - below).clamp_min(1e-30).log()
    return found, best.n_components


def of_frequencies(data, hidden):
    """The same by how often each answer was given in the training rows, each question by itself."""
    found, x, train = torch.full(hidden.shape, math.nan, dtype=torch.float64), data.test.x, data.train.x
    for d in range(x.shape[1]):
        seen = train[:, d][~train[:, d].isnan()].long()
        share = torch.bincount(seen, minlength=6).double() / len(seen)
        mine = hidden[:, d]
        found[mine, d] = share[x[mine, d].long()].log()
    return found


def of_people(found):
    """Mean of the hidden answers, and its standard error over people (answers of one are not independent)."""
    count = (~found.isnan()).sum(1).double()
    total = found.nansum(1)
    average = total.sum() / count.sum()
    error = (total - average * count).square().sum().sqrt() / count.sum()
    return float(average), float(error)


def answers(folder, seeds, epochs):
    path = folder / "tabular" / "bfi.csv"
    data = {
        items: pv.data.load(path, columns=BFI.format(items=items), covariates=["age", "gender"])
        for items in ("ordinal", "real")
    }
    hidden = hidden_answers(data["ordinal"].test.x)
    people = hidden.any(1).sum()
    yield f"{int(hidden.sum())} hidden answers of {int(people)} test rows; {len(data['ordinal'].train)} training rows,"
    yield f"of which {len(data['ordinal'].train.missing())} have gaps. Mean over {len(seeds)} fits (their sd); SE over people."
    yield ""
    yield "| model | log p(answer), nats | SE | difference from ordinal (SE) | median ESS of 1,000 |"
    yield "| --- | --- | --- | --- | --- |"
    sizes = {"latent": 5, "hidden": [64], "epochs": epochs}
    found = {}
    for name, items, likelihood in (
        ("VAE, ordinal", "ordinal", "mixed"),
        ("VAE, categorical", "ordinal", "categorical"),
        ("VAE, normal (bins)", "real", "mixed"),
    ):
        runs = []
        for seed in seeds:
            vae = fitted(data[items], likelihood, seed, **sizes)
            runs.append(of_vae(vae, data[items].test, hidden, data[items].columns))
            print(f"{name} {seed}: {of_people(runs[-1][0])}", file=sys.stderr, flush=True)
        found[name] = ([run[0] for run in runs], f"{float(torch.stack([run[1] for run in runs]).median()):.0f}")
    factors, count = of_factors(data["real"], hidden)
    found[f"factor analysis, {count} factors (bins)"] = ([factors], "exact")
    found["frequencies of each question"] = ([of_frequencies(data["ordinal"], hidden)], "exact")
    first = torch.stack(found["VAE, ordinal"][0]).mean(0)
    for name, (runs, ess) in found.items():
        total = torch.stack(runs).mean(0)
        difference = "" if name == "VAE, ordinal" else "{:.4f} ({:.4f})".format(*of_people(total - first))
        spread = with_spread([of_people(run)[0] for run in runs])
        yield f"| {name} | {spread} | {of_people(total)[1]:.4f} | {difference} | {ess} |"


# -------------------------------------------------------------------------------------------------------------- wines

SKEWED = "residual sugar", "chlorides", "free sulfur dioxide", "total sulfur dioxide", "sulphates", "volatile acidity"
ALL_POSITIVE = {"citric acid": "real", "quality": "ignored", "*": "positive"}
WINES = {  # name -> kinds of columns, likelihood
    "normal, one scale": ({"quality": "ignored"}, "normal"),
    "normal, a scale for each": ({"quality": "ignored"}, "normal-per-feature"),
    "normal, predicted scales": ({"quality": "ignored"}, "normal-predicted"),
    "Student-t (5)": ({"quality": "ignored"}, "student-t"),
    "log-normal, citric acid normal": (ALL_POSITIVE, "mixed"),
    "gamma, citric acid normal": (ALL_POSITIVE, "gamma"),
    "mixed: six skewed log-normal, five normal": (
        {"quality": "ignored", **dict.fromkeys(SKEWED, "positive")},
        "mixed",
    ),
}


def wine_vae(data, likelihood, seed, sizes):
    """A VAE, with gamma in the place of log-normal where that is asked for."""
    if likelihood != "gamma":
        return fitted(data, likelihood, seed, **sizes)
    from pyrovae.programs.families import columns, gamma

    kept = columns.OF_KIND["positive"]
    try:
        columns.OF_KIND["positive"] = lambda labels: gamma()
        return fitted(data, "mixed", seed, **sizes)
    finally:
        columns.OF_KIND["positive"] = kept


def wine_rows(path, kinds):
    return pv.data.load(path, columns=kinds)


def source_log_evidence(vae, split, num_particles):
    """log p of the rows in the unit of their source, by the routed evidence, and the fraction that is unreliable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.UntrustedEvidence)
        report = pv.evaluate(vae.model, vae.guide, split, num_particles=num_particles, seed=0)
    return report.log_evidence + split.protocol.log_jacobian, report.fraction_unreliable


def of_sklearn(data):
    """Test log densities in the unit of the source by scikit-learn's models, their size chosen on validation rows."""
    train, valid, test = (split.x.double().numpy() for split in (data.train, data.valid, data.test))
    families = {
        "one Gaussian": [GaussianMixture(1, reg_covar=1e-6, random_state=0)],
        "factor analysis": [factor_analysis(count) for count in FACTORS],
        "Gaussian mixture": [GaussianMixture(k, reg_covar=1e-4, n_init=3, random_state=0) for k in COMPONENTS],
    }
    for name, models in families.items():
        best = max((model.fit(train) for model in models), key=lambda model: model.score(valid))
        size = best.n_components
        about = {"one Gaussian": name, "factor analysis": f"{name}, {size} factors"}.get(
            name, f"{name}, {size} components"
        )
        yield about, torch.from_numpy(best.score_samples(test)) + data.test.protocol.log_jacobian


def wines(folder, seeds, epochs, particles):
    path = folder / "tabular" / "winequality-red.csv"
    plain = wine_rows(path, {"quality": "ignored"})
    twins = len(np.unique(plain.train.source.numpy(), axis=0))
    yield f"Red wine, 11 measurements; {len(plain.test)} test rows, {len(plain.train)} training rows ({twins} of them"
    yield f"different). Mean over {len(seeds)} fits (their sd). Values are rounded in the source, which a density may exploit."
    yield ""
    yield "| model | log p(x), nats per row | SE over rows | difference from the mixture (SE) | unreliable |"
    yield "| --- | --- | --- | --- | --- |"
    found = {name: ([values], "exact") for name, values in of_sklearn(plain)}
    reference = found[next(name for name in found if name.startswith("Gaussian mixture"))][0][0]
    sizes = {"latent": 6, "hidden": [100], "epochs": epochs}
    for name, (kinds, likelihood) in WINES.items():
        data = wine_rows(path, kinds)
        assert data.test.protocol.source_sha256 == plain.test.protocol.source_sha256
        runs = []
        for seed in seeds:
            vae = wine_vae(data, likelihood, seed, sizes)
            runs.append(source_log_evidence(vae, data.test, particles))
            print(f"{name} {seed}: {runs[-1][0].mean():.4f} {runs[-1][1]:.2f}", file=sys.stderr, flush=True)
        found[f"VAE, {name}"] = ([run[0] for run in runs], f"{mean(run[1] for run in runs):.0%}")
    for name, (runs, unreliable) in found.items():
        values = torch.stack(runs).mean(0)
        apart = values - reference
        se, difference = (each.std() / math.sqrt(len(values)) for each in (values, apart))
        told = "" if runs[0] is reference else f"{apart.mean():.3f} ({difference:.3f})"
        yield f"| {name} | {with_spread([float(run.mean()) for run in runs])} | {se:.3f} | {told} | {unreliable} |"


def raw_scales(folder, seeds, epochs, particles):
    path, kinds = folder / "tabular" / "winequality-white.csv", parse_columns("*:real")
    yield "White wine, all 12 columns real, likelihood normal with one scale; log p(x) in the source's units."
    yield ""
    yield "| columns | log p(x), nats per row | SE over rows |"
    yield "| --- | --- | --- |"
    for name, standardize in (("in their units (`standardize=False`)", False), ("standard scores (the default)", None)):
        data = pv.data.load(path, columns=kinds, standardize=standardize)
        vae = fitted(data, "normal", seeds[0], latent=10, hidden=[200], epochs=epochs)
        values, _ = source_log_evidence(vae, data.test, particles)
        yield f"| {name} | {values.mean():.3f} | {values.std() / math.sqrt(len(values)):.3f} |"


def report(folder, seeds, epochs, particles, parts):
    yield "# Real tables"
    yield ""
    yield "`python tests/benchmarks/real_tables.py`; nats. What the columns say stands at the head of that file."
    yield f"Fits of {epochs} epochs (raw scales: half as many), the best by the validation rows; seeds 0 to {len(seeds) - 1}."
    for part, head in (("bfi", "Answers with gaps"), ("wine", "Red wine"), ("raw", "Raw scales")):
        if part not in parts:
            continue
        yield from ("", f"## {head}", "")
        if part == "bfi":
            yield from answers(folder, seeds, epochs)
        if part == "wine":
            yield from wines(folder, seeds, epochs, particles)
        if part == "raw":
            yield from raw_scales(folder, seeds, max(1, epochs // 2), particles)
    yield ""
    yield f"Python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder that holds tabular/ [PYROVAE_DATA]")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each model [3]")
    parser.add_argument("--epochs", type=int, default=200, help="of each fit [200]")
    parser.add_argument("--particles", type=int, default=500, help="draws of z for each wine [500]")
    parser.add_argument("--parts", nargs="*", default=["bfi", "wine", "raw"], help="bfi, wine, raw [all]")
    parser.add_argument("--out", type=Path, required=True, help="folder of real_tables.md")
    given = parser.parse_args()
    import os

    folder = given.data_dir or Path(os.environ["PYROVAE_DATA"])
    lines = list(report(folder, list(range(given.seeds)), given.epochs, given.particles, given.parts))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "real_tables.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
