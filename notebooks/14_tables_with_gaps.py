# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tables with gaps
#
# What is missing can be ignored, filled in, or modelled, and which of these is right depends on why it is missing. A
# model of whole rows answers all three: it gives p(x_missing | x_observed), draws from it, and nats.
#
# After this notebook you will be able to
#
# - make gaps completely at random (MCAR), at random (MAR) and not at random (MNAR), and say what each does to a mean;
# - fit and evaluate any pair of programs on what was observed, and hold log p(x_o) against its closed form;
# - say in nats which missing entry to ask for next;
# - impute by draws, pool by Rubin's rules, and check bias and coverage of the interval;
# - show a case in which every diagnostic is content and the answer is wrong, and what it takes to see that.

# %%
import math

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Three kinds of gaps
#
# Our twin is factor analysis, five columns and two factors with known parameters: any conditional of a normal is a
# normal. Column 0 is always observed. Of the others a fraction is lost: by a coin (MCAR), by odds that column 0 decides
# (MAR), or by odds that each value decides for itself, large ones being lost more often (MNAR; Rubin 1976).

# %%
fraction = 0.4  # the knob: of the entries of columns 1 to 4

oracle = pv.oracles.missing_entries(5, 2, seed=4)
linear = oracle.complete
num_rows = 400


def masks(x, seed):
    """True where an entry is observed, for each mechanism."""
    found = {
        "MCAR": pv.data.mcar(x.shape, fraction, seed=seed),
        "MAR": pv.data.mar(x, fraction, drivers=[0], seed=3),
        "MNAR": pv.data.mnar(x, fraction, columns=[1, 2, 3, 4], sign=1, seed=seed),
    }
    found["MCAR"][:, 0] = True
    return found


x, _ = linear.draw(num_rows, seed=1)
of = masks(x, seed=1)
for name, mask in of.items():
    print(
        f"{name:5} {(~mask).double().mean():.0%} of all entries missing, {mask.all(1).double().mean():.0%} of rows complete"
    )

# %%
figure, panels = plt.subplots(1, 3, figsize=(8.5, 2.6), sharex=True, sharey=True)
for axes, (name, mask) in zip(panels, of.items(), strict=True):
    for seen, label in ((True, "observed"), (False, "lost")):
        kept = mask[:, 1] == seen
        axes.plot(x[kept, 0].numpy(), x[kept, 1].numpy(), "." if seen else "x", ms=4, label=label)
    axes.set(title=name, xlabel="column 0")
panels[0].set_ylabel("column 1")
panels[0].legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## log p(x_o), and its closed form
#
# `observed_entries` leaves what is missing out of the density of any model; nothing else is needed where the mechanism
# may be ignored (MCAR and MAR). The guide has to read gaps; `encoder_for` writes one that does, and we train it for the
# model as it is. Then the estimate of log p(x_o) meets the exact one.

# %%
epochs = 60  # short: 10
observed = pv.observed_entries(linear.model)
hidden = pv.data.hide(x, of["MAR"])
fitted = pv.fit(observed, pv.encoder_for(observed, hidden, hidden=(50,), seed=0), hidden, only="guide", epochs=epochs)
report = pv.evaluate(fitted.model, fitted.guide, hidden)
exact = oracle.log_evidence(hidden)
mc_se = report.mc_se_log_evidence.square().sum().sqrt().item() / num_rows
print(f"ELBO - exact log p(x_o):     {(report.elbo - exact).mean():+.4f} nats per row")
print(f"evaluate - exact log p(x_o): {(report.log_evidence - exact).mean():+.5f}, Monte-Carlo SE {mc_se:.5f}")

# %% [markdown]
# ## What is missing, given what is not
#
# `conditional` hides the entries, draws them given the rest, and tells log p(x_m | x_o) of the truth. The twin has all
# of it in closed form: with the covariance S split into blocks, x_m | x_o is normal with mean $\mu_m + S_{mo}
# S_{oo}^{-1} (x_o - \mu_o)$ and covariance $S_{mm} - S_{mo} S_{oo}^{-1} S_{om}$.


# %%
def given_observed(mean, covariance, row, seen):
    """Mean and covariance of x_m | x_o, and log p(x_m | x_o) of the truth."""
    o, m = seen, ~seen
    weights = torch.linalg.solve(covariance[o][:, o], covariance[o][:, m]).T
    centre = mean[m] + weights @ (row[o] - mean[o])
    spread = covariance[m][:, m] - weights @ covariance[o][:, m]
    return centre, spread, dist.MultivariateNormal(centre, spread).log_prob(row[m])


def closed_form(mean, covariance, x, mask):
    """Means and standard deviations (N, D), NaN where observed, and log p(x_m | x_o), (N,)."""
    means, sds, nats = torch.full_like(x, math.nan), torch.full_like(x, math.nan), torch.zeros(len(x)).double()
    for n in (~mask).any(1).nonzero().flatten().tolist():
        centre, spread, nats[n] = given_observed(mean, covariance, x[n], mask[n])
        means[n, ~mask[n]], sds[n, ~mask[n]] = centre, spread.diagonal().sqrt()
    return means, sds, nats


mu, covariance = linear.bias, linear.loadings @ linear.loadings.T + (linear.noise_scale**2).diag()
mean, sd, nats = closed_form(mu, covariance, x, of["MAR"])
found = pv.conditional(linear.model, fitted.guide, x, of["MAR"], num_draws=1000)
print(found.summary())

# %%
gap = ~of["MAR"]
off = ((found.mean - mean)[gap] / sd[gap]).abs()
low, high = found.draws.quantile(torch.tensor([0.05, 0.95], dtype=x.dtype), 0)
inside = ((low <= x) & (x <= high) & gap).double()
by_exact = (((x - mean).abs() <= 1.645 * sd) & gap).double()
coverage = inside.sum() / gap.sum()
# Entries of one row depend on each other: the error is over rows.
coverage_se = (inside.sum(1) - coverage * gap.sum(1)).square().sum().sqrt() / gap.sum()
difference = (found.density.log_density - nats).mean().item()
error = found.density.mc_se_log_density.square().sum().sqrt().item() / num_rows
print(
    f"conditional mean - exact: {off.mean():.3f} sd on average, {off.max():.3f} at most (1,000 draws: 0.03 is one error)"
)
print(f"log p(x_m | x_o) - exact: {difference:+.5f} nats per row, Monte-Carlo SE {error:.5f}")
print(
    f"90 % intervals hold {coverage:.1%} of {gap.sum()} entries, SE {coverage_se:.1%}; exact ones {by_exact.sum() / gap.sum():.1%}"
)

# %% [markdown]
# ## What to ask for next
#
# Not all that is missing is worth the asking. With column 0 known and column 4 wanted, column c is worth what it would
# tell of column 4: the conditional mutual information I(x_c ; x_4 | x_0), the mean over draws of x_c and x_4 given x_0
# of log p(x_c, x_4, x_0) + log p(x_0) - log p(x_c, x_0) - log p(x_4, x_0) (Lindley 1956; Ma et al. 2019). Of normals it
# is half the log of a ratio of determinants, whatever the row; in general it is another for each row.

# %%
first = torch.tensor([True, False, False, False, False])
asked = pv.information(linear.model, oracle.guide, x[:1], about="4", given=first, method="importance")
print(asked)


def half_log_det(*places):
    """Half the log determinant of the covariance of some columns."""
    return covariance[places, :][:, places].logdet().item() / 2


for name, value, error in zip(asked.names, asked.value[0].tolist(), asked.mc_se[0].tolist(), strict=True):
    c = int(name)
    told = half_log_det(0, c) + half_log_det(0, 4) - half_log_det(0, c, 4) - half_log_det(0)
    print(f"column {c}: {value:.3f} nats, exact {told:.3f}, Monte-Carlo SE {error:.3f}")

# %% [markdown]
# ## Fill in, estimate, pool
#
# To estimate is another thing than to guess well. Take the mean of column 1, and the slope of column 2 on column 1.
# Three ways: the rows that have what is asked for; a table with each gap filled by its conditional mean; and M tables
# completed by *draws*, whose estimates Rubin's rules pool: the variance within a table, plus (1 + 1/M) times that
# between tables.

# %%
num_imputations = 20  # the knob: M


def mean_of(table):
    """The mean of column 1, and its squared standard error."""
    return table[:, 1].mean(), table[:, 1].var() / len(table)


def slope_of(table):
    """The least-squares slope of column 2 on column 1, and its squared standard error."""
    one, two = (table[:, column] - table[:, column].mean() for column in (1, 2))
    slope = (one * two).sum() / one.square().sum()
    return slope, (two - slope * one).square().sum() / (len(table) - 2) / one.square().sum()


# Name -> what estimates it, the columns that it needs, and the truth.
quantities = {
    "mean of column 1": (mean_of, [1], mu[1]),
    "slope of column 2 on 1": (slope_of, [1, 2], covariance[1, 2] / covariance[1, 1]),
}


def pooled_over(tables):
    """Both quantities over completed tables, by Rubin's rules."""
    found = torch.tensor([[estimate(table) for estimate, _, _ in quantities.values()] for table in tables])
    return pv.pool(found[..., 0], found[..., 1], names=list(quantities), complete_df=num_rows - 2)


drawn = pv.impute(linear.model, oracle.guide, hidden, kind="draws", num_imputations=num_imputations, num_particles=100)
pooled = pooled_over(drawn)
print(pooled)
print()
for name, (estimate, needed, right) in quantities.items():
    alone = estimate(hidden[of["MAR"][:, needed].all(1)])[0]
    print(f"{name:24} true {right:.4f}; rows that have it, alone: {alone:.4f}")

# %% [markdown]
# One table proves nothing about an interval. So here are many, from the same twin, each with its own gaps; the bias has
# a standard error, and so has the coverage of the 95 % interval.

# %%
num_tables = 40  # short: 2


def interval_of(table, estimate):
    """Estimate and 95 % interval of a table taken at face value."""
    found, variance = estimate(table)
    half = 1.96 * variance.sqrt()
    return found, found - half, found + half


def by_each_method(rows, mask, seed):
    """(quantity, method) -> estimate and the ends of its interval."""
    lost = pv.data.hide(rows, mask)
    how = {"num_particles": 100, "seed": seed, "progress": False}
    tables = pv.impute(linear.model, oracle.guide, lost, kind="draws", num_imputations=num_imputations, **how)
    filled = torch.where(mask, rows, closed_form(mu, covariance, rows, mask)[0])
    by_draws = pooled_over(tables)
    found = {}
    for place, (name, (estimate, needed, _)) in enumerate(quantities.items()):
        found[name, "rows that have it"] = interval_of(rows[mask[:, needed].all(1)], estimate)
        found[name, "means filled in"] = interval_of(filled, estimate)
        found[name, "draws, pooled"] = (by_draws.estimate[place], by_draws.low[place], by_draws.high[place])
    return found


collected = {}
for seed in range(num_tables):
    rows, _ = linear.draw(num_rows, seed=100 + seed)
    for mechanism, mask in masks(rows, seed=100 + seed).items():
        for (name, method), (found_value, low, high) in by_each_method(rows, mask, seed).items():
            right = quantities[name][2]
            score = (found_value - right, (low <= right) & (right <= high), high - low)
            collected.setdefault((name, mechanism, method), []).append(score)
summary = {key: torch.tensor(values).double() for key, values in collected.items()}

for name in quantities:
    print(f"{name:26} {'bias':>7} {'SE':>6} {'coverage':>9} {'SE':>4} {'width':>6}")
    for (of_name, mechanism, method), values in summary.items():
        if of_name == name:
            bias, cover, width = values.mean(0).tolist()
            se = values[:, 0].std().item() / num_tables**0.5
            cover_se = max(math.sqrt(cover * (1 - cover) / num_tables), 1 / num_tables)
            print(f"  {mechanism:5} {method:18} {bias:7.3f} {se:6.3f} {cover:9.0%} {cover_se:4.0%} {width:6.3f}")

# %%
figure, panels = plt.subplots(1, 2, figsize=(8.5, 2.8), sharey=True)
for axes, name in zip(panels, quantities, strict=True):
    for place, method in enumerate(("rows that have it", "means filled in", "draws, pooled")):
        biases = [summary[name, mechanism, method][:, 0] for mechanism in of]
        at = [row + 0.2 * (place - 1) for row in range(len(of))]
        errors = [2 * one.std() / num_tables**0.5 for one in biases]
        axes.errorbar([one.mean() for one in biases], at, xerr=errors, fmt="o", ms=4, label=method)
    axes.axvline(0, color="k", lw=1)
    axes.set(yticks=range(len(of)), yticklabels=list(of), xlabel=f"bias, two standard errors: {name}")
panels[0].invert_yaxis()
panels[0].legend(frameon=False, fontsize=7)
figure.tight_layout()

# %% [markdown]
# Under MCAR nobody's mean is biased. Under MAR the rows that have what is asked for are a selection, and the model, which
# knows how column 1 goes with column 0, undoes it. Filled-in means do for a mean; for a slope they do not: they lie on
# the model's own regression, without scatter, so that the slope is too steep and its interval much too short. Draws
# serve both. Their intervals for the slope cover more than they say, for here the imputer knows the parameters and the
# analyst does not (Meng 1994). Under MNAR the mean is lost to all three.
#
# ## The example that fails: MNAR, ignored
#
# Ask every diagnostic of the MNAR fit. The model is the very model that made the data, the guide is exact, and still
# the mean is wrong.

# %%
lost = pv.data.hide(x, of["MNAR"])
content = pv.evaluate(observed, oracle.guide, lost)
ignored = pv.conditional(linear.model, oracle.guide, lost, num_draws=200)
gap = ~of["MNAR"]
bias = (ignored.mean - x)[gap]
print(
    f"k-hat bad for {content.fraction_unreliable:.0%} of rows, KL(q || posterior) {content.kl_posterior.mean():.4f} nats"
)
print(
    f"imputed - true: {bias.mean():+.3f} on average, SE {bias.std() / len(bias) ** 0.5:.3f}, over {len(bias)} lost entries"
)

# %% [markdown]
# Nothing in x_o alone can tell: p(x_o) is a density of what was seen, and says nothing of what was not. What can tell
# is a model of *which* entries were seen, the mask s. `with_missingness` puts one beside the model of the data, and
# evidence becomes that of both, log p(x_o, s). Two mechanisms are candidates: a constant chance for each column, or one
# that is logistic in the entry's own value (not-MIWAE; Ipsen, Mattei and Frellsen 2021). The model of the data stays as
# it is; each mechanism is fitted.


# %%
class Constant(nn.Module):
    """Each column is observed with a chance of its own, whatever its values."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(5))

    def forward(self, x):
        return dist.Bernoulli(logits=self.logits.expand(x.shape)).to_event(1)


mask_epochs = 300  # short: 30


def with_mask(mechanism):
    """The pair with a model of the mask, fitted."""
    pair = pv.with_missingness(linear.model, oracle.guide, mechanism)

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.05)

    return pv.fit(
        *pair, lost, objective=pv.objectives.IWAE(10), optimizer=adam, epochs=mask_epochs, batch_size=num_rows
    )


mechanism = pv.self_masking(5, sign=1)
constant, masking = with_mask(Constant()), with_mask(mechanism)
reports = {
    "constant chances": pv.evaluate(constant.model, constant.guide, lost, num_particles=2000),
    "by its own value": pv.evaluate(masking.model, masking.guide, lost, num_particles=2000),
}
comparison = pv.compare(reports)
print(comparison)

# %%
repaired = pv.conditional(masking.model, masking.guide, lost, num_draws=200, num_particles=2000)
repaired_bias = (repaired.mean - x)[gap]
true_slopes, slopes = (2 / x.std(0))[1:], mechanism.slope.detach()[1:]
print("log odds of being lost per unit: true", [round(v, 2) for v in true_slopes.tolist()], end=", ")
print("fitted", [round(v, 2) for v in slopes.tolist()])
for name, each in (("mask ignored", bias), ("mask modelled", repaired_bias)):
    print(f"{name:14} imputed - true: {each.mean():+.3f}, SE {each.std() / len(each) ** 0.5:.3f}")

# %% [markdown]
# The evidence prefers the mechanism that hides by value, and most of the bias goes where that is used. What is left is
# partly the error of the mechanism itself, which was estimated from these rows and is not in the standard error. This
# is no proof either: it works because the model of the data is known here, and the form of the mechanism assumed. With
# a fitted model, MNAR is an assumption to be varied, not a finding.
#
# ## A table of your own
#
# Now the model has to be learned, from rows with gaps. Ten measurements of 569 breast tumours (the means in
# scikit-learn's table), positive, skewed, three of them nearly one. A tenth of the training entries is lost; of the
# test rows a third is hidden, so that there is a truth. Beside a VAE stands the normal of full covariance, which has to
# make do with the complete rows.

# %%
frame = load_breast_cancer(as_frame=True).frame.iloc[:, :10]
table = pv.data.load(frame, columns={"*": "real"}, splits=(0.6, 0.1, 0.3), seed=0)
train = pv.data.hide(table.train.x, pv.data.mcar(table.train.x.shape, 0.1, seed=0))
valid = pv.data.hide(table.valid.x, pv.data.mcar(table.valid.x.shape, 0.1, seed=1))
whole = train[~train.isnan().any(1)].double()
print(f"{len(train)} training rows, {len(whole)} of them complete")

# %%
table_epochs = 300  # short: 15
vae = pv.VAE(
    prior=pv.priors.StandardNormal(4),
    decoder=pv.Conditional(pv.families.student_t(), (10,), pv.networks.mlp(4, 64, seed=0)),
    encoder=pv.Conditional(
        pv.families.normal(), (4,), pv.networks.masked_input(10, lambda shape: pv.networks.mlp(shape, 64, seed=1))
    ),
)
learned = pv.fit(
    pv.observed_entries(vae.model),
    vae.guide,
    train,
    valid=valid,
    epochs=table_epochs,
    batch_size=64,
    patience=60,
    seed=0,
)
num_scored = 171  # short: 20
truth = table.test.x[:num_scored]
test_mask = pv.data.mcar(truth.shape, 1 / 3, seed=2)
completed = pv.conditional(vae.model, vae.guide, truth, test_mask, num_draws=500)
print(completed.summary())

# %%
hidden_entries = (~test_mask).sum(1)
means, _, normal_nats = closed_form(whole.mean(0), whole.T.cov(), truth.double(), test_mask)
vae_nats = completed.density.log_density
per_entry = (vae_nats - normal_nats) / hidden_entries.double().mean()
gap = ~test_mask
errors = {
    "column mean": truth[gap] - train.nanmean(0).expand_as(truth)[gap],
    "normal, complete rows": truth[gap] - means[gap],
    "VAE, observed entries": truth[gap] - completed.mean[gap],
}
for name, error in errors.items():
    squared = error.double().square()
    mse, mse_se = squared.mean().item(), squared.std().item() / len(squared) ** 0.5
    print(f"{name:22} mean squared error {mse:.3f} (SE {mse_se:.3f})")
gain, gain_se = per_entry.mean().item(), per_entry.std().item() / len(per_entry) ** 0.5
print(f"VAE - normal: {gain:+.3f} nats per hidden entry, SE {gain_se:.3f} over {len(truth)} rows")

# %% [markdown]
# Two rulers, and they need not agree. A squared error asks for the mean alone, and there the two models are alike
# within their errors. Nats ask for the whole distribution, and so what an imputation by draws will be worth: there the
# VAE, which used every row and can bend, is ahead by more than two standard errors.
#
# A frame goes in and comes out as a frame: `impute` keeps types, labels and units.

# %%
gappy = frame.iloc[:5].round(3).mask(~pv.data.mcar((5, 10), 0.3, seed=5).numpy())
filled = pv.impute(vae.model, vae.guide, gappy, like=table, progress=False)
print(gappy.iloc[:, :5].to_string(), "\n")
print(filled.iloc[:, :5].round(3).to_string())

# %% [markdown]
# ## Exercise 1: by hand
#
# Take `row = torch.tensor([2.0, math.nan, 0.0, 0.0, 0.0]).double()`: column 1 is missing, all else observed. From `mu`
# and `covariance` of the twin: what is the standard deviation of what is missing, given what is observed?

# %%
answer_1 = ...
row = torch.tensor([2.0, math.nan, 0.0, 0.0, 0.0]).double()
seen_of_row = ~row.isnan()
right_1 = given_observed(mu, covariance, row.nan_to_num(), seen_of_row)[1].sqrt().item()
pv.exercise(answer_1, right_1, tolerance=0.002, hint="Which of the numbers in the row does the variance depend on?")

# %% [markdown]
# ## Exercise 2: which way?
#
# Suppose small values were lost more often (`pv.data.mnar(..., sign=-1)`). Would the mean of the observed entries of
# column 1 be "too high" or "too low"? And would draws of the model with the mask ignored be off in the "same"
# direction, or the "other"? Answer with a pair of words.

# %%
answer_2 = ...
pv.exercise(answer_2, ("too high", "same"), hint="What the model draws for a lost value, it draws from rows like it.")

# %% [markdown]
# ## Exercise 3: how many imputations?
#
# From `pooled`, for the mean of column 1: the squared standard error, `pooled.se[0] ** 2`, is T = U + (1 + 1/M) B with
# M = 20, and `pooled.relative_increase[0]` is (1 + 1/M) B / U. What is the smallest M for which the standard error is
# at most one percent above that of infinitely many imputations?

# %%
answer_3 = ...
within = (pooled.se[0] ** 2 / (1 + pooled.relative_increase[0])).item()
between = (pooled.relative_increase[0].item() * within) / (1 + 1 / num_imputations)
right_3 = max(2, math.ceil(between / (within + between) / (1.01**2 - 1)))
pv.exercise(answer_3, right_3, hint="(U + (1 + 1/M) B) / (U + B) <= 1.01 squared; solve for M.")

# %% [markdown]
# ## Solutions
#
# 1. The variance of a normal given some of its coordinates does not depend on their values, only on which they are.

# %%
o, m = seen_of_row, ~seen_of_row
schur = covariance[m][:, m] - covariance[m][:, o] @ torch.linalg.inv(covariance[o][:, o]) @ covariance[o][:, m]
assert pv.exercise(schur.sqrt().item(), right_1, tolerance=0.002).right
print(f"{schur.sqrt().item():.4f}")

# %% [markdown]
# 2. What is left is the larger values. The model draws lost values from what column 0 and the others let expect, which
#    is above what was lost: the same direction, though less far. Measured on many rows:

# %%
many, _ = linear.draw(2000, seed=7)
small_lost = pv.data.mnar(many, fraction, columns=[1, 2, 3, 4], sign=-1, seed=7)
of_model = torch.where(small_lost, many, closed_form(mu, covariance, many, small_lost)[0])[:, 1].mean()
words = (
    "too high" if many[small_lost[:, 1], 1].mean() > many[:, 1].mean() else "too low",
    "same" if (of_model > many[:, 1].mean()) == (many[small_lost[:, 1], 1].mean() > many[:, 1].mean()) else "other",
)
assert pv.exercise(words, ("too high", "same")).right
print(
    words,
    f"observed {many[small_lost[:, 1], 1].mean() - many[:, 1].mean():+.3f}, model {of_model - many[:, 1].mean():+.3f}",
)

# %% [markdown]
# 3. Tried one after the other:

# %%
solution_3 = next(m for m in range(2, 10_000) if (within + (1 + 1 / m) * between) / (within + between) <= 1.01**2)
assert pv.exercise(solution_3, right_3).right
print(solution_3)
