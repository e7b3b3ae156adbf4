"""Priors on MNIST and Fashion-MNIST by the protocol of Exemplar VAE, as far as the time that was given to them.

    for prior in normal vamp:500 exemplar:500; do
      timeout -s INT 20m pyrovae fit --data mnist --prior $prior --network gated:300,300 --latent 40 --batch-size 100 \\
        --lr 5e-4 --schedule constant --kl-warmup 5 --patience 50 --epochs 2000 --out runs/mnist-${prior%%:*}; done
    python tests/benchmarks/published_priors.py runs/mnist-* --out tests/benchmarks/results    # and fashion-mnist

Ctrl-C, and timeout -s INT, keep what is fitted so far; --resume goes on from there. Each run is evaluated twice on the
same test images: by K draws of the encoder, as such tables are published (K = 5,000), and by routed evidence. The figure
is the learning curve, the validation ELBO by minutes of fitting, beside the published end points of log p(x) by IS-5000.

References:
    Norouzi, Fleet and Norouzi (2020), Exemplar VAE, arXiv:2004.04795: the end points, five runs each (SE).
"""

import argparse
import math
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

import pyrovae as pv
from pyrovae.base.errors import UnfinishedFit, UntrustedEvidence
from pyrovae.reports.figures.style import BLUE, GREEN, RED, UNIT, new_figure, save, styled

PUBLISHED = {
    "mnist": {"normal": (-84.45, 0.12), "vamp": (-82.43, 0.06), "exemplar": (-82.09, 0.18)},
    "fashion-mnist": {"normal": (-228.70, 0.15), "vamp": (-227.35, 0.05), "exemplar": (-226.75, 0.07)},
}
COLORS = {"normal": BLUE, "vamp": RED, "exemplar": GREEN}
HEAD = (
    "data", "prior", "epochs", "minutes", "validation ELBO", "IS-5000 (data SE)", "unreliable", "certified (data SE)",
    "MC SE", "unreliable", "certified less IS-5000 (SE)", "published, IS-5000",
)  # fmt: skip


class Measured(NamedTuple):
    """A run: its data and prior, its learning curve in minutes, and both evidences."""

    data: str
    prior: str
    minutes: list[float]
    elbo: list[float]
    plain: pv.Report
    routed: pv.Report

    @property
    def published(self):
        return PUBLISHED[self.data][self.prior.partition(":")[0]]

    def row(self):
        gain = self.routed.log_evidence - self.plain.log_evidence
        cells = [self.data, self.prior, f"{len(self.elbo)}", f"{self.minutes[-1]:.0f}", f"{max(self.elbo):.2f}"]
        cells += [told(self.plain.log_evidence), f"{self.plain.fraction_unreliable:.1%}"]
        cells += [told(self.routed.log_evidence), f"{self.routed.numbers()['log_evidence']['mc_se']:.4f}"]
        cells += [f"{self.routed.fraction_unreliable:.1%}", told(gain), "{:.2f} ({:.2f})".format(*self.published)]
        return "| " + " | ".join(cells) + " |"


def told(nats, digits=2):
    """A mean over data and its error."""
    return f"{nats.mean():.{digits}f} ({nats.std() / math.sqrt(len(nats)):.{digits}f})"


def measured(folder, given):
    """Both evidences of a run on the same test images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfinishedFit)  # it had no more time
        warnings.simplefilter("ignore", UntrustedEvidence)  # the table says it
        run = pv.runs.bring_back(folder, data_dir=given.data_dir)
        images, how = run.split("test")[: given.num], {"compile": True, "progress": False}
        pair = run.fit.model, run.fit.guide
        plain = pv.evaluate(*pair, images, num_particles=5000, method="importance", **how)
        routed = pv.evaluate(*pair, images, num_particles=1000, **how)
    history = run.fit.history
    minutes = (torch.tensor([row["seconds"] for row in history]).cumsum(0) / 60).tolist()
    elbo = [row["valid_elbo"] for row in history]
    return Measured(run.record["data"], run.record["prior"], minutes, elbo, plain, routed)


@styled
def curves(runs):
    """Validation ELBO by minutes of fitting; dotted, the published log p(x)."""
    sets = list(dict.fromkeys(run.data for run in runs))
    figure, panels = new_figure(4.8 * len(sets), 3.6, columns=len(sets))
    for axes, name in zip(panels, sets, strict=True):
        for run in (one for one in runs if one.data == name):
            color = COLORS[run.prior.partition(":")[0]]
            axes.plot(run.minutes, run.elbo, color=color, label=f"{run.prior}, validation ELBO")
            axes.axhline(run.published[0], color=color, linestyle=":", linewidth=1)
        low = min(torch.tensor(run.elbo).quantile(0.25).item() for run in runs if run.data == name)
        axes.set(title=f"{name} (dotted: published log p(x))", xlabel="minutes of fitting", ylabel=UNIT)
        axes.set_ylim(bottom=low)
        axes.legend(loc="lower right", frameon=False)
    return figure


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+", type=Path)
    p.add_argument("--num", type=int, default=1000, help="test images")
    p.add_argument("--data-dir")
    p.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = p.parse_args()
    found, lines = [], ["| " + " | ".join(HEAD) + " |", "| --- | --- |" + " ---: |" * (len(HEAD) - 2)]
    for folder in given.runs:
        found.append(measured(folder, given))
        lines.append(found[-1].row())
        print(lines[-1], flush=True)
    save(curves(found), given.out / "published_priors.png")
    version = f"Python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads."
    about = f"The first {given.num:,} test images, nats per datum. `python tests/benchmarks/published_priors.py RUN...`"
    text = ["# Priors on MNIST and Fashion-MNIST", "", about, "", *lines, "", version]
    (given.out / "published_priors.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
