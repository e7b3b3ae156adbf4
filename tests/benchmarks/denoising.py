"""Denoising: exact conditional inference in a VAE of clean data, beside networks that were trained to denoise.

    python tests/benchmarks/denoising.py --num 100

Writes denoising.md and a figure of each corruption. Data and VAE are those of pictures.py: digits, (count + uniform noise)
/ 17, 16 latents, 200 hidden units, a normal likelihood with a learned scale a pixel. All see the same corrupted test rows y:

    exact              ``restore``: p(x | y) in the VAE that saw clean data alone, y's corruption as a likelihood
    encoder            the same VAE's encoder reads y, a guess of x, as if it were clean, once
    denoising VAE      a VAE whose encoder reads corrupted data while it is trained, by the denoising criterion; once
    its exact          ``restore`` with the denoising VAE's model
    denoising AE       a deterministic autoencoder of the same networks, trained to give x for y; no density
    y itself           what the operator fills in

An encoder that reads y once gives E_q(z|y) p(x | z, y), a density of x by 2,000 draws. Squared error is of its mean. About
ten minutes on one core.

References:
    Vincent, Larochelle, Bengio and Manzagol (2008), Extracting and composing robust features with denoising
    autoencoders, ICML.
    Im, Ahn, Memisevic and Bengio (2017), Denoising criterion for variational auto-encoding framework, AAAI.
"""

import argparse
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import pyro
import torch
from pictures import EPOCHS, HIDDEN, LATENT, adam, dequantized

import pyrovae as pv
from pyrovae.base.errors import UntrustedPosterior
from pyrovae.reports.figures.style import new_figure, save, styled

DRAWS = 2000
CORRUPTIONS = {
    "normal noise of 0.3": pv.operators.linear(torch.eye(64), shape=(8, 8), of_shape=(8, 8), noise=0.3, name="noise"),
    "salt and pepper, 30 %": pv.operators.salt_and_pepper((8, 8), 0.3),
}


class Denoised(NamedTuple):
    """Means (N, 8, 8); squared error, log p(x | y) and log p(x), (N,) each; the share that nothing vouches for."""

    mean: torch.Tensor
    error: torch.Tensor
    log_density: torch.Tensor | None = None
    log_evidence: torch.Tensor | None = None
    share: str = ""


HEAD = "| corruption | by | squared error per pixel | less exact's | log p(x given y) | less exact's | log p(x), clean | k-hat bad |"


def networks():
    """Decoder and encoder, with the same weights at each call."""
    scale = pv.families.learned(torch.full((8, 8), 0.2))
    decoder = pv.Conditional(pv.families.normal(scale=scale), (8, 8), pv.networks.mlp(LATENT, HIDDEN, seed=0))
    return decoder, pv.networks.mlp((8, 8), HIDDEN, seed=1)


def vae():
    decoder, encoder = networks()
    return pv.VAE(pv.priors.StandardNormal(LATENT), decoder, pv.Conditional(pv.families.normal(), (LATENT,), encoder))


def fitted(pair, guide, train, valid):
    pyro.clear_param_store()
    how = {"epochs": EPOCHS, "batch_size": 64, "optimizer": adam, "patience": 30, "progress": False}
    pv.fit(pair.model, guide, train, valid=valid, seed=0, **how)
    return pair


def exact(pair, y, x, operator):
    """By the posterior of all that y leaves open."""
    evidence = pv.evaluate(pair.model, pair.guide, x, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustedPosterior)  # the table says it
        found = pv.restore(
            pair.model, pair.guide, y, operator, truth=x, evidence=evidence, num_draws=400, progress=False
        )
    share = found.numbers()["fraction_density_unreliable"]
    return Denoised(
        found.mean, squared(found.mean, x), found.log_density.double(), evidence.log_evidence, f"{share:.0%}"
    )


@torch.no_grad()
def once(pair, y, x, operator):
    """By draws of an encoder that reads y."""
    torch.manual_seed(0)
    z = pair.encoder(operator.fill(y)).sample((DRAWS,))
    means, log_density = [], []
    for part in z.split(100):
        fn = pair.decoder(part)
        means.append(operator.restore(fn, y.expand(len(part), *y.shape)).mean.mean(0))
        log_density.append(operator.log_conditional(fn, y, x))
    mean = torch.stack(means).mean(0)
    return Denoised(mean, squared(mean, x), torch.cat(log_density).logsumexp(0) - math.log(DRAWS))


def squared(mean, x):
    return (mean - x).square().flatten(1).mean(1).double()


def told(value):
    return f"{float(value.mean()):.4f} ({float(value.std() / len(value) ** 0.5):.4f})"


def rows_of(name, operator, plain, parts, num, out):
    train, valid, test = parts
    x = test[:num]
    y = operator.apply(x, seed=0)
    pair = vae()
    denoising = fitted(pair, pv.corrupted(pair.guide, operator), train, valid)
    decoder, encoder = networks()
    auto = pv.baselines.Autoencoder(
        LATENT, decoder=decoder, encoder=encoder, corruption=lambda x: operator.fill(operator.draw(x, None))
    )
    fitted(auto, auto.guide, train, valid)
    filled = operator.fill(y)
    with torch.no_grad():
        of_codes = auto.decoder(auto.code(filled)).mean
    found = {
        "exact": exact(plain, y, x, operator),
        "encoder": once(plain, y, x, operator),
        "denoising VAE": once(denoising, y, x, operator),
        "its exact": exact(denoising, y, x, operator),
        "denoising AE": Denoised(of_codes, squared(of_codes, x)),
        "y itself": Denoised(filled, squared(filled, x)),
    }
    save(figure(name, x, y, found), out / f"denoising_{operator.name.partition(' ')[0]}.png")
    return [line(name, by, one, found["exact"]) for by, one in found.items()]


def line(name, by, one, best):
    cells = [name, by, told(one.error), "" if one is best else told(one.error - best.error)]
    if one.log_density is None:
        cells += ["", ""]
    else:
        cells += [told(one.log_density), "" if one is best else told(one.log_density - best.log_density)]
    text = f"| {' | '.join([*cells, '' if one.log_evidence is None else told(one.log_evidence), one.share])} |"
    print(text, flush=True)
    return text


@styled
def figure(name, x, y, found, num=8):
    """A column for each digit; a row for it, for y and for each mean."""
    rows = {"truth": x, "y": y} | {by: one.mean for by, one in found.items() if by != "y itself"}
    drawn, (axes,) = new_figure(num * 0.8 + 2.0, len(rows) * 0.8 + 0.5)
    apart = [torch.nn.functional.pad(images[:num], (1, 1, 1, 1)) for images in rows.values()]
    ink = torch.cat([torch.cat(list(images), 1) for images in apart])
    axes.imshow(ink.detach(), cmap="gray_r", vmin=0, vmax=1)
    axes.set_yticks([10 * at + 4.5 for at in range(len(rows))], list(rows))
    axes.set_xticks([])
    axes.set_title(f"{name}: means of x given y")
    return drawn


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--num", type=int, default=100)
    p.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = p.parse_args()
    parts = dequantized(pv.data.load("digits"), seed=0)
    pair = vae()
    plain = fitted(pair, pair.guide, *parts[:2])
    lines = []
    for name, operator in CORRUPTIONS.items():
        lines += rows_of(name, operator, plain, parts, given.num, given.out)
    about = f"Means over {given.num} test digits, standard errors over data in brackets; nats per digit of 64 numbers."
    text = f"# Denoising\n\n{about}\n\n`python tests/benchmarks/denoising.py --num {given.num}`\n\n"
    (given.out / "denoising.md").write_text(text + "\n".join([HEAD, "| --- " * 8 + "|", *lines]) + "\n")


if __name__ == "__main__":
    main()
