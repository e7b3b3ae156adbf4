"""All programs with ten seeds: the largest error of every cell, in standard errors, and the cells that fail.

python tests/strangers/ten_seeds.py                     # about twenty minutes on one core
python tests/strangers/ten_seeds.py --seeds 1 --only coins --measurements evaluate,gaps
python tests/strangers/ten_seeds.py --kernels           # with the compiler itself, some seconds for each program
python tests/strangers/ten_seeds.py --coverage 400 --only dropout_in_a_dict --measurements blocks
python tests/strangers/ten_seeds.py --truths            # the exact numbers against brute force, without pyrovae
"""

import argparse
import collections
import math
import sys
import warnings
from pathlib import Path

import pyro
import torch
import torch._inductor.compile_fx as inductor
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample

sys.path.insert(0, str(Path(__file__).parents[1]))

from strangers import stranger
from strangers.measurements import MEASUREMENTS, STANDARD_ERRORS, cell
from strangers.programs import PROGRAMS

NUM_PRIOR_DRAWS = 100_000


def run(names, measurements, seeds):
    """Prints a line for each program, and then the cells that fail."""
    failures = collections.defaultdict(list)  # programs that share their draws fail alike, and are one event
    for name in names:
        row = []
        for measurement in measurements:
            found = []
            for seed in range(seeds):
                pyro.clear_param_store()
                torch.manual_seed(seed)
                found.append(cell(PROGRAMS[name](), measurement, seed))
                if found[-1].wrong:
                    failures[f"{measurement}, seed {seed}: {found[-1].wrong}"].append(name)
            words = {one.word for one in found}
            largest = f" {max(one.z for one in found):.1f}" if words == {"right"} else ""
            row.append(f"{measurement}: {'/'.join(sorted(words))}{largest}")
        print(f"{name}: {', '.join(row)}", flush=True)
    lines = [f"{' = '.join(alike)}, {wrong}" for wrong, alike in failures.items()]
    print("\n" + "\n".join(lines or ["every cell is right, refused or doubted by its own record"]))
    return bool(failures)


def coverage(names, measurements, seeds):
    """Prints how often means of the record hold the exact ones, over seeds that the table does not use.

    Bounds hold an exact number between them on average; what their errors must hold is their own mean over all seeds,
    and the exact number must be beyond them on the wrong side no more often than errors allow.
    """
    for name in names:
        for measurement in measurements:
            found = collections.defaultdict(list)
            for seed in range(100, 100 + seeds):
                pyro.clear_param_store()
                torch.manual_seed(seed)
                for one in MEASUREMENTS[measurement](PROGRAMS[name](), seed):
                    if one.se > 0 and (one.what.startswith("mean") or one.bound):
                        found[one.what].append((one.value - one.truth, one.se, one.doubted, one.bound))
            for what, rows in found.items():
                off, se, doubted, bound = torch.tensor(rows, dtype=torch.float64).unbind(1)
                z = (off - off.mean() * (bound != 0)) / se
                inside, far = (z.abs() < 1.96).double().mean(), int((z.abs() > STANDARD_ERRORS).sum())
                said = f"{inside:.1%} within 1.96 SE, {far} of {len(z)} beyond {STANDARD_ERRORS}"
                if bound.any():
                    wrong = (off * bound / se < -1.96).double().mean()
                    said += f", about the mean {off.mean():.4f}; on the wrong side of the exact by more {wrong:.1%}"
                print(f"{name}, {measurement}, {what}: {said}; doubted {doubted.mean():.0%}", flush=True)
    return False


def brute_force(s, dtype):
    """log p(x) by plain importance sampling with Pyro's own traces from the prior; and its error."""
    values, errors = [], []
    for n in range(len(s.data[0])):
        parts = [part.to(dtype) if part.is_floating_point() else part for part in s.data]
        rows = [part[n : n + 1].expand(NUM_PRIOR_DRAWS, *part.shape[1:]) for part in parts]
        with pyro.get_param_store().scope(), torch.no_grad():
            trace = poutine.trace(s.model).get_trace(*rows)
        weight = torch.zeros(NUM_PRIOR_DRAWS, dtype=torch.float64)
        for node in trace.nodes.values():
            if node["type"] == "sample" and node["is_observed"] and not site_is_subsample(node):
                log_prob = scale_and_mask(node["fn"].log_prob(node["value"]), 1.0, node["mask"])
                weight += log_prob.movedim(_rows_dim(log_prob), 0).reshape(NUM_PRIOR_DRAWS, -1).sum(-1)
        values.append(weight.logsumexp(0) - math.log(NUM_PRIOR_DRAWS))
        errors.append((weight - values[-1]).exp().std() / NUM_PRIOR_DRAWS**0.5)
    return torch.stack(values), torch.stack(errors)


def _rows_dim(log_prob):
    return next(dim for dim, size in enumerate(log_prob.shape) if size == NUM_PRIOR_DRAWS)


def by_brute_force(s):
    """In doubles, where the constants of the programs allow them; None where torch cannot score what is masked."""
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            return brute_force(s, dtype)
        except (IndexError, RuntimeError):  # a class looks a missing entry up, masked or not
            continue
        finally:
            torch.set_default_dtype(torch.float32)
    return None


def check_truths(names):
    """Each truth against draws from the prior, and against a grid of twice as many points."""
    wrong = False
    for name in names:
        s = PROGRAMS[name]()
        if s.log_evidence is None:
            continue
        stranger.GRID = 2
        twice = PROGRAMS[name]()
        stranger.GRID = 1
        step = float((s.truth - twice.truth).abs().max())
        if s.elbo is not None and bool(s.elbo.isfinite().all()):
            step = max(step, float((s.elbo - twice.elbo).abs().max()))
        torch.manual_seed(0)
        found = by_brute_force(s)
        value, error = found or (s.truth, torch.zeros_like(s.truth))
        z = float((((value - s.truth).abs() - 1e-5).clamp_min(0) / error.clamp_min(1e-9)).max())
        bad = z > 5 or step > 1e-5
        wrong |= bad
        off = f"{z:.1f} standard errors" if found else "no brute force"
        print(f"{'WRONG ' if bad else ''}{name}: {off}, {step:.1e} from twice the points", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", help="names of programs, or parts of them, by commas")
    parser.add_argument("--measurements", default=",".join(MEASUREMENTS))
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--coverage", type=int, metavar="SEEDS")
    parser.add_argument("--truths", action="store_true")
    given = parser.parse_args()
    parts = given.only.split(",") if given.only else [""]
    names = [name for name in PROGRAMS if any(part in name for part in parts)]
    pyro.enable_validation(True)
    warnings.simplefilter("ignore")
    if given.truths:
        pyro.enable_validation(False)
        return check_truths(names)
    if not given.kernels:
        inductor.compile_fx = lambda module, inputs, **_: module
    if given.coverage:
        return coverage(names, given.measurements.split(","), given.coverage)
    return run(names, given.measurements.split(","), given.seeds)


if __name__ == "__main__":
    sys.exit(main())
