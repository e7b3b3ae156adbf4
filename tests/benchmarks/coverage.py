"""What the stated Monte-Carlo errors are worth: how often +-1.96 of them hold the truth, and whether the record warns.

    python tests/benchmarks/coverage.py
    python tests/benchmarks/coverage.py --parts bidirectional --only simplex correlation  # the other cells stay

The runs are copies of one datum, as draws are independent per datum (of surgery, sets of two draws of each of 50
data; of bidirectional bounds, 25 simulated data each). Truths are exact evidences, and else means over all draws of all
runs: so of bounds, which hold log p(x) between them on average. A coverage over 400 runs has a standard error of 1.1 %.
About seven minutes on one core.
"""

import argparse
import math
import warnings
from dataclasses import replace
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.data.split import as_split
from pyrovae.diagnostics.aggregate_posterior import Aggregation
from pyrovae.diagnostics.decomposition import estimates, terms
from pyrovae.evidence.blocks import Pair
from pyrovae.evidence.reliability import UNRELIABLE_FRACTION
from pyrovae.evidence.report import QUANTITIES
from pyrovae.pairs.context import isolated

OUT = Path(__file__).parent / "results" / "coverage.md"
DOUBLE = torch.float64


def of_oracle(name, **how):
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(1, seed=1)
    return oracle.model, pv.widened(oracle.guide, **how), x, oracle.log_evidence(x)


def of_gaussian(draw):
    """z and x from standard normals, two of each, with a guide that draws as it is told."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", draw(x))

    x = torch.tensor([[0.8, -0.5]], dtype=DOUBLE)
    return model, guide, x, dist.Normal(0.0, math.sqrt(2)).log_prob(x).sum(-1)


def mixture(x):
    weights = torch.tensor([0.7, 0.3], dtype=DOUBLE).expand(len(x), 2)
    loc = torch.stack([x / 2 - 0.4, x / 2 + 0.8], -2)
    return dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, 0.5).to_event(1))


def simplex():
    """Ten classes from Dirichlet fractions; the guide counts each of them for half."""
    x, counts = torch.tensor([[0] * 7 + [1] * 2 + [2]]), torch.tensor([7.0, 2.0, 1.0], dtype=DOUBLE)

    def model(x):
        with pyro.plate("data", len(x)):
            t = pyro.sample("t", dist.Dirichlet(torch.ones(3, dtype=DOUBLE)))
            t = t[..., None, :].expand(*t.shape[:-1], 10, 3)
            pyro.sample("x", dist.Categorical(t).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            found = torch.nn.functional.one_hot(x, 3).to(DOUBLE).sum(-2)
            pyro.sample("t", dist.Dirichlet(1 + found / 2))

    exact = math.lgamma(3) - math.lgamma(13) + torch.lgamma(1 + counts).sum()
    return model, guide, x, exact[None]


def correlation():
    """Six pairs of a correlation that is uniform, the guide nearly so; the evidence by quadrature."""
    noise = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    x = noise @ torch.linalg.cholesky(torch.tensor([[1, 0.9], [0.9, 1]], dtype=DOUBLE)).T

    def model(x):
        with pyro.plate("data", len(x)):
            L = pyro.sample("L", dist.LKJCholesky(2, torch.ones((), dtype=DOUBLE)))
            L = L[..., None, :, :].expand(*L.shape[:-2], 6, 2, 2)
            pyro.sample("x", dist.MultivariateNormal(x.new_zeros(2), scale_tril=L).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("L", dist.LKJCholesky(2, torch.tensor(0.7, dtype=DOUBLE)))

    r = torch.linspace(-1, 1, 400_001, dtype=DOUBLE)[1:-1]
    squares, products = x.square().sum(), x.prod(-1).sum()
    log_joint = -6 * math.log(2 * math.pi) - 3 * torch.log1p(-(r**2)) - (squares - 2 * r * products) / (2 - 2 * r**2)
    return model, guide, x, log_joint.logsumexp(0)[None] - math.log(2) + math.log(2 / 400_000)


ORACLES = {  # name of the oracle, and what is wrong with its guide
    "ppca, wide": ("ppca", {"factor": 1.3, "shift": 0.3}),
    "ppca, narrow": ("ppca", {"factor": 0.7}),
    "factor analysis, beside": ("factor analysis", {"factor": 1.1, "shift": 0.6}),
    "missing entries, wide": ("missing entries", {"factor": 1.3, "shift": 0.3}),
    "mixture prior, wide": ("mixture prior", {"factor": 1.3, "shift": 0.3}),
    "gamma-poisson, wide": ("gamma-poisson", {"factor": 1.3, "shift": 0.3}),
    "gamma-poisson, narrow": ("gamma-poisson", {"factor": 0.7, "shift": 0.2}),
    "beta-binomial, wide": ("beta-binomial", {"factor": 1.3, "shift": 0.3}),
    "hierarchy, wide": ("hierarchy", {"factor": 1.3, "shift": 0.3}),
    "state space, wide": ("state space", {"factor": 1.2, "shift": 0.2}),
    "bernoulli mixture": ("bernoulli mixture", {"factor": 1.5}),
}
OTHERS = {
    "simplex": simplex,
    "correlation": correlation,
    "mixture guide": lambda: of_gaussian(mixture),
    "narrow and beside": lambda: of_gaussian(lambda x: dist.Normal(x / 2 + 0.7, 0.35).to_event(1)),
    "tails of Student(3)": lambda: of_gaussian(lambda x: dist.StudentT(x.new_tensor(3), x / 2, 0.6).to_event(1)),
}


def covered(value, se, truth):
    """Fraction of runs (R,) whose value is within 1.96 stated errors of the truth."""
    return ((value - truth).abs() <= 1.96 * se).double().mean().item()


def of_evaluation(model, guide, x, exact, means, num_particles):
    report = pv.evaluate(model, guide, x, num_particles=num_particles, progress=False, method="importance")
    for name in ("elbo", "reconstruction", "kl_prior"):
        means.setdefault(name, getattr(report, name).mean())
    truths = {**means, "log_evidence": exact, "kl_posterior": exact - means["elbo"]}
    warned = dict.fromkeys(QUANTITIES, report.skewed["elbo"]) | report.skewed
    return {
        f"{name}, K = {num_particles}": (
            covered(getattr(report, name), getattr(report, f"mc_se_{name}"), truths[name]),
            warned[name] > UNRELIABLE_FRACTION,
        )
        for name in QUANTITIES
    }


def of_annealing(model, guide, x, exact):
    found = {}
    for temperatures in (10, 50):
        try:
            run = pv.annealed_evidence(model, guide, x, num_temperatures=temperatures, batch_size=400, progress=False)
        except pv.InputError:  # discrete latents do not anneal
            return {}
        value = covered(run.log_evidence, run.mc_se_log_evidence, exact)
        found[f"annealed, T = {temperatures}"] = (value, run.skewed > UNRELIABLE_FRACTION)
    return found


def of_gaps(model, guide, x, exact, elbo):
    settings = {"families": ["full covariance"], "num_steps": 30, "batch_size": 400, "progress": False}
    try:
        run = pv.gaps(model, guide, x, **settings)
    except pv.InputError:
        return {}
    measured = {
        "log_evidence": (run.log_evidence, run.mc_se_log_evidence, exact),
        "elbo_guide": (run.elbo["guide"], run.mc_se_elbo["guide"], elbo),
        "gap_guide": (run.gap["guide"], run.mc_se_gap["guide"], exact - elbo),
    }
    return {f"gaps: {n}": (covered(*one), run.skewed[n] > UNRELIABLE_FRACTION) for n, one in measured.items()}


def of_surgery(name, how, num_runs):
    """Sets of two draws of each of 50 data, each set as a surgery would have it."""
    oracle = pv.oracles.EXAMPLES[name]()
    x, _ = oracle.draw(50, seed=0)
    with isolated(oracle.model, pv.widened(oracle.guide, **how)) as (model, guide, device):
        run = Aggregation(Pair(model, guide, device, None), as_split(x), seed=0)
        drawn = run.draw(torch.arange(50), 2 * num_runs)
        columns = terms(drawn, run.score(drawn, batch_size=50))
    found = {}
    for term, table in columns.items():
        if not table.isnan().all():
            sets = [estimates(part[..., None], 50)[0] for part in table.split(2)]
            mean, se = (torch.tensor([getattr(one, kind) for one in sets]) for kind in ("mean", "mc_se"))
            found[f"surgery: {term}"] = (covered(mean, se, table.mean()), False)
    return found


def of_bidirectional(model, guide, x, num_runs):
    """Runs of 25 data each, cut out of one of all: the chains of a datum meet no other."""
    settings = {"num_temperatures": 10, "num_leapfrog": 2, "num_particles": 50, "batch_size": 1000, "progress": False}
    try:
        run = pv.bidirectional(model, guide, x[:1].repeat(25, *[1] * (x.dim() - 1)), num_data=25 * num_runs, **settings)
    except pv.InputError:  # discrete latents do not anneal
        return {}
    columns = {name: getattr(run, name) for name in ("lower", "upper", "importance")}
    parts = [
        replace(run, **{name: column[start : start + 25] for name, column in columns.items()})
        for start in range(0, 25 * num_runs, 25)
    ]
    found = {}
    for name in ("lower", "upper", "width"):
        told = [part.numbers()[name] for part in parts]
        mean, se = (torch.tensor([one[kind] for one in told]) for kind in ("mean", "data_se"))
        warned = sum(name in part.skewed for part in parts) / num_runs
        truth = getattr(run, name).mean()
        found[f"bidirectional: {name}"] = (covered(mean, se, truth), warned > UNRELIABLE_FRACTION)
    return found


PARTS = ("evaluation", "annealing", "gaps", "surgery", "bidirectional")
WITH_SURGERY = ("ppca, wide", "factor analysis, beside", "gamma-poisson, wide", "beta-binomial, wide")


def measure(name, num_runs, parts):
    """Everything of one pair: quantity -> (coverage, whether the record warns)."""
    build = OTHERS.get(name) or (lambda: of_oracle(ORACLES[name][0], **ORACLES[name][1]))
    model, guide, x, exact = build()
    x, means = x.expand(num_runs, *x.shape[1:]).contiguous(), {}
    found = {}
    if "evaluation" in parts or "gaps" in parts:
        for num_particles in (1000, 100):
            found |= of_evaluation(model, guide, x, exact, means, num_particles)
    if "annealing" in parts:
        found |= of_annealing(model, guide, x, exact)
    if "gaps" in parts:
        found |= of_gaps(model, guide, x, exact, means["elbo"])
    if "surgery" in parts and name in WITH_SURGERY:
        found |= of_surgery(*ORACLES[name], num_runs)
    if "bidirectional" in parts:
        found |= of_bidirectional(model, guide, x, num_runs)
    return found


def table(found, num_runs):
    """Quantities by pairs in percent, where the record warns in brackets; and what they come to."""
    quantities = list(dict.fromkeys(quantity for cells in found.values() for quantity in cells))

    def cell(value):
        return "-" if value is None else f"({100 * value[0]:.1f})" if value[1] else f"{100 * value[0]:.1f}"

    rows = [["quantity", *found], ["---"] * (len(found) + 1)]
    rows += [[quantity, *(cell(cells.get(quantity)) for cells in found.values())] for quantity in quantities]
    silent = torch.tensor([v for cells in found.values() for v, warned in cells.values() if not warned])
    warned = torch.tensor([v for cells in found.values() for v, warned in cells.values() if warned])
    within = ((silent - 0.95).abs() <= 0.02).double().mean()
    return "\n".join(
        [
            "# What the stated Monte-Carlo errors are worth",
            "",
            f"Per cent of {num_runs} runs whose value is within 1.96 of its stated Monte-Carlo errors of the truth;",
            "in brackets where the record warns. `python tests/benchmarks/coverage.py`",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            f"Without a warning: {len(silent)} cells, mean {100 * silent.mean():.1f}, from {100 * silent.min():.1f} to "
            f"{100 * silent.max():.1f}, {100 * within:.0f} % of them within 95 +- 2 (the cells' own standard error: "
            f"{100 * math.sqrt(0.95 * 0.05 / num_runs):.1f}).",
            f"With one: {len(warned)} cells, mean {100 * warned.mean():.1f}, from {100 * warned.min():.1f}.",
            "",
        ]
    )


def measured_before(markdown):
    """The cells of a table: pair -> quantity -> (coverage, whether the record warns)."""
    (head, _, *rows) = [[*map(str.strip, line.split("|")[1:-1])] for line in markdown.splitlines() if line[:1] == "|"]
    found = {name: {} for name in head[1:]}
    for quantity, *cells in rows:
        for name, cell in zip(found, cells, strict=True):
            if cell != "-":
                found[name][quantity] = (float(cell.strip("()")) / 100, cell.startswith("("))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only", nargs="+", choices=[*ORACLES, *OTHERS], metavar="PAIR", default=[*ORACLES, *OTHERS])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    everything = len(given.only) == len(ORACLES) + len(OTHERS) and len(given.parts) == len(PARTS)
    found = {} if everything else measured_before(OUT.read_text())
    for name in given.only:
        cells = measure(name, given.runs, given.parts)
        print(name, {q: f"{v:.3f}{' w' * w}" for q, (v, w) in cells.items()}, flush=True)
        found[name] = found.get(name, {}) | cells
        OUT.write_text(table(found, given.runs))


if __name__ == "__main__":
    main()
