"""Log p(x) of a fitted MNIST VAE: routed beside annealed on 100 test digits, routed beside plain on all 10,000.

    pyrovae fit --data mnist --out runs/mnist
    python tests/benchmarks/evidence_mnist.py runs/mnist --out tests/benchmarks/results    # the rows of claims.md
    python tests/benchmarks/evidence_mnist.py runs/mnist --parts figures --out figures     # about 8 minutes on 2 cores

"few": `auto`, the encoder's K draws and AIS (1,000 temperatures, 16 chains) on the same digits, and paired differences.
"all": the seconds of `auto` over those of K draws of the encoder, which are measured before and after it; and 5 K
draws, as tables are published. Evaluations are compiled, on as many threads as torch takes; the compiler's cache is
filled before. "figures": importance sampling in K, and the bounds' width on simulated digits in temperatures.
"""

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

import torch

import pyrovae as pv
from pyrovae.base.errors import UntrustedEvidence
from pyrovae.reports import figures

HEAD = "| {} | log p(x) | data SE | MC SE | unreliable | decoder passes per datum | seconds |"
RULE = "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"


def timed(measure):
    """What a function of nothing gives, and its seconds."""
    start = time.perf_counter()
    return measure(), time.perf_counter() - start


def evaluated(pair, digits, method, num_particles):
    settings = {"method": method, "num_particles": num_particles, "compile": True, "progress": False}
    return timed(lambda: pv.evaluate(*pair, digits, **settings))


def line(name, record, seconds, passes):
    found = record.numbers()["log_evidence"]
    cells = [f"{found['mean']:.3f}", f"{found['data_se']:.3f}", f"{found['mc_se']:.4f}"]
    cells += [f"{record.fraction_unreliable:.2%}", f"{passes:,.0f}", f"{seconds:.0f}"]
    return "| " + " | ".join([name, *cells]) + " |"


def of_report(name, report, seconds):
    return line(name, report, seconds, report.cost.mean())


def difference(name, first, second):
    """The mean paired difference of two records, its Monte-Carlo error, and that over data."""
    nats = first.log_evidence - second.log_evidence
    mc_se = (first.mc_se_log_evidence.square() + second.mc_se_log_evidence.square()).sum().sqrt() / len(nats)
    se = nats.std() / math.sqrt(len(nats))
    return f"{name}: {nats.mean():+.4f} nats (MC SE {mc_se:.4f}, SE over data {se:.4f})"


def few(pair, digits, given):
    """Routed evidence, the encoder's draws and annealing on the same few digits."""
    digits, num_chains, num_leapfrog = digits[: given.num], 16, 5
    yield HEAD.format(f"first {given.num} test digits")
    yield RULE
    routed, seconds = evaluated(pair, digits, "auto", given.particles)
    yield of_report(f"auto, K = {given.particles:,}", routed, seconds)
    plain, seconds = evaluated(pair, digits, "importance", given.particles)
    yield of_report(f"encoder, K = {given.particles:,}", plain, seconds)
    settings = {"num_temperatures": given.annealed, "num_chains": num_chains, "num_leapfrog": num_leapfrog}
    annealed, seconds = timed(lambda: pv.annealed_evidence(*pair, digits, **settings))
    passes = 3 * num_leapfrog * num_chains * given.annealed
    yield line(
        f"AIS, {given.annealed:,} temperatures, {num_chains} chains (pilot not counted)", annealed, seconds, passes
    )
    yield ""
    yield difference("auto less AIS", routed, annealed) + "; "
    yield difference("encoder less AIS", plain, annealed) + "."


def whole(pair, digits, given):
    """The time of routed over plain evidence of all digits, and what is published of such models."""
    digits = digits[: given.most]
    for method in ("importance", "auto"):
        evaluated(pair, digits[:250], method, given.particles)  # fills the compiler's cache
    yield HEAD.format(f"all {len(digits):,} test digits")
    yield RULE
    plain, before = evaluated(pair, digits, "importance", given.particles)
    yield of_report(f"encoder, K = {given.particles:,}", plain, before)
    routed, seconds = evaluated(pair, digits, "auto", given.particles)
    yield of_report(f"auto, K = {given.particles:,}", routed, seconds)
    _, after = evaluated(pair, digits, "importance", given.particles)
    yield of_report(f"encoder, K = {given.particles:,}, once more", plain, after)
    published, of_published = evaluated(pair, digits, "importance", 5 * given.particles)
    yield of_report(f"encoder, K = {5 * given.particles:,}", published, of_published)
    yield ""
    ratio = 2 * seconds / (before + after)
    yield f"auto over the encoder's draws: {ratio:.2f} times (mean of the two); routes: {_routes(routed)}; "
    for name, record in (("K", plain), ("5 K", published)):
        yield difference(f"auto less the encoder's {name} draws", routed, record) + "; "
    yield f"unreliable data of auto: {int(routed.unreliable.sum())}."


def _routes(report):
    return ", ".join(f"{name} {found['num_data']:,}" for name, found in report.routes().items())


def drawn(pair, digits, given):
    """Importance sampling in K towards annealing, and bounds from both sides that close: two figures."""
    digits, out = digits[: given.num], Path(given.out or "figures")
    rising = pv.convergence(*pair, digits, num_particles=given.largest)
    annealed = pv.annealed_evidence(*pair, digits, num_temperatures=given.annealed)
    yield from (f"    {text}" for text in (*str(rising).splitlines(), *str(annealed).splitlines()))
    yield ""
    yield "annealed minus importance sampling at K, paired over the same digits (SE):"
    for num_particles, evidence in zip(rising.num_particles, rising.log_evidence, strict=True):
        nats = annealed.log_evidence - evidence
        yield f"{num_particles:,}: {nats.mean():.3f} ({nats.std() / math.sqrt(len(nats)):.3f})"
    bounds = {}
    for temperatures in given.temperatures:
        settings = {"num_data": given.num, "num_temperatures": temperatures}
        bounds[temperatures], seconds = timed(lambda: pv.bidirectional(*pair, digits, **settings))
        yield from ("", *(f"    {text}" for text in str(bounds[temperatures]).splitlines()), f"    {seconds:.0f} s")
    figures.save(figures.convergence(rising, annealed=annealed), out / "evidence_in_k.png")
    figures.save(figures.bounds(bounds), out / "bounds.png")
    account = {"annealed": annealed.to_dict(), "bounds": {t: bound.to_dict() for t, bound in bounds.items()}}
    (out / "evidence_mnist.json").write_text(json.dumps(account, indent=1))


PARTS = {"few": few, "all": whole, "figures": drawn}


def report(given):
    run = pv.runs.bring_back(given.run, data_dir=given.data_dir)
    pair, digits = (run.fit.model, run.fit.guide), run.split("test")
    yield "# Log p(x) of MNIST's test digits"
    yield ""
    yield f"{digits.protocol}"
    yield f"`python tests/benchmarks/evidence_mnist.py RUN`; nats per datum; {torch.get_num_threads()} threads."
    for part in given.parts:
        yield ""
        yield from PARTS[part](pair, digits, given)
    yield ""
    yield f"Python {sys.version.split()[0]}, torch {torch.__version__}."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["few", "all"])
    parser.add_argument("--num", type=int, default=100, help="test digits of few and figures")
    parser.add_argument("--most", type=int, default=10_000, help="test digits of all")
    parser.add_argument("--particles", type=int, default=1000, help="K")
    parser.add_argument("--annealed", type=int, default=1000, help="temperatures for the test digits")
    parser.add_argument("--largest", type=int, default=100_000, help="K of the figure")
    parser.add_argument("--temperatures", type=int, nargs="+", default=[10, 30, 100, 300], help="of the bounds")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", help="folder for evidence_mnist.md, or of the figures")
    given, lines = parser.parse_args(), []
    warnings.simplefilter("ignore", UntrustedEvidence)  # the tables say so
    for text in report(given):
        print(text, flush=True)
        lines.append(text)
    if given.out and given.parts != ["figures"]:
        Path(given.out, "evidence_mnist.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
