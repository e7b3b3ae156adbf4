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
# # Swapping the likelihood
#
# p(x | z) says what kind of thing a datum is: a count, a proportion, an answer on a scale, a number with outliers. It
# is one line, and often worth more nats than anything else in the model. It is also where numbers are compared that
# must not be.
#
# After this notebook you will be able to
#
# - choose among likelihoods for counts by log p(x), and check the machine where the answer is known;
# - say why a density is not a mass, and what makes the two comparable;
# - show by a number that blurred reconstructions come from the Gaussian, and how its scale decides;
# - give each column of a table a family of its own, and say what each choice was worth.

# %%
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_breast_cancer

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## The tractable twin: a latent that was integrated out
#
# Counts with a gamma-distributed rate, x | z ~ Poisson(z), are negative binomial when z is integrated out. So the same
# numbers have two programs: one with a latent and one without. They must agree, and a Poisson of the same means must
# not.

# %%
oracle = pv.oracles.gamma_poisson(3, seed=1)  # three counts to a datum, each with a gamma rate of its own
counts, _ = oracle.draw(400, seed=2)
marginal = oracle.evidence()  # p(x) as a distribution: the negative binomials


def poisson(x):
    """No latent, and no more spread than a Poisson of the same means has."""
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Poisson(marginal.mean).to_event(1), obs=x)


def nothing(x):
    """The guide of a model without latents."""


guide = pv.widened(oracle.guide, 1.3)  # not the exact posterior: the weights have work to do
reports = {
    "Poisson, gamma rates": pv.evaluate(oracle.model, guide, counts),
    "Poisson": pv.evaluate(poisson, nothing, counts),
}
exact = marginal.log_prob(counts)
latent = reports["Poisson, gamma rates"]
mc_se = latent.mc_se_log_evidence.square().sum().sqrt().item() / len(counts)
print(
    f"integrated by importance sampling - negative binomial: {(latent.log_evidence - exact).mean():+.5f} nats, SE {mc_se:.5f}"
)
print(pv.compare(reports))

# %% [markdown]
# ## Counts: four masses
#
# Digits whose pixels count 0 to 16 dots of ink. The binomial knows the bound; the Poisson does not, and puts mass where
# no count can be; the binomial has no freedom of its spread, while bins of a normal have. One line each, everything
# else alike.

# %%
digits = pv.data.load("digits")
epochs = 40  # short: 2
num_test = 60  # short: 6
num_particles = 300
num_latents = 8


def digit_vae(family):
    """A VAE of the digits with this likelihood."""
    return pv.VAE(
        prior=pv.priors.StandardNormal(num_latents),
        decoder=pv.Conditional(family, digits.shape, pv.networks.mlp(num_latents, 200, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), (num_latents,), pv.networks.mlp(digits.shape, 200, seed=1)),
    )


def fitted(family):
    """The fit of it."""
    vae = digit_vae(family)
    return pv.fit(vae.model, vae.guide, digits.train, epochs=epochs, batch_size=64, seed=0, progress=False)


test = digits.test[:num_test]
families = {
    "binomial": pv.families.binomial(16),
    "Poisson": pv.families.poisson(),
    "bins of a normal": pv.families.binned_normal(16),
    "each count by itself": pv.families.categorical(17),
}
fits = {name: fitted(family) for name, family in families.items()}
masses = {
    name: pv.evaluate(fit.model, fit.guide, test, num_particles=num_particles, progress=False)
    for name, fit in fits.items()
}
comparison = pv.compare(masses)
print(comparison)

# %%
pv.figures.comparison(comparison)

# %% [markdown]
# The two whose spread is free are ahead by some 15 nats or more. And a normal in bins is ahead of a free table of 17
# masses, which has to learn for each pixel that 7 is next to 8.
#
# ## The example that fails: a density is not a mass
#
# Now the most used likelihood of all, a normal, here with a standard deviation for each pixel that is learned. Follow
# its log p(x) from fit to fit, and apart from the rest the part of three pixels that are 0 in every training picture.

# %%
longer = [10, 30, 60]  # short: [1, 2]
constant = digits.train.x.flatten(1).std(0) == 0


def fast(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


as_density, parts = {}, {}
print("epochs    log p(x)   sd of the constant pixels   their part of log p(x | z)")
for num_epochs in longer:
    vae = digit_vae(pv.families.normal_of_scales())
    how = {"epochs": num_epochs, "batch_size": 64, "optimizer": fast, "seed": 0, "progress": False}
    fit = pv.fit(vae.model, vae.guide, digits.train, **how)
    as_density[num_epochs] = pv.evaluate(fit.model, fit.guide, test, num_particles=num_particles, progress=False)
    with torch.no_grad():
        pixels_given_z = vae.decoder(torch.zeros(1, num_latents)).base_dist  # one normal for each pixel, at z = 0
        scale = pixels_given_z.scale.flatten()[constant]
        part = pixels_given_z.log_prob(torch.zeros(digits.shape)).flatten()[constant].sum()
    print(f"{num_epochs:6d} {as_density[num_epochs].log_evidence.mean():11.2f} {scale.mean():27.4f} {part:28.2f}")
    parts[num_epochs] = part
risen = as_density[longer[-1]].log_evidence.mean() - as_density[longer[0]].log_evidence.mean()
print(f"risen by {risen:.1f} nats in all, of which the three pixels have {parts[longer[-1]] - parts[longer[0]]:.1f}")

# %% [markdown]
# Most of the rise is honest: the fit learns what digits look like, and the three pixels have some 6 nats of 144. But
# these 6 are of another kind. A pixel that is always 0 has nothing to be learned of, and a normal about 0 whose standard
# deviation s shrinks gives it any density one likes. A fit of 60 epochs has only begun; nothing holds it back. What the
# three pixels would bring to every digit in which they are 0, exactly:

# %%
zero = torch.tensor(0.0).double()
for s in (1e-1, 1e-3, 1e-6, 1e-12, 1e-24):
    print(f"s = {s:.0e} dots: {3 * dist.Normal(zero, s).log_prob(zero):+7.1f} nats")

# %% [markdown]
# At s = 1e-24 they alone bring more than all that was learned above. A density is per unit of x; it has no
# meaning at a point, and no upper end. A mass is at most 1, so its log is at most 0. `compare` refuses to set the two
# side by side.

# %%
try:
    pv.compare({"binomial": masses["binomial"], "normal": as_density[longer[-1]]})
except pv.InputError as error:
    print(f"refused: {error}")

# %% [markdown]
# What makes them comparable is to spread each count over its unit, x + u with u uniform on [0, 1): then
#
# $$\int_0^1 \log p(x + u)\, du \le \log \int_0^1 p(x + u)\, du = \log P(x),$$
#
# by Jensen, so that a density of dequantized data bounds a mass from below (Theis, van den Oord and Bethge 2016). Now
# the normal has nothing to gain by shrinking below the unit, and `compare` takes it as the bound that it is.

# %%
dequantized = pv.data.load("digits", dequantize=True)
vae = digit_vae(pv.families.normal_of_scales())
as_bound = pv.fit(vae.model, vae.guide, dequantized.train, **how)  # as long as the longest above
rows = dequantized.test[:num_test]
bound = pv.evaluate(as_bound.model, as_bound.guide, rows, num_particles=num_particles, progress=False)
print(pv.compare({**masses, "normal, dequantized": bound}))

# %% [markdown]
# ## Blur, measured
#
# A Gaussian of standard deviation s cannot tell pictures apart that differ by less than s or so. So the posterior of z
# is wide, and a reconstruction, a mean over it, is an average of many pictures: blur. In the linear twin (probabilistic
# PCA) this is exact: the axis with variance λ comes back shrunk by the factor 1 - s²/λ, and is lost where s² exceeds λ.
#
# The number is sharpness: how much neighbouring pixels differ, as a fraction of what they do in the picture itself,
# averaged over test digits. The knob is s, in dots of ink.

# %%
scales = [1.0, 3.0, 6.0]  # short: [1.0, 6.0]
blur_epochs = 40  # short: 2


def roughness(pictures):
    """Mean absolute difference between neighbouring pixels, (N,)."""
    return (pictures.diff(dim=-1).abs().mean((-2, -1)) + pictures.diff(dim=-2).abs().mean((-2, -1))) / 2


pixels = digits.train.x.flatten(1).double()
variances, axes_of_pca = torch.linalg.eigh(pixels.T.cov())


def linear_twin(x, s):
    """The PCA's reconstruction at a fixed noise s, in closed form; eigenvalues ascend, the last ones are kept."""
    kept = (1 - s**2 / variances).clamp(min=0)
    kept[:-num_latents] = 0
    away = x.flatten(1).double() - pixels.mean(0)
    return (pixels.mean(0) + away @ (axes_of_pca * kept) @ axes_of_pca.T).view(x.shape)


sharpness, pictures = {}, {}
for s in scales:
    vae = digit_vae(pv.families.normal(scale=s))
    fit = pv.fit(vae.model, vae.guide, digits.train, epochs=blur_epochs, batch_size=64, seed=0, progress=False)
    pictures[s] = pv.reconstruct(fit.model, fit.guide, test.x).means["x"].view(test.x.shape)
    sharpness[s] = roughness(pictures[s]) / roughness(test.x)
of_binomial = pv.reconstruct(fits["binomial"].model, fits["binomial"].guide, test.x).means["x"].view(test.x.shape)
binomial_sharpness = roughness(of_binomial) / roughness(test.x)

print("s, dots   VAE (SE)        linear twin")
for s, values in sharpness.items():
    twin = (roughness(linear_twin(test.x, s)) / roughness(test.x)).mean()
    print(f"{s:7.1f}   {values.mean():.3f} ({values.std() / num_test**0.5:.3f})   {twin:.3f}")
print(f"binomial  {binomial_sharpness.mean():.3f} ({binomial_sharpness.std() / num_test**0.5:.3f})")

# %%
figure, axes = plt.subplots(figsize=(5, 2.8))
line = [float(s) for s in torch.linspace(scales[0], scales[-1], 30)]
twin = [(roughness(linear_twin(test.x, s)) / roughness(test.x)).mean() for s in line]
axes.plot(line, twin, "C1", label="linear twin, exact")
errors = [2 * values.std() / num_test**0.5 for values in sharpness.values()]
axes.errorbar(
    scales, [values.mean() for values in sharpness.values()], yerr=errors, fmt="o", capsize=3, label="VAE, normal"
)
axes.axhline(binomial_sharpness.mean(), color="0.6", ls=":", label="VAE, binomial")
axes.set(xlabel="standard deviation s of a pixel, dots of ink", ylabel="sharpness of reconstructions", ylim=(0, 1))
axes.legend(frameon=False, fontsize=8)
figure.tight_layout()

# %%
shown = {"picture": test.x, "binomial": of_binomial} | {f"normal, s = {s:g}": pictures[s] for s in scales}
figure, panels = plt.subplots(len(shown), 8, figsize=(5, 0.62 * len(shown)))
for row, (name, some) in zip(panels, shown.items(), strict=True):
    for axes, picture in zip(row, some, strict=False):
        axes.imshow(picture, cmap="Greys", vmin=0, vmax=16)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
figure.tight_layout(pad=0.2)

# %% [markdown]
# So blur is not in the family but in its scale: at s = 1 the normal is as sharp as the binomial. A scale that is set
# wide, or that the fit makes wide as the decoder can do no better, is where the averaging comes from.
#
# ## A table of unlike columns
#
# Breast tumours: a diagnosis (binary), a radius and a texture (real), the standard error of a perimeter
# (positive, with a heavy tail), two proportions, and the concavity as a pathologist would note it, in five grades (here
# cut at quintiles). A family for each column, a list; each swap changes one entry of it. Rows and their scaling are the
# same for all, so differences are paired.

# %%
tumours = load_breast_cancer(as_frame=True).frame
quintile = tumours["mean concave points"].rank(pct=True).mul(5).sub(1e-9).astype(int)
frame = tumours[["mean radius", "mean texture", "perimeter error", "mean smoothness", "mean symmetry"]].copy()
frame.columns = ["radius", "texture", "perimeter_error", "smoothness", "symmetry"]
frame["concavity"] = quintile.map(lambda grade: "abcde"[grade])
frame["diagnosis"] = tumours["target"].map({0: "malignant", 1: "benign"})
kinds = {"radius": "real", "texture": "real", "perimeter_error": "positive"}
kinds |= {"smoothness": "proportion", "symmetry": "proportion", "concavity": list("abcde"), "diagnosis": "binary"}
table = pv.data.load(frame, columns=kinds, splits=(0.6, 0.1, 0.3))
print(table.columns)

# %%
table_epochs = 60  # short: 3
num_seeds = 3  # short: 2
num_rows = 80  # short: 6

family = pv.families
chosen = {
    "radius": family.normal(),
    "texture": family.normal(),
    "perimeter_error": family.log_normal(),
    "smoothness": family.beta(),
    "symmetry": family.beta(),
    "concavity": family.ordinal(5),
    "diagnosis": family.bernoulli(),
}
swaps = {
    "as chosen": {},
    "perimeter error: normal": {"perimeter_error": family.normal()},
    "perimeter error: Student's t": {"perimeter_error": family.student_t()},
    "proportions: normal": {"smoothness": family.normal(), "symmetry": family.normal()},
    "grades: categorical": {"concavity": family.categorical(5)},
}
read, *_ = pv.recipes.reading(
    table
)  # what makes a row numbers for the encoder: standard scores, and classes one by one


def table_fit(families, seed):
    """A VAE of the table with these families, fitted."""
    mixed = pv.families.mixed([families[name] for name in table.columns.names], table.columns.names)
    vae = pv.TableVAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(mixed, table.shape, pv.networks.mlp(2, 50, seed=2 * seed)),
        encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp(read.size, 50, seed=2 * seed + 1)),
        read=read,  # the encoder sees read(x), of read.size numbers; else a TableVAE is a VAE
    )
    how = {"valid": table.valid, "epochs": table_epochs, "batch_size": 64, "optimizer": fast, "patience": 40}
    return pv.fit(vae.model, vae.guide, table.train, seed=seed, progress=False, **how)


rows = table.test[:num_rows]
table_fits = {name: [table_fit(chosen | swap, seed) for seed in range(num_seeds)] for name, swap in swaps.items()}
table_reports = {
    name: [pv.evaluate(fit.model, fit.guide, rows, num_particles=num_particles, progress=False) for fit in some]
    for name, some in table_fits.items()
}
table_comparison = pv.compare_seeds(table_reports)
print(table_comparison)

# %%
pv.figures.over_seeds(table_comparison)

# %% [markdown]
# (*Stacking* is the weight of each in the mixture of all that predicts these rows best; see notebook 08.)
#
# Normals for the two proportions beat betas, over data and over seeds; the other swaps lie within 0.1 nat of each
# other, which is the spread of seeds. Is a beta the wrong family for a proportion? Ask both models for data, and
# compare the spread:

# %%
place = table.columns.names.index("smoothness")
print(f"standard deviation of smoothness: data {table.train.x[:, place].std():.4f}", end="")
for name in ("as chosen", "proportions: normal"):
    drawn = pv.sample(table_fits[name][0].model, rows, num_samples=4000).values["x.smoothness"]
    print(f"; {name} {drawn.std():.4f}", end="")
mean, variance = table.train.x[:, place].mean(), table.train.x[:, place].var()
print(f"\nconcentration of a beta with the moments of the data: {mean * (1 - mean) / variance - 1:.0f}")

# %% [markdown]
# The fitted betas make smoothness more than twice as spread as it is. A beta with the moments of the data has a
# concentration of 430; the network begins near 1 and has not come that far in these few steps. So the swap compares two
# *fits*, and the one that is to blame is not the family. A difference in log p(x) says which program to use as it
# stands, not why: ask the model for data before drawing a moral. (At 0 or 1, a normal would put mass outside; these two
# columns keep far from both.)
#
# What each column gains from the others is one more difference of evidences, log p(x_d | the rest) against log p(x_d)
# alone. `log_density(..., of=, given=)` takes two masks of columns and answers with log p(of | given) for each row; the
# latent is integrated out as before.

# %%
best = table_fits["as chosen"][0]
num_columns = len(table.columns)
print("column             log p(x_d | rest) - log p(x_d), nats (SE)")
told = {}
how = {"num_particles": num_particles, "progress": False}
for place, name in enumerate(table.columns.names):
    of = torch.zeros(num_columns, dtype=torch.bool)
    of[place] = True
    given = pv.log_density(best.model, best.guide, rows, of=of, given=~of, **how).log_density
    alone = pv.log_density(best.model, best.guide, rows, of=of, **how).log_density
    told[name] = given - alone
    print(f"{name:18} {told[name].mean():12.3f} ({told[name].std() / len(given) ** 0.5:.3f})")

# %% [markdown]
# ## Exercise 1: inches
#
# A colleague measures in inches, y = x / 2.54, one real column, nothing missing. His log p per row of the same model is
# larger or smaller than yours, by how many nats? (Estimate his minus yours, with its sign.)

# %%
answer_1 = ...
right_1 = torch.tensor(2.54).log().item()
pv.exercise(answer_1, right_1, tolerance=0.005, hint="The same probability is spread over a shorter line.")

# %% [markdown]
# ## Exercise 2: what the Poisson wastes
#
# The Poisson likelihood puts mass on counts above 16, where none can be. Take a pixel whose rate is 14: how many nats
# would that pixel gain, if the same Poisson were cut off at 16 and renormalised?

# %%
answer_2 = ...
right_2 = -dist.Poisson(14.0).log_prob(torch.arange(17.0)).exp().sum().log().item()
pv.exercise(answer_2, right_2, tolerance=0.005, hint="Renormalising divides by P(x <= 16).")

# %% [markdown]
# ## Exercise 3: lost to blur
#
# In the linear twin an axis is lost where its variance is below s². Of the first eight principal axes of the training
# digits (`variances[-8:]`), how many are lost at s = 8 dots?

# %%
answer_3 = ...
right_3 = int((variances[-8:] < 64).sum())
pv.exercise(answer_3, right_3, hint="1 - s²/λ, at zero from there on.")

# %% [markdown]
# ## Solutions
#
# 1. p(y) = 2.54 p(x): larger, by log 2.54.

# %%
in_cm = dist.Normal(0.0, 2.54).log_prob(torch.tensor(2.54))
in_inches = dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
assert pv.exercise((in_inches - in_cm).item(), right_1, tolerance=0.005).right
print(f"{(in_inches - in_cm).item():+.3f} nats")

# %% [markdown]
# 2. Every log mass rises by -log P(x <= 16), whatever the count.

# %%
torch.manual_seed(0)
below = (dist.Poisson(14.0).sample((1_000_000,)) <= 16).double().mean()
solution_2 = -below.log().item()
assert pv.exercise(solution_2, right_2, tolerance=0.005).right
print(f"{solution_2:.3f} nats, by simulation")

# %% [markdown]
# 3. Counted:

# %%
print([round(v, 1) for v in variances[-8:].tolist()])
solution_3 = sum(1 for v in variances[-8:].tolist() if 1 - 64 / v <= 0)
assert pv.exercise(solution_3, right_3).right
print(solution_3)
