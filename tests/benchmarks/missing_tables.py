"""Tables with missing entries: imputed, scored and pooled, beside what statisticians use.

    PYROVAE_DATA=... python tests/benchmarks/missing_tables.py --parts breast wine bfi pooled --out tests/benchmarks/results

breast: breast cancer (scikit-learn), standard scores, half of the entries missing completely at random; the protocol of
MIWAE's notebook (Mattei & Frellsen 2019). wine: white wine, five of eleven measurements missing above their mean; that
of not-MIWAE's (Ipsen et al. 2021). bfi: answers with gaps, a fifth more of the test rows hidden. pooled: a regression
coefficient from 20 completed data sets, by Rubin's rules. Each part takes 2 to 8 minutes on one core and rewrites its own
section.
"""

import argparse
import math
import os
import re
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro.distributions as dist
import torch
from real_tables import BFI, fitted, hidden_answers, log_mass, of_people
from torch import nn
from torch.nn.functional import softplus

import pyrovae as pv
from pyrovae.pairs.missing.entries import completed, of_entries

LEVEL = 0.9
NORMAL_QUANTILE = 1.6448536  # of 0.95
NUM_DRAWS = 1000


# ------------------------------------------------------------------------------------------- normals, gaps integrated out


class Normal(NamedTuple):
    """A normal of rows, fitted to rows with gaps."""

    loc: torch.Tensor  # (D,) float64
    covariance: torch.Tensor  # (D, D)

    def expected(self, x):
        """Conditional means of rows (N, D), and the mean over rows of the covariance that they leave, (D, D)."""
        seen = ~x.isnan()
        both = seen[:, :, None] & seen[:, None, :]
        block = torch.where(both, self.covariance, (~seen).to(x).diag_embed())
        across = torch.where(seen[:, None, :], self.covariance, 0.0)
        gain = torch.cholesky_solve(across.mT, torch.linalg.cholesky(block)).mT
        mean = self.loc + (gain @ torch.where(seen, x - self.loc, 0.0)[..., None]).squeeze(-1)
        left = self.covariance - gain @ across.mT
        return torch.where(seen, x, mean), left.mean(0)

    def log_density(self, x):
        """Log density of what is there of rows, (N,) nats."""
        seen = ~x.isnan()
        return of_entries(dist.MultivariateNormal(self.loc, self.covariance), seen).log_prob(x.nan_to_num(0.0))

    def moments(self, x):
        """Mean and standard deviation of each entry given what is there, (N, D) each."""
        fn = dist.MultivariateNormal(self.loc, self.covariance).expand([len(x)])
        found = completed(fn, x, ~x.isnan())
        return found.mean, found.variance.sqrt()


def normal_of(x, num_factors=None, *, num_steps=300, tolerance=1e-6):
    """A normal by expectation-maximisation over missing entries, of full covariance or of factor analysis.

    Little and Rubin (2002), chapter 11; of factors one step of Rubin and Thayer (1982) for each.
    """
    x = x.double()
    scale = torch.from_numpy(np.nanstd(x.numpy(), 0))
    found, before = Normal(torch.from_numpy(np.nanmean(x.numpy(), 0)), scale.square().diag()), -math.inf
    if num_factors is not None:
        noise = torch.Generator().manual_seed(0)
        loadings = 0.3 * scale[:, None] * torch.randn(len(scale), num_factors, generator=noise, dtype=x.dtype)
        square = scale.square()
        found = Normal(found.loc, loadings @ loadings.T + square.diag())
    for _ in range(num_steps):
        mean, left = found.expected(x)
        loc = mean.mean(0)
        moment = (mean - loc).T @ (mean - loc) / len(x) + left
        if num_factors is None:
            found = Normal(loc, moment + 1e-9 * scale.square().diag())
        else:
            score = torch.linalg.solve(found.covariance, loadings).T  # (k, D)
            within = torch.eye(num_factors, dtype=x.dtype) - score @ loadings + score @ moment @ score.T
            loadings = torch.linalg.solve(within, score @ moment).T
            square = (moment - loadings @ score @ moment).diagonal().clamp_min(1e-4 * scale.square())
            found = Normal(loc, loadings @ loadings.T + square.diag())
        now = float(found.log_density(x).mean())
        if now - before < tolerance:
            break
        before = now
    return found


def best_factors(x, sizes):
    """Factor analysis of the size that tells a tenth of what is there best, which was hidden from it."""
    shown = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.1
    part = x.masked_fill(~shown, math.nan).double()

    def score(size):
        model = normal_of(part, size)
        return float((model.log_density(x.double()) - model.log_density(part)).mean())

    best = max(sizes, key=score)
    return normal_of(x, best), best


# ------------------------------------------------------------------------------------------------------------- scores


class Imputed(NamedTuple):
    """What a method says of missing entries; None where it does not."""

    mean: torch.Tensor  # (N, D)
    interval: tuple[torch.Tensor, torch.Tensor] | None = None  # of 90 %
    nats: torch.Tensor | None = None  # (N,) log p(x_m | x_o)
    doubt: str = ""  # unreliable share and routes

    @classmethod
    def of_normal(cls, mean, sd, nats=None, doubt="exact"):
        return cls(mean, (mean - NORMAL_QUANTILE * sd, mean + NORMAL_QUANTILE * sd), nats, doubt)

    @classmethod
    def of_completion(cls, found):
        """By the draws of a completion."""
        ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low, high = (torch.cat([rows.quantile(end, 0) for rows in found.draws.float().split(100, 1)]) for end in ends)
        nats = None if found.density is None else found.density.log_density
        return cls(found.mean, (low, high), nats, doubt_of(found))


def doubt_of(found):
    """The unreliable share of a completion, and of its conditional density; and the routes of its data."""
    routes = ", ".join(f"{name} {one['num_data']}" for name, one in found.report.routes().items() if one["num_data"])
    of_nats = f" ({found.density.fraction_unreliable:.1%} of nats)" if found.density is not None else ""
    return f"{found.fraction_unreliable:.1%}{of_nats}: {routes}"


def row(name, imputed, x, missing, *, root=False):
    """A row of a table: error, nats per entry with their error over rows, coverage and width."""
    error = float((imputed.mean - x)[missing].square().mean())
    cells = [name, f"{math.sqrt(error) if root else error:.4f}"]
    if imputed.nats is None:
        cells += ["", ""]
    else:
        count = missing.sum(1).double()
        each = float(imputed.nats.sum() / count.sum())
        se = float((imputed.nats - each * count).square().sum().sqrt() / count.sum())
        cells += [f"{each:.4f}", f"{se:.4f}"]
    if imputed.interval is None:
        cells += ["", ""]
    else:
        low, high = imputed.interval
        inside = ((x >= low) & (x <= high))[missing].double().mean()
        cells += [f"{100 * inside:.1f} %", f"{(high - low)[missing].mean():.2f}"]
    return f"| {' | '.join([*cells, imputed.doubt])} |"


def by_columns(holed, x, missing):
    """The mean of each column, and independent normals about it."""
    loc, sd = holed.double().nanmean(0).expand_as(x), torch.from_numpy(np.nanstd(holed.double().numpy(), 0)).expand_as(x)
    nats = torch.where(missing, dist.Normal(loc, sd).log_prob(x.double()), 0.0).sum(1)
    return Imputed.of_normal(loc, sd, nats)


def chained(holed, *estimator, **how):
    """scikit-learn's IterativeImputer, (N, D)."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return torch.from_numpy(IterativeImputer(*estimator, **how).fit_transform(holed.double().numpy()))


def by_chained_equations(holed, num_draws):
    """As it comes, linear; its spread over draws of its posterior."""
    mean = chained(holed, random_state=0)
    if not num_draws:
        return Imputed(mean)
    draws = torch.stack([chained(holed, sample_posterior=True, random_state=seed) for seed in range(num_draws)])
    return Imputed.of_normal(mean, (1 + 1 / num_draws) ** 0.5 * draws.std(0), doubt=f"{num_draws} draws")


def by_forests(holed, num_trees=50, num_rounds=5):
    """Chained random forests, as missForest's (Stekhoven and Buehlmann 2012)."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(num_trees, max_features="sqrt", random_state=0)
    return Imputed(chained(holed, forest, max_iter=num_rounds, random_state=0))


def told(message, start):
    print(f"{time.process_time() - start:.0f} s: {message}", file=sys.stderr, flush=True)


HEAD = "| method | {error} | nats per missing entry | SE | coverage of 90 % | width | unreliable: routes |"
RULE = "| --- | --- | --- | --- | --- | --- | --- |"


# ------------------------------------------------------------------------------------------------------ breast cancer


def student_t():
    """Student-t of predicted location, scale and degrees of freedom, at least three, as MIWAE's notebook has it."""

    def build(event_dim, loc, raw_scale, raw_df):
        return dist.StudentT(3 + softplus(raw_df), loc, 1e-3 + softplus(raw_scale)).to_event(event_dim)

    return pv.families.Family("student_t(df predicted)", lambda shape: (shape,) * 3, build)


def perceptron_pair(num_columns, latent, width, *, likelihood, posterior, decoder, activation=nn.ReLU, seed=0):
    """Model and guide with networks of two layers (a linear decoder of none), for rows with gaps."""
    hidden = (width, width)

    def encode(shape):
        return pv.networks.mlp(shape, *hidden, activation=activation, seed=2 * seed + 1)

    vae = pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        decoder=pv.Conditional(
            likelihood, (num_columns,), pv.networks.mlp(latent, *decoder, activation=activation, seed=2 * seed)
        ),
        encoder=pv.Conditional(posterior, (latent,), pv.networks.masked_input(num_columns, encode)),
    )
    return vae.model, vae.guide


def adam(rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def quietly(function, *args, **how):
    """Without the warnings whose content the table has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **how)


def breast(epochs=1001, num_particles=10_000, num_rows=None, seeds=(0,), num_chained=20, sizes=(2, 3, 4, 5, 6, 8, 10)):
    """Rows of the section."""
    from sklearn.datasets import load_breast_cancer

    start = time.process_time()
    whole = torch.from_numpy(load_breast_cancer().data)[:num_rows]
    whole = (whole - whole.mean(0)) / whole.std(0, correction=0)
    x = whole.float()
    missing = ~pv.data.mcar(x.shape, 0.5, seed=0)
    holed = x.masked_fill(missing, math.nan)
    yield f"{len(x)} rows, 30 columns, {int(missing.sum())} entries missing; fitted to the rows that are imputed. Latents 10,"
    yield f"networks 128-128, IWAE of 20, batches of 32, Adam 2e-4, {epochs} epochs. MIWAE's notebook: 0.2867."
    yield ""
    yield HEAD.format(error="MSE")
    yield RULE
    for seed in seeds:
        pair = perceptron_pair(
            x.shape[1], 10, 128, likelihood=student_t(), posterior=student_t(), decoder=(128, 128), seed=seed
        )
        model, guide = pair
        how = {"objective": pv.objectives.IWAE(20), "optimizer": adam(2e-4), "batch_size": 32, "seed": seed}
        fit = pv.fit(pv.observed_entries(model), guide, holed, epochs=epochs, device="cpu", progress=False, **how)
        told(f"breast {seed}: fitted, {fit.settings.get('compile')}, {fit!r}", start)
        found = quietly(
            pv.conditional,
            model,
            guide,
            holed,
            num_draws=NUM_DRAWS,
            num_particles=num_particles,
            method="importance",
            progress=False,
        )
        label = f"VAE, seed {seed}, "
        told(f"breast {seed}: importance", start)
        yield row(f"{label}importance sampling, L = {num_particles:,}", Imputed.of_completion(found), x, missing)
        found = quietly(pv.conditional, model, guide, x, ~missing, num_draws=NUM_DRAWS, progress=False)
        told(f"breast {seed}: routed", start)
        yield row(f"{label}routed, K = 1,000", Imputed.of_completion(found), x, missing)
    yield row("mean, independent normals", by_columns(holed, x, missing), x, missing)
    yield row("IterativeImputer (linear)", by_chained_equations(holed, num_chained), x, missing)
    told("breast: chained", start)
    yield row("IterativeImputer, random forests (as missForest)", by_forests(holed), x, missing)
    told("breast: forests", start)
    factors, count = best_factors(holed, sizes)
    yield row(f"factor analysis, {count} factors, exact", of_exact(factors, holed, whole), x, missing)
    yield row("normal, full covariance, exact", of_exact(normal_of(holed), holed, whole), x, missing)
    told("breast: normals", start)


def of_exact(model, holed, whole):
    """What a normal says of missing entries, in closed form."""
    mean, sd = model.moments(holed.double())
    return Imputed.of_normal(mean, sd, model.log_density(whole.double()) - model.log_density(holed.double()))


# ---------------------------------------------------------------------------------------------------------- white wine


def wine(folder=None, epochs=98, num_particles=10_000, num_rows=None):
    """Rows of the section."""
    start = time.process_time()
    path = (folder or Path(os.environ["PYROVAE_DATA"])) / "tabular" / "winequality-white.csv"
    whole = torch.from_numpy(np.genfromtxt(path, delimiter=";", skip_header=1)[:num_rows, :11])
    x = ((whole - whole.mean(0)) / whole.std(0, correction=0)).float()
    missing = ~pv.data.mnar(x, 0.5, columns=range(5), threshold=True)
    holed = x.masked_fill(missing, math.nan)
    yield f"{len(x)} rows, 11 columns, {int(missing.sum())} entries missing, all that lie above the means of five columns."
    yield f"Latents 10, encoder 128-128 (tanh), linear decoder, IWAE of 20, batches of 16, {epochs} epochs. not-MIWAE: 1.035."
    yield ""
    yield HEAD.format(error="RMSE")
    yield RULE
    for name, sign in (("sign known", 1), ("sign unknown", None), ("mask ignored", 0)):
        noise = pv.families.normal(scale=pv.families.learned(0.5))
        model, guide = perceptron_pair(
            11, 10, 128, likelihood=noise, posterior=pv.families.normal(), decoder=(), activation=nn.Tanh
        )
        masking = None if sign == 0 else pv.self_masking(11, sign=sign)
        if masking is None:
            model = pv.observed_entries(model)
        else:
            model, guide = pv.with_missingness(model, guide, masking)
        how = {"objective": pv.objectives.IWAE(20), "optimizer": adam(1e-3), "batch_size": 16, "seed": 0}
        fit = pv.fit(model, guide, holed, epochs=epochs, device="cpu", progress=False, **how)
        slopes = "" if masking is None else f", slopes {[round(w, 1) for w in masking.slope[:5].tolist()]}"
        told(f"wine, {name}: fitted, {fit.settings.get('compile')}, {fit!r}{slopes}", start)
        rows = missing.any(1)
        settings = {"num_draws": NUM_DRAWS, "num_particles": num_particles, "method": "importance"}
        found = quietly(pv.conditional, model, guide, holed[rows], progress=False, **settings)
        told(f"wine, {name}: imputed", start)
        yield row(f"VAE, {name}{slopes}", Imputed.of_completion(found), x[rows], missing[rows], root=True)
    yield row("mean, independent normals", by_columns(holed, x, missing), x, missing, root=True)
    yield row("IterativeImputer (linear)", by_chained_equations(holed, 20), x, missing, root=True)
    yield row("IterativeImputer, random forests", by_forests(holed, 20, 3), x, missing, root=True)
    told("wine: chained", start)
    yield row("normal, full covariance, exact", of_exact(normal_of(holed), holed, x), x, missing, root=True)


PARTS = {"breast": ("Breast cancer, half missing", breast), "wine": ("White wine, missing above the mean", wine)}
TITLE = """# Tables with missing entries

`python tests/benchmarks/missing_tables.py`; nats. What the columns say stands at the head of that file.
Coverage and width are those of intervals of 90 % for each missing entry by itself; SE is over rows, given the fit. Of an
importance sample, "unreliable" counts data whose k-hat is too high, or not defined.
"""


def written(path, sections):
    """Puts sections in the place of those of their heads, and keeps the others."""
    old = path.read_text() if path.is_file() else TITLE
    kept = dict(re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n)*)", old, re.MULTILINE))
    kept |= sections
    order = [head for head, _ in PARTS.values()]
    parts = [f"## {head}\n\n{kept[head].strip()}\n" for head in sorted(kept, key=order.index)]
    path.write_text("\n".join([TITLE, *parts]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS), help="[all]")
    parser.add_argument("--out", type=Path, required=True, help="folder of missing_tables.md")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for part in given.parts:
        head, measure = PARTS[part]
        written(given.out / "missing_tables.md", {head: "\n".join(measure())})


if __name__ == "__main__":
    main()
