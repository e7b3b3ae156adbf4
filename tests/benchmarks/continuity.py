"""An autoencoder and a VAE of the same networks, and the two terms of the ELBO: do they differ as textbooks say?

    python tests/benchmarks/continuity.py --out tests/benchmarks/results     # about eight minutes of one core

The 8x8 digits, counts to 16, MLPs of one hidden layer, five seeds. Part "continuity": both are judged by what they
decode between codes (``pv.continuity``), and by log p(x), the autoencoder's by a mixture fitted to its codes
(``pv.baselines.with_density``). Part "panels": reconstruction alone, KL alone and both, two latents
(``pv.latent_panels``). A claim holds where the mean difference over seeds is more than three of its standard errors, over
seeds, in the direction that is claimed.
"""

import argparse
import sys
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import torch

import pyrovae as pv
from pyrovae.diagnostics.codes.geometry import stroke_width

CLAIMS = {  # (part, score) -> whether the VAE's is claimed to be higher (1) or lower (-1)
    **{(part, "distance"): -1 for part in ("gaps", "linear", "spherical", "walk", "prior")},
    **{(part, "confidence"): 1 for part in ("gaps", "linear", "spherical", "walk", "prior")},
    **{(part, "log_density"): 1 for part in ("gaps", "linear", "spherical", "walk", "prior")},
    ("walk", "kept"): 1,
}
PANELS = {
    "reconstruction only": pv.objectives.ReconstructionOnly,
    "KL only": pv.objectives.KLOnly,
    "both": pv.objectives.SampledELBO,
}
RATE = 3e-3
AUTOENCODER, VAE, MIXTURE = "autoencoder", "VAE", "autoencoder, mixture of codes"


def networks(digits, latent, given, seed):
    """The decoder, and the encoder of as many numbers as are asked."""
    mlp = pv.networks.mlp
    decoder = pv.Conditional(pv.families.binomial(16), digits.shape, mlp(latent, given.hidden, seed=2 * seed))
    return decoder, mlp(digits.shape, given.hidden, seed=2 * seed + 1)


def fitted(pair, digits, given, seed, objective=None):
    options = {"objective": objective, "epochs": given.epochs, "seed": seed, "progress": False}
    pv.fit(pair.model, pair.guide, digits.train, optimizer=lambda p: torch.optim.Adam(p, lr=RATE), **options)
    return pair  # whose modules were trained in place


def vae(digits, latent, given, seed, objective=None):
    decoder, network = networks(digits, latent, given, seed)
    encoder = pv.Conditional(pv.families.normal(), latent, network)
    return fitted(pv.VAE(pv.priors.StandardNormal(latent), decoder, encoder), digits, given, seed, objective)


def compared(digits, density, latent, given, seed):
    """One seed: the record, and log p(x) of both in nats per datum."""
    decoder, network = networks(digits, latent, given, seed)
    pair = pv.baselines.Autoencoder(latent, decoder=decoder, encoder=network)
    fits = {AUTOENCODER: fitted(pair, digits, given, seed), VAE: vae(digits, latent, given, seed)}
    with_density = pv.baselines.with_density(pair, digits.train, num_components=20, seed=seed)
    everything = fits | {MIXTURE: with_density}
    record = pv.continuity(
        everything, digits.train, digits.test, density=density, attribute=stroke_width, num=given.num, seed=seed
    )
    data = digits.test[: given.evidence]
    reports = [
        pv.evaluate(one.model, one.guide, data, num_particles=given.particles, seed=seed, progress=False)
        for one in (with_density, fits[VAE])
    ]
    return record, reports


def over_seeds(pairs):
    """Means of both and of their differences, with its standard error: of (a, b) for each seed."""
    a, b = zip(*pairs, strict=True)
    differences = [y - x for x, y in pairs]
    return mean(a), mean(b), mean(differences), stdev(differences) / sqrt(len(differences))


def line(label, pairs, form, claim):
    a, b, difference, se = over_seeds(pairs)
    ratio = difference / se if se else float("inf")
    said = {1: "higher", -1: "lower", 0: "-"}[claim]
    found = "-" if not claim else "yes" if claim * ratio > 3 else "reversed" if claim * ratio < -3 else "no"
    cells = [label, f"{a:{form}}", f"{b:{form}}", f"{difference:+{form}} ({se:{form}})", f"{ratio:+.1f}", said, found]
    return "| " + " | ".join(cells) + " |"


HEAD = "| | autoencoder | VAE | difference (SE over seeds) | in SE | VAE's claimed to be | holds |"


def continuity(digits, density, latent, given):
    found = [compared(digits, density, latent, given, seed) for seed in range(given.seeds)]
    records = [record for record, _ in found]
    rows = [record.named_rows() for record in records]
    yield f"## {latent} latents"
    yield ""
    yield HEAD
    yield "| --- | ---: | ---: | ---: | ---: | --- | --- |"
    forms = {"distance": ".2f", "confidence": ".3f", "log_density": ".1f", "kept": ".3f"}
    for part in ("reconstruction", "gaps", "linear", "spherical", "walk", "prior"):
        for score, form in forms.items():
            if score != "kept" or part == "walk":
                pairs = [(row[f"{AUTOENCODER}: {part}"][score], row[f"{VAE}: {part}"][score]) for row in rows]
                yield line(f"{part}: {score.replace('_', ' ')}", pairs, form, CLAIMS.get((part, score), 0))
    pairs = [(row[f"{MIXTURE}: prior"], row[f"{VAE}: prior"]) for row in rows]
    for score in ("distance", "confidence", "log_density"):
        label = f"prior, autoencoder's by the mixture: {score.replace('_', ' ')}"
        yield line(label, [(a[score], b[score]) for a, b in pairs], forms[score], 0)
    walks = [tuple(record.slope(name)[0] for name in (AUTOENCODER, VAE)) for record in records]
    yield line("walk: stroke width moves, of what is asked", walks, ".2f", 1)
    for part, claim in (("train", 0), ("test", 0), ("gap", -1)):
        errors = [tuple(record.overfit(name)[part] for name in (AUTOENCODER, VAE)) for record in records]
        yield line(f"reconstruction error: {part}", errors, ".3f", claim)
    evidence = [tuple(float(report.log_evidence.mean()) for report in reports) for _, reports in found]
    yield line("log p(x), autoencoder's by the mixture", evidence, ".2f", 1)
    doubt = max(report.fraction_unreliable for _, reports in found for report in reports)
    data = {score: mean(row["test data"][score] for row in rows) for score in ("distance", "confidence", "log_density")}
    yield ""
    yield (
        f"Test data as they are: distance {data['distance']:.2f}, confidence {data['confidence']:.3f}, log density "
        f"{data['log_density']:.1f}. At most {doubt:.0%} of the {given.evidence} log p(x) of a fit are unreliable."
    )
    yield ""
    draw(records[0], latent, given)


def draw(record, latent, given):
    if given.out:
        pv.figures.save(pv.figures.continuity(record), Path(given.out, f"continuity_{latent}.png"))


def by_grid(pair, means, x, points=800):
    """Mean log p(x) of a VAE of two latents and binomial pixels, by a sum over a grid that holds all codes."""
    reach = 4 + 1.3 * float(means.abs().max())
    line = torch.linspace(-reach, reach, points)
    counts, total = x.flatten(1), torch.full((len(x),), -torch.inf, dtype=torch.float64)
    log_cell = 2 * float((line[1] - line[0]).log())
    log_ways = (torch.lgamma(torch.tensor(17.0)) - torch.lgamma(counts + 1) - torch.lgamma(17 - counts)).sum(1)
    for z in torch.cartesian_prod(line, line).split(50_000):
        with torch.no_grad():
            logits = pair.decoder.network(z)
            log_prior = pair.prior().log_prob(z) - 16 * torch.nn.functional.softplus(logits).sum(1)
        total = torch.logaddexp(total, (logits @ counts.T + log_prior[:, None]).double().logsumexp(0))
    return float((total + log_ways + log_cell).mean())


def panels(digits, given):
    found, exact = [], []
    for seed in range(given.seeds):
        fits = {name: vae(digits, 2, given, seed, objective()) for name, objective in PANELS.items()}
        data = digits.test[: given.evidence]
        record = pv.latent_panels(fits, data, num_particles=given.particles, seed=seed, progress=False)
        found.append(record)
        exact.append({name: by_grid(pair, record.means[name], data.x) for name, pair in fits.items()})
    tables = [record.named_rows() for record in found]
    for table, each in zip(tables, exact, strict=True):
        for name, value in each.items():
            table[name]["log_evidence_by_grid"] = value
    yield f"## The two terms, 2 latents, {given.evidence} test data"
    yield ""
    yield "| | " + " | ".join(PANELS) + " | claimed | least difference, in SE over seeds | holds |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | --- |"
    orders = {
        "marginal_kl": ("KL only", "both", "reconstruction only"),
        "neighbours": ("KL only", "both"),
        "log_evidence": ("KL only", "both"),
        "log_evidence_by_grid": ("KL only", "reconstruction only", "both"),
    }
    for column, order in orders.items():
        means = [mean(table[name][column] for table in tables) for name in PANELS]
        steps = [over_seeds([(table[a][column], table[b][column]) for table in tables]) for a, b in pairwise(order)]
        least = min(difference / se for *_, difference, se in steps)
        cells = [
            column.replace("_", " ").replace("log evidence", "log p(x)"),
            *(f"{one:.3f}" for one in means),
            " < ".join(order),
            f"{least:+.1f}",
        ]
        yield "| " + " | ".join([*cells, "yes" if least > 3 else "no"]) + " |"
    unreliable = {name: mean(table[name]["unreliable"] for table in tables) for name in PANELS}
    saturated = {name: sum(record.surgeries[name].saturated for record in found) for name in PANELS}
    yield ""
    yield f"Unreliable log p(x): {', '.join(f'{name} {share:.1%}' for name, share in unreliable.items())}."
    yield f"Mutual information at its ceiling, of {given.seeds} fits: {', '.join(f'{k} {v}' for k, v in saturated.items())}."
    yield ""
    if given.out:
        pv.figures.save(pv.figures.latent_panels(found[0]), Path(given.out, "latent_panels.png"))


def report(given):
    digits = pv.data.load("digits")
    density = pv.baseline("mixture:20", digits).log_prob
    yield "# What lies between codes, and what the two terms do"
    yield ""
    yield f"Digits, binomial pixels, one hidden layer of {given.hidden}, {given.epochs} epochs of Adam at {RATE}, {given.seeds} seeds of"
    yield f"weights and order; {given.num} images of each part. Distance: Euclidean, to the nearest training digit, in counts;"
    yield "confidence: of a forest of 100 trees; log density: of a mixture of 20 x independent binomials, nats."
    yield f"`python tests/benchmarks/continuity.py --seeds {given.seeds} --epochs {given.epochs}`"
    yield ""
    if "continuity" in given.parts:
        for latent in given.latents:
            yield from continuity(digits, density, latent, given)
    if "panels" in given.parts:
        yield from panels(digits, given)
    yield f"Python {sys.version.split()[0]}, torch {torch.__version__}."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--latents", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--num", type=int, default=200, help="images of each part")
    parser.add_argument("--evidence", type=int, default=60, help="test data whose log p(x) is measured")
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--parts", nargs="+", choices=["continuity", "panels"], default=["continuity", "panels"])
    parser.add_argument("--out", help="folder for continuity.md and its figures")
    given = parser.parse_args()
    lines = []
    for each in report(given):
        print(each, flush=True)
        lines.append(each)
    if given.out:
        Path(given.out, "continuity.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
