"""Tables with missing entries: imputed, scored and pooled, beside what statisticians use.

    PYROVAE_DATA=... python tests/benchmarks/missing_tables.py --parts breast masks wine bfi pooled --out tests/benchmarks/results

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
from real_tables import BFI, bins, fitted, hidden_answers, log_mass, of_frequencies, of_people
from torch import nn
from torch.nn.functional import softplus

import pyrovae as pv
from pyrovae.data.missing.masks import MECHANISMS
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
    loc, sd = (
        holed.double().nanmean(0).expand_as(x),
        torch.from_numpy(np.nanstd(holed.double().numpy(), 0)).expand_as(x),
    )
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


def by_forests(holed, num_trees, num_rounds=5):
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


class Holed(NamedTuple):
    """Standard scores, whole and with gaps."""

    x: torch.Tensor  # (N, D)
    missing: torch.Tensor  # (N, D) booleans

    @property
    def holed(self):
        return self.x.masked_fill(self.missing, math.nan)


def breast_rows(num_rows=None, num_columns=None, mask_seed=0):
    """Breast cancer, half of its entries missing; all rows and columns where no number is given."""
    from sklearn.datasets import load_breast_cancer

    whole = torch.from_numpy(load_breast_cancer().data)[:num_rows, :num_columns]
    x = ((whole - whole.mean(0)) / whole.std(0, correction=0)).float()
    return Holed(x, ~pv.data.mcar(x.shape, 0.5, seed=mask_seed))


def miwae(holed, epochs, seed=0):
    """Model and guide as MIWAE's notebook has them, fitted to rows with gaps; the model is that of whole rows."""
    student = {"likelihood": student_t(), "posterior": student_t(), "decoder": (128, 128)}
    model, guide = perceptron_pair(holed.shape[1], 10, 128, **student, seed=seed)
    how = {"objective": pv.objectives.IWAE(20), "optimizer": adam(2e-4), "batch_size": 32, "seed": seed}
    fit = pv.fit(pv.observed_entries(model), guide, holed, epochs=epochs, device="cpu", progress=False, **how)
    print(f"{fit!r}, compiled {fit.settings.get('compile')}", file=sys.stderr, flush=True)
    return model, guide


def by_encoder(model, guide, holed, num_particles):
    """Self-normalised importance sampling, as the protocols have it."""
    how = {"num_draws": NUM_DRAWS, "num_particles": num_particles, "method": "importance", "progress": False}
    return Imputed.of_completion(quietly(pv.conditional, model, guide, holed, **how))


def breast(
    epochs=1001,
    num_particles=10_000,
    num_rows=None,
    num_columns=None,
    num_chained=20,
    num_trees=50,
    sizes=(2, 3, 4, 5, 6, 8, 10),
):
    """Rows of the section."""
    start = time.process_time()
    data = breast_rows(num_rows, num_columns)
    x, missing, holed = data.x, data.missing, data.holed
    yield f"{len(x)} rows, {x.shape[1]} columns, {int(missing.sum())} entries missing; fitted to the rows that are imputed. Latents 10,"
    yield f"networks 128-128, IWAE of 20, batches of 32, Adam 2e-4, {epochs} epochs. MIWAE's notebook: 0.2867."
    yield ""
    yield HEAD.format(error="MSE")
    yield RULE
    model, guide = miwae(holed, epochs)
    told("breast: fitted", start)
    found = by_encoder(model, guide, holed, num_particles)
    yield row(f"VAE, seed 0, importance sampling, L = {num_particles:,}", found, x, missing)
    routed = quietly(pv.conditional, model, guide, x, ~missing, num_draws=NUM_DRAWS, progress=False)
    yield row("VAE, seed 0, routed, K = 1,000", Imputed.of_completion(routed), x, missing)
    told("breast: imputed", start)
    yield row("mean, independent normals", by_columns(holed, x, missing), x, missing)
    yield row("IterativeImputer (linear)", by_chained_equations(holed, num_chained), x, missing)
    yield row("IterativeImputer, random forests (as missForest)", by_forests(holed, num_trees), x, missing)
    told("breast: scikit-learn", start)
    factors, count = best_factors(holed, sizes)
    yield row(f"factor analysis, {count} factors, exact", of_exact(factors, holed, x.double()), x, missing)
    yield row("normal, full covariance, exact", of_exact(normal_of(holed), holed, x.double()), x, missing)
    told("breast: normals", start)


def masks(epochs=1001, num_particles=10_000, num_rows=None, num_columns=None, mask_seeds=(1, 2), num_factors=10):
    """Rows of the section."""
    start = time.process_time()
    yield "As above, by importance sampling from the encoder, for other masks of half of the entries and other weights."
    yield ""
    yield "| method, mask " + HEAD.format(error="MSE").removeprefix("| method ")
    yield RULE
    for seed in mask_seeds:
        data = breast_rows(num_rows, num_columns, seed)
        model, guide = miwae(data.holed, epochs, seed)
        found = by_encoder(model, guide, data.holed, num_particles)
        yield row(f"VAE, mask {seed}", found, data.x, data.missing)
        yield row(f"IterativeImputer (linear), mask {seed}", by_chained_equations(data.holed, 0), data.x, data.missing)
        factors = of_exact(normal_of(data.holed, num_factors), data.holed, data.x.double())
        yield row(f"factor analysis, {num_factors} factors, exact, mask {seed}", factors, data.x, data.missing)
        told(f"masks: {seed}", start)


def of_exact(model, holed, whole):
    """What a normal says of missing entries, in closed form."""
    mean, sd = model.moments(holed.double())
    return Imputed.of_normal(mean, sd, model.log_density(whole.double()) - model.log_density(holed.double()))


# ---------------------------------------------------------------------------------------------------------- white wine


def wine(folder=None, epochs=98, num_particles=10_000, num_rows=None, num_chained=20, num_trees=20):
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
        found = by_encoder(model, guide, holed[rows], num_particles)
        told(f"wine, {name}: imputed", start)
        yield row(f"VAE, {name}{slopes}", found, x[rows], missing[rows], root=True)
    yield row("mean, independent normals", by_columns(holed, x, missing), x, missing, root=True)
    yield row("IterativeImputer (linear)", by_chained_equations(holed, num_chained), x, missing, root=True)
    yield row("IterativeImputer, random forests", by_forests(holed, num_trees, 3), x, missing, root=True)
    told("wine: chained", start)
    yield row("normal, full covariance, exact", of_exact(normal_of(holed), holed, x), x, missing, root=True)


# -------------------------------------------------------------------------------------------------- answers with gaps


def masses_by_draws(vae, split, hidden, columns, num_particles):
    """log p(answer | what is left of its row) of hidden answers by draws of the posterior, (N, D); and the completion."""
    how = {"num_draws": NUM_DRAWS, "num_particles": num_particles, "progress": False}
    found = quietly(pv.conditional, vae.model, vae.guide, split, ~hidden, **how)
    x, covariates = split.tensors
    with torch.no_grad():
        y = vae.decoder(vae.beside(found.values["z"].to(x), covariates))
        each = log_mass(y, x, columns).logsumexp(0) - math.log(NUM_DRAWS)
    return each.masked_fill(~hidden, math.nan), found


def masses_of_normal(data, hidden):
    """The same by one normal of answers and covariates, its covariance fitted to training rows with gaps."""
    rows = {name: torch.cat(getattr(data, name).tensors, -1).double() for name in ("train", "test")}
    model, x, width = normal_of(rows["train"]), rows["test"].clone(), hidden.shape[1]
    x[:, :width] = x[:, :width].masked_fill(hidden, math.nan)
    mean, sd = (one[:, :width] for one in model.moments(x))
    ends = (end.double() for end in bins(data.test.x.nan_to_num(0.0), data.columns))
    below, above = (torch.special.ndtr((end - mean) / sd) for end in ends)
    return (above - below).clamp_min(1e-30).log().masked_fill(~hidden, math.nan)


def bfi(source=None, seeds=(0, 1), epochs=200, num_particles=4000, latent=5, width=64):
    """Rows of the section."""
    start = time.process_time()
    source = Path(os.environ["PYROVAE_DATA"]) / "tabular" / "bfi.csv" if source is None else source
    kinds = ("ordinal", "real")
    data = {one: pv.data.load(source, columns=BFI.format(items=one), covariates=["age", "gender"]) for one in kinds}
    return bfi_table(data, seeds, epochs, num_particles, latent, width, start)


def bfi_table(data, seeds, epochs, num_particles, latent, width, start):
    """Rows of the section, of data whose answers are ordinal and real."""
    answers, train = data["ordinal"].test, data["ordinal"].train
    hidden = hidden_answers(answers.x)
    yield f"{int(hidden.sum())} hidden answers of {len(answers)} test rows, which lack {int(answers.x.isnan().sum())} more of their own;"
    yield f"{len(train)} training rows, {len(train.missing())} with gaps. A normal's masses are those of its bins. SE over people."
    yield "Joint: all hidden answers of a row together, in nats per answer. Differences are paired."
    yield ""
    yield "| model | log p(answer), nats | SE | over the normal (SE) | in SE | joint | unreliable: routes |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    normal = masses_of_normal(data["real"], hidden)
    told(f"bfi: normal {of_people(normal)}", start)
    for likelihood in ("ordinal", "categorical"):
        for seed in seeds:
            family = "mixed" if likelihood == "ordinal" else likelihood
            vae = fitted(data["ordinal"], family, seed, latent=latent, hidden=[width], epochs=epochs)
            each, found = masses_by_draws(vae, answers, hidden, data["ordinal"].columns, num_particles)
            told(f"bfi: {likelihood} {seed} {of_people(each)}", start)
            joint = f"{found.density.numbers()['nats_per_entry']['mean']:.4f}"
            yield of_answers(f"VAE, {likelihood}, seed {seed}", each, normal, joint, doubt_of(found))
    yield of_answers("normal, full covariance, gaps integrated out (bins)", normal, normal, "", "exact")
    yield of_answers("frequencies of each question", of_frequencies(data["ordinal"], hidden), normal, "", "exact")


def of_answers(name, each, normal, joint, doubt):
    """A row of the table."""
    (mean, se), (apart, error) = of_people(each), of_people(each - normal)
    paired = [f"{apart:.4f} ({error:.4f})", f"{apart / error:.1f}"] if error > 0 else ["", ""]
    return f"| {name} | {mean:.4f} | {se:.4f} | {' | '.join(paired)} | {joint} | {doubt} |"


# ------------------------------------------------------------------------------------------------ pooled coefficients


class Simulated(NamedTuple):
    """Data sets of factor analysis, whose coefficient of column 0 on column 1 given the others is known."""

    oracle: object
    x: torch.Tensor  # (R, n, D)
    truth: float

    @classmethod
    def of(cls, num_repetitions, num_rows, num_columns=4):
        oracle = pv.oracles.missing_entries(num_columns, 2, seed=0)
        program = oracle.complete
        x, _ = program.draw(num_repetitions * num_rows, seed=0)
        covariance = program.loadings @ program.loadings.T + program.noise_scale.square().diag()
        truth = torch.linalg.solve(covariance[1:, 1:], covariance[1:, 0])[0]
        return cls(oracle, x.unflatten(0, (num_repetitions, num_rows)), float(truth))

    def observed(self, mechanism, fraction):
        """A mask for each data set."""
        of = MECHANISMS[mechanism]
        return torch.stack([of(x, fraction, seed=seed) for seed, x in enumerate(self.x)])

    def masking(self, fraction):
        """The mechanism of "mnar" at the moments of the population."""
        program = self.oracle.complete
        sd = (program.loadings.square().sum(1) + program.noise_scale.square()).sqrt()
        score = torch.special.ndtri((torch.arange(2000).double() + 0.5) / 2000)
        offsets = torch.linspace(-6, 6, 2401, dtype=torch.float64)
        chances = torch.stack([(2.0 * score + offset).sigmoid().mean() for offset in offsets])
        module = pv.self_masking(len(sd)).double()
        slope = 2.0 / sd
        module.raw_slope.data = slope
        module.intercept.data = slope * program.bias - offsets[(chances - fraction).abs().argmin()]
        return module


def coefficient(x, weight=None):
    """Least squares of column 0 on the others: the coefficient of column 1 and its variance, (...)."""
    weight = torch.ones_like(x[..., 0]) if weight is None else weight
    design = torch.cat([torch.ones_like(x[..., :1]), x[..., 1:]], -1) * weight[..., None]
    y = x[..., 0] * weight
    inverse = torch.linalg.inv(design.mT @ design)
    beta = (inverse @ design.mT @ y[..., None]).squeeze(-1)
    rest = (y - (design @ beta[..., None]).squeeze(-1)).square().sum(-1)
    return beta[..., 1], inverse[..., 1, 1] * rest / (weight.sum(-1) - design.shape[-1])


def pooled_of(estimates, variances, df):
    """Estimates and 95 % intervals of R data sets, from (M, R) or, of one completed data set, (R,)."""
    if estimates.dim() == 2:
        found = pv.pool(estimates, variances, complete_df=df)
        return found.estimate, found.low, found.high
    from scipy.stats import t

    half = torch.from_numpy(t.ppf(0.975, np.broadcast_to(df, estimates.shape))) * variances.sqrt()
    return estimates, estimates - half, estimates + half


def of_pooled(mechanism, name, truth, found, doubt=""):
    """A row of the table."""
    estimate, low, high = found
    count = len(estimate)
    inside = float(((low <= truth) & (truth <= high)).double().mean())
    error = math.sqrt(max(inside * (1 - inside), 1 / count) / count)
    cells = [f"{float(estimate.mean()) - truth:.4f}", f"{float(estimate.std()) / math.sqrt(count):.4f}"]
    cells += [f"{100 * inside:.1f} % ({100 * error:.1f})", f"{float((high - low).mean()):.3f}", str(count), doubt]
    return f"| {mechanism} | {name} | {' | '.join(cells)} |"


def draws_of(model, guide, x, num_imputations, **how):
    """Completed data sets (M, R, n, D) by the routed draws of their rows with gaps, and what vouches for them."""
    flat = x.flatten(0, 1)
    rows = flat.isnan().any(1)
    found = quietly(pv.conditional, model, guide, flat[rows], num_draws=num_imputations, progress=False, **how)
    whole = flat.expand(num_imputations, *flat.shape).clone()
    whole[:, rows] = found.draws.to(flat)
    return whole.unflatten(1, x.shape[:2]), doubt_of(found)


def linear_vae(x, num_steps, seed):
    """A small VAE with a linear decoder, fitted to one data set with gaps, its standard scores."""
    noise = pv.families.normal_of_scales()
    model, guide = perceptron_pair(
        x.shape[1], 2, 20, likelihood=noise, posterior=pv.families.normal(), decoder=(), seed=seed
    )
    how = {"objective": pv.objectives.IWAE(5), "optimizer": adam(1e-2), "batch_size": len(x), "epochs": num_steps}
    pv.fit(pv.observed_entries(model), guide, x, device="cpu", progress=False, seed=seed, **how)
    return model, guide


def by_vae(x, num_imputations, num_steps):
    """Completed data sets (M, R, n, D), by a VAE that is fitted to each."""
    found, doubtful = [], 0.0
    for seed, one in enumerate(x):
        centre, scale = one.nanmean(0), torch.from_numpy(np.nanstd(one.numpy(), 0))
        scores = ((one - centre) / scale).float()
        whole, doubt = draws_of(*linear_vae(scores, num_steps, seed), scores[None], num_imputations, num_particles=500)
        found.append(torch.where(one.isnan(), whole[:, 0].double() * scale + centre, one))
        doubtful += float(doubt.partition("%")[0]) / len(x)
    return torch.stack(found, 1), f"{doubtful:.1f}%: routed"


def pooled(num_repetitions=200, num_rows=200, num_imputations=20, num_fits=10, num_masked=50, num_steps=400):
    """Rows of the section."""
    start = time.process_time()
    simulated = Simulated.of(num_repetitions, num_rows)
    truth, df = simulated.truth, num_rows - simulated.x.shape[-1]
    yield f"Factor analysis of 4 columns and 2 factors, {num_repetitions} data sets of {num_rows} rows: the coefficient of column 0 on"
    yield f"column 1 given the others, {truth:.4f}. {num_imputations} completed data sets each; at random (MAR), column 0 is always there and"
    yield "decides. The model's parameters are known but for the VAE's, which is fitted to each data set; 95 % intervals. SE of a coverage: at least 1 / data sets."
    yield ""
    yield "| missing | method | bias | SE | coverage (SE) | width | data sets | unreliable: routes |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    yield of_pooled("nothing", "least squares", truth, pooled_of(*coefficient(simulated.x), df))
    cells = [(mechanism, fraction) for mechanism in ("mcar", "mar", "mnar") for fraction in (0.2, 0.5)]
    for cell in cells:
        yield from of_mechanism(simulated, *cell, df, num_imputations, num_masked)
        told(f"pooled: {cell}", start)
    for cell in cells:
        yield of_fits(simulated, *cell, df, num_imputations, num_fits, num_steps)
        told(f"pooled: {cell}, fitted", start)


def with_gaps(simulated, mechanism, fraction):
    """The data sets with gaps, which entries are there, and what the table calls the mechanism."""
    observed = simulated.observed(mechanism, fraction)
    return simulated.x.masked_fill(~observed, math.nan), observed, f"{mechanism.upper()}, {100 * fraction:.0f} %"


def of_fits(simulated, mechanism, fraction, df, num_imputations, num_fits, num_steps):
    """The row of VAEs, one fitted to each of the first data sets."""
    x, _, about = with_gaps(simulated, mechanism, fraction)
    whole, doubt = by_vae(x[:num_fits], num_imputations, num_steps)
    found = pooled_of(*coefficient(whole), df)
    return of_pooled(about, "draws of a fitted VAE, pooled", simulated.truth, found, doubt)


def of_mechanism(simulated, mechanism, fraction, df, num_imputations, num_masked):
    """Rows of one mechanism, of the model that made the data."""
    truth, (x, observed, about) = simulated.truth, with_gaps(simulated, mechanism, fraction)
    complete = observed.all(-1).double()
    enough = complete.sum(-1) > x.shape[-1] + 1  # rows that leave two degrees of freedom at least
    plain = coefficient(x[enough].nan_to_num(0.0), complete[enough])
    of_rows = pooled_of(*plain, complete[enough].sum(-1).numpy() - x.shape[-1])
    yield of_pooled(about, "complete rows alone", truth, of_rows)
    means = torch.where(observed, x, x.nanmean(1, keepdim=True))
    yield of_pooled(about, "means filled in", truth, pooled_of(*coefficient(means), df))
    oracle, how = simulated.oracle, {"num_particles": 100}
    whole, doubt = draws_of(oracle.complete.model, oracle.guide, x, num_imputations, **how)
    yield of_pooled(about, "draws of the model, pooled", truth, pooled_of(*coefficient(whole), df), doubt)
    if mechanism == "mnar" and num_masked:
        pair = pv.with_missingness(oracle.complete.model, oracle.guide, simulated.masking(fraction))
        how = {"num_particles": 500, "method": "importance"}
        whole, doubt = draws_of(*pair, x[:num_masked], num_imputations, **how)
        yield of_pooled(about, "and of the mask, pooled", truth, pooled_of(*coefficient(whole), df), doubt)


PARTS = {
    "breast": ("Breast cancer, half missing", breast),
    "masks": ("Breast cancer, other masks", masks),
    "wine": ("White wine, missing above the mean", wine),
    "bfi": ("Answers with gaps", bfi),
    "pooled": ("Pooled coefficients", pooled),
}
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
        lines = []
        for line in measure():  # written as they come: an interrupt keeps them
            lines.append(line)
            written(given.out / "missing_tables.md", {head: "\n".join(lines)})


if __name__ == "__main__":
    main()
