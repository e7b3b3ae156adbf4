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
# # Pictures: what is missing, and what is possible
#
# Inpainting, outfilling, super-resolution, restoration, colorization: to a statistician they are one question.
# Something, y, was observed of a picture x; what is p(x | y)? A fitted model answers by draws, with a standard
# deviation for each pixel and nats for the truth, and says how far the answer is to be trusted.
#
# After this notebook you will be able to
#
# - draw what is missing from a picture, several times, and read the spread as what is not known;
# - put masks, blocks, colour channels and noise through one mechanism;
# - score the truth in nats, log p(x | y) = log p(x) - log p(y), beside an exact competitor;
# - tell when draws are not to be believed, by k-hat, and by a sampler that has no weights where k-hat is blind.

# %%
import colorsys
import math
import warnings

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})
warnings.simplefilter("ignore", pv.UntrustedPosterior)  # we shall look at what it says

# %% [markdown]
# ## A model of pictures
#
# Handwritten digits, 8 x 8 pixels of 0 to 16 dots of ink, dequantized (uniform noise on each count) to real numbers in
# [0, 1), so that sums of pixels have densities. A VAE with normal pixels, a learned standard deviation for each. It is
# fitted to whole pictures; none of the tasks below is known to it.

# %%
num_latents = 12
epochs = 150  # short: 3
num_test = 20  # short: 2
budget = None  # short: 1500


def adam(parameters):
    return torch.optim.Adam(parameters, lr=2e-3)


def fitted_to(pictures):
    """A VAE with normal pixels."""
    shape, scale = pictures.shape, pv.families.learned(torch.full(pictures.shape, 0.2))
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(num_latents),
        decoder=pv.Conditional(pv.families.normal(scale=scale), shape, pv.networks.mlp(num_latents, 200, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), (num_latents,), pv.networks.mlp(shape, 200, seed=1)),
    )
    how = {"valid": pictures.valid, "epochs": epochs, "batch_size": 64, "optimizer": adam, "patience": 30}
    return pv.fit(vae.model, vae.guide, pictures.train, seed=0, **how)


digits = pv.data.load("digits", dequantize=True, divisor=17)
shape = tuple(digits.shape)
fitted = fitted_to(digits)
truth = digits.test.x[:num_test]
evidence = pv.evaluate(fitted.model, fitted.guide, truth, budget=budget)
print(fitted)
print(evidence)

# %% [markdown]
# ## The tractable twin
#
# Probabilistic PCA of the same digits: x ~ N(m, S) with S known. So log p(x | y) is exact for every mask and every
# linear view y = A x. It serves twice: as a ruler for the machine, and as a competitor.

# %%
rows = digits.train.drawn(0).x.flatten(1).double()
centre, values_and_vectors = rows.mean(0), torch.linalg.eigh(rows.T.cov())
values, vectors = values_and_vectors
noise = values[:-num_latents].mean()
loadings = vectors[:, -num_latents:] * (values[-num_latents:] - noise).sqrt()
pca = pv.oracles.LinearGaussian(loadings, centre, noise.sqrt())
whole = dist.MultivariateNormal(centre, loadings @ loadings.T + noise * torch.eye(64).double())


def exact_nats(x, matrix):
    """log p(x | A x) under the PCA, for pictures (N, 64): log p(x) - log p(A x), per unit of volume where A x is fixed."""
    of_view = dist.MultivariateNormal(matrix @ centre, matrix @ whole.covariance_matrix @ matrix.T)
    volume = torch.logdet(matrix @ matrix.T) / 2
    return whole.log_prob(x) - of_view.log_prob(x @ matrix.T) - volume


def matrix_of(operator):
    """A, from what the operator makes of each single pixel."""
    if operator.name in pv.operators.MASKS:
        return torch.eye(64).double()[pv.operators.MASKS[operator.name](shape).flatten()]
    return operator.apply(torch.eye(64).view(64, *shape)).flatten(1).double().T


halves = torch.kron(torch.eye(4), torch.tensor([[0.5, 0.5]])).double()  # means of neighbours
view = torch.kron(halves, halves)
flat = truth.flatten(1).double()
blocks = pv.operators.linear(view)
checked = pv.restore(pca.model, pca.guide, blocks.apply(flat), blocks, truth=flat, num_draws=50)
off = (checked.log_density - exact_nats(flat, view)).mean().item()
mc_se = checked.mc_se_log_density.square().sum().sqrt().item() / num_test
print(f"the PCA through the general machine, blocks of 2 x 2: log p(x | y) - exact = {off:+.5f} nats, SE {mc_se:.5f}")

# %% [markdown]
# ## One mechanism, four tasks
#
# An operator says how y comes about from x. `restore` draws z given y (proposals fitted to each picture where the
# encoder's guess is not good enough), then x given y and z. The lower half hidden (inpainting); all but the centre
# hidden (outfilling); only means of 4 x 4 blocks seen, four numbers of 64 (super-resolution); a fifth of the pixels
# replaced by black or white (restoration).

# %%
tasks = {
    "lower-half": pv.operators.named("lower-half", shape),
    "centre": pv.operators.named("centre", shape),
    "coarse 4": pv.operators.coarse(shape, 4),
    "salt and pepper": pv.operators.salt_and_pepper(shape, 0.2),
}
found = {
    name: pv.restore(
        fitted.model, fitted.guide, task.apply(truth, seed=1), task, truth=truth, evidence=evidence, budget=budget
    )
    for name, task in tasks.items()
}
print(found["lower-half"].summary())

# %%
pv.figures.completions(found["lower-half"], num=5)

# %%
pv.figures.completions(found["centre"], num=5)

# %%
pv.figures.completions(found["coarse 4"], num=5)

# %%
pv.figures.completions(found["salt and pepper"], num=5)

# %% [markdown]
# The mean is one picture and looks washed out; it is no draw. The draws differ where the last column is dark, and agree
# where it is white: that is what y leaves open. Draws carry the noise of each pixel, as x itself does.
#
# ## Nats of the truth
#
# A picture that looks right is an opinion; log p(x | y) of the true x is a number, with an error. Per number left open,
# beside the exact PCA where it applies.

# %%
print(
    f"{'task':16} {'open':>5} {'VAE':>8} {'SE':>6} {'MC SE':>7} {'PCA':>8} {'difference':>11} {'SE':>6} {'k-hat bad':>10}"
)
gains = {}
for name, one in found.items():
    each = one.log_density / one.num_hidden
    mc_se = (one.mc_se_log_density / one.num_hidden).square().sum().sqrt() / num_test
    line = f"{name:16} {one.num_hidden.mean():5.1f} {each.mean():8.3f} {each.std() / num_test**0.5:6.3f} {mc_se:7.4f}"
    if name != "salt and pepper":
        exact = exact_nats(flat, matrix_of(tasks[name])) / one.num_hidden
        gains[name] = each - exact
        line += f" {exact.mean():8.3f} {gains[name].mean():11.3f} {gains[name].std() / num_test**0.5:6.3f}"
    else:
        line += " " * 27
    print(f"{line} {one.density_unreliable.double().mean():10.0%}")

# %%
figure, axes = plt.subplots(figsize=(5, 2.2))
axes.errorbar(
    [gain.mean() for gain in gains.values()],
    range(len(gains)),
    xerr=[2 * gain.std() / num_test**0.5 for gain in gains.values()],
    fmt="o",
    capsize=3,
)
axes.axvline(0, color="k", lw=1)
axes.set(yticks=range(len(gains)), yticklabels=list(gains), ylim=(len(gains) - 0.5, -0.5))
axes.set(xlabel="VAE - PCA, nats per number left open (two standard errors)")
figure.tight_layout()

# %% [markdown]
# ## Failing, and saying so
#
# The encoder has never seen a picture that is mostly hidden; it reads a guess. Ask for plain importance sampling with
# its draws, as one would by default elsewhere, and look at k-hat.

# %%
task = tasks["centre"]
plain = pv.restore(
    fitted.model, fitted.guide, task.apply(truth), task, truth=truth, evidence=evidence, method="importance"
)
short_by = found["centre"].report.log_evidence - plain.report.log_evidence
print(
    f"k-hat bad for {plain.fraction_unreliable:.0%} of the pictures by the encoder's draws, {found['centre'].fraction_unreliable:.0%} repaired"
)
print(f"log p(y) by the encoder's draws is {short_by.mean():.2f} nats lower (SE {short_by.std() / num_test**0.5:.2f})")
print("and log p(x | y) of the truth looks as much higher: a failure that flatters")

# %% [markdown]
# So the weights say no, and are right. Where they say nothing, another kind of check is needed. Chains of
# Metropolis-within-Gibbs (Mattei and Frellsen 2018; Simkus and Gutmann 2023) have no weights at all: they draw z and
# the missing pixels in turn.

# %%
batches = [truth[:5]]  # short: []
mask = pv.operators.MASKS["lower-half"](shape)

print("picture   R-hat   effective draws: chains, weights   pixel means apart, in standard errors (rms)")
for batch in batches:
    weighted = pv.conditional(fitted.model, fitted.guide, batch, mask, num_draws=1000)
    chained = pv.conditional(fitted.model, fitted.guide, batch, mask, num_draws=1000, method="gibbs", num_warmup=600)
    for place in range(len(batch)):
        hidden = ~weighted.observed[place]
        effective = chained.mixing.ess[place].item(), weighted.report.ess[place].item()
        error = (chained.sd[place] ** 2 / effective[0] + weighted.sd[place] ** 2 / effective[1]).sqrt()
        apart = ((chained.mean - weighted.mean)[place] / error)[hidden]
        rhat = chained.mixing.rhat[place].item()
        print(f"{place:7d} {rhat:7.3f} {effective[0]:25.0f} {effective[1]:8.0f} {apart.square().mean().sqrt():40.2f}")

# %% [markdown]
# Chains that agree among themselves (R-hat near 1) agree with the weighted draws to about one standard error: two
# samplers that err in different ways, one answer.
#
# ## A mode that is missed
#
# k-hat sees only where draws fall. A twin of two numbers makes that plain: given the first, the second is near -3 or
# near 3, with even odds. The guide below is the exact posterior of one of the two.

# %%
line = pv.oracles.LinearGaussian(torch.eye(2).double(), torch.zeros(2).double(), torch.tensor(0.5).double())
half = torch.tensor([0.5, 0.5]).double()
modes = torch.tensor([[0.0, -3.0], [0.0, 3.0]]).double()
forked = pv.oracles.MixturePrior(line, half, modes, torch.tensor(0.5).double())


def one_sided(x):
    """p(z | x_0), of the mode at 3 alone: half of x_0 and variance 1/8; for z_1 its prior."""
    mean = torch.stack([x[:, 0] / 2, torch.full_like(x[:, 0], 3.0)], -1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(mean, torch.tensor([0.125**0.5, 0.5]).double()).to_event(1))


pair = torch.tensor([[0.4, -2.8]]).double()  # the truth lies in the other mode
seen = torch.tensor([True, False])
by_weights = pv.conditional(forked.model, one_sided, pair, seen, num_draws=2000, method="importance")
by_chains = pv.conditional(forked.model, one_sided, pair, seen, num_draws=2000, method="gibbs")
log_p = dist.Normal(0.0, 0.5**0.5).log_prob(pair[0, 0])
missed = (by_weights.report.log_evidence - log_p).item()
print(
    f"k-hat: unreliable {by_weights.fraction_unreliable:.0%}; effective draws {by_weights.report.ess.item():.0f} of 1,000"
)
print(f"log p(x_0) - exact: {missed:+.4f}; log(1/2) = {math.log(0.5):.4f}")
fractions = {
    name: (one.draws[:, 0, 1] < 0).double().mean().item()
    for name, one in (("weights", by_weights), ("chains", by_chains))
}
print(f"draws near -3: by weights {fractions['weights']:.0%}, by chains {fractions['chains']:.0%}; exact 50 %")

# %%
grid = torch.linspace(-6, 6, 400).double()
density = forked.evidence().log_prob(torch.stack([torch.full_like(grid, 0.4), grid], -1)).exp() / log_p.exp()
figure, axes = plt.subplots(figsize=(5, 2.6))
for name, one in (("by weights, one-sided guide", by_weights), ("by chains, same guide", by_chains)):
    axes.hist(one.draws[:, 0, 1].numpy(), bins=60, range=(-6, 6), density=True, histtype="step", label=name)
axes.plot(grid, density, "k", lw=1, label="exact p(x_1 | x_0)")
axes.set(xlabel="the second number, given the first", ylabel="density")
axes.legend(frameon=False, fontsize=7)
figure.tight_layout()

# %% [markdown]
# The weights are content, as each draw that fell is right; half of the answer never appeared. The chains propose from
# the prior now and then, and find it. (So would `method="auto"` here: with up to three latents it looks for modes from
# draws of the prior. With the twelve of the pictures it cannot.) So a completion that matters is asked twice, by
# `method="auto"` and by `method="gibbs"`. `restore` looks for modes in its own way, which the next section puts to the
# test.
#
# ## Colour
#
# Digits of which each class has its hue, about: 36 degrees apart, each digit's own with a standard deviation of 12. (A
# made set, with the recipe in `pv.data`; it is no photograph.) Grey is observed, the weighted sum of three channels;
# two numbers of three are open.

# %%
colours = pv.data.load("colour-digits", dequantize=True, divisor=17)
in_colour = fitted_to(colours)
num_coloured = 8  # short: 1
true_colours = colours.test.x[:num_coloured]
grey = pv.operators.grey(tuple(colours.shape))
coloured = pv.restore(
    in_colour.model, in_colour.guide, grey.apply(true_colours), grey, truth=true_colours, budget=budget
)
print(coloured.summary())

# %%
pv.figures.completions(coloured, num=6)


# %%
def hue(pictures):
    """The hue of the mean ink of pictures (..., 3, H, W), degrees."""
    ink = pictures.double().clamp(0, 1).sum((-2, -1)).flatten(0, -2)
    return torch.tensor([360 * colorsys.rgb_to_hsv(*(one / one.max()).tolist())[0] for one in ink])


drawn_hues = hue(coloured.draws).view(len(coloured.draws), num_coloured)
away = (drawn_hues - hue(true_colours) + 180) % 360 - 180
print("digit   true hue   median distance of the draws, degrees")
for place in range(num_coloured):
    print(f"{place:5d} {hue(true_colours)[place]:10.0f} {away[:, place].abs().median():24.0f}")

# %% [markdown]
# Of most digits the draws are near the true hue; those of 7 are far from it. In the figure a star beside the number of a
# row would say that nothing vouches for its draws; there is none, as k-hat is content. Is the model wrong, or was
# something missed? Here the truth is known, so we can start from it: a guide that reads the true picture, and the same
# question. Both estimates of log p(y) are lower bounds in expectation; where the second is higher, there was mass that
# the first search never met.


# %%
def told_the_truth(guess, x):
    """The guide, given the true picture in the place of a guess."""
    in_colour.guide(x)


def of_pictures(picture, x):
    """The model; the true picture is beside it, and not looked at."""
    in_colour.model(picture)


both = grey.apply(true_colours), true_colours
from_truth = pv.restore(of_pictures, told_the_truth, both, grey, budget=budget)
missed_mass = from_truth.report.log_evidence - coloured.report.log_evidence
error = (from_truth.report.mc_se_log_evidence.square() + coloured.report.mc_se_log_evidence.square()).sqrt()
hues = hue(from_truth.draws).view(len(from_truth.draws), num_coloured)
from_truth_away = ((hues - hue(true_colours) + 180) % 360 - 180).abs().median(0).values
print("digit   log p(y), from the truth - from the guess (SE)   median distance of hues then, degrees")
for place in range(num_coloured):
    print(f"{place:5d} {missed_mass[place]:25.2f} ({error[place]:.2f}) {from_truth_away[place]:30.0f}")

# %% [markdown]
# No difference is more than three standard errors: starting from the truth finds no more. And of 7 the truth does not
# help: there it is the model that leaves the hue open.
#
# That is not so by itself. From a single guess of x the proposals climb one hill, which may have the wrong colour, and
# on top of it all weights are alike: with one guess (an earlier version of `restore`) log p(y) of 0, 1 and 6 was too
# low by 6, 37 and 30 nats, log p(x | y) as much too high, and k-hat vouched for all three. So `restore` makes two
# hundred guesses, each from a draw of the prior of its own (its colour, brought in line with the grey that was seen),
# lets the guide read them, climbs from those that lie far apart, and takes no proposal that does not draw what it
# found.
#
# So good weights are necessary, not sufficient, and a search is no proof. Where the truth is known, or the data are
# simulated from the model, start from it too; where it is not, ask by several methods, guides and seeds, and take the
# highest log p(y).
#
# ## Exercise 1: by subtraction
#
# `found["lower-half"].report.log_evidence[0]` is log p(y) of the first picture and `evidence.log_evidence[0]` its log
# p(x). How many nats has its true lower half, given the upper, per hidden pixel?

# %%
answer_1 = ...
first = found["lower-half"]
right_1 = (first.log_density[0] / first.num_hidden[0]).item()
pv.exercise(answer_1, right_1, tolerance=0.002, hint="A mask observes pixels as they are: p(x) = p(y) p(x_m | y).")

# %% [markdown]
# ## Exercise 2: uneven odds
#
# Suppose the two modes of the twin had the odds 0.8 and 0.2, and the guide covered only the first. By how much would
# log p(x_0) be wrong, as estimate minus truth?

# %%
answer_2 = ...
pv.exercise(answer_2, math.log(0.8), tolerance=0.005, hint="Which part of p(x_0) do the draws never meet?")

# %% [markdown]
# ## Exercise 3: what one half says of the other
#
# Under the PCA (`whole.covariance_matrix`, the upper half are the first 32 numbers): how many nats does the upper half
# of a digit say of the lower, on average? That is the mutual information of the two.

# %%
answer_3 = ...
s = whole.covariance_matrix
right_3 = ((torch.logdet(s[:32, :32]) + torch.logdet(s[32:, 32:]) - torch.logdet(s)) / 2).item()
pv.exercise(
    answer_3,
    right_3,
    tolerance=0.02,
    hint="Entropies of normals are half log determinants, and I = H(a) + H(b) - H(a, b).",
)

# %% [markdown]
# ## Solutions
#
# 1. Two evidences and one difference, over 32 pixels.

# %%
solution_1 = (evidence.log_evidence[0] - first.report.log_evidence[0]).item() / 32
assert pv.exercise(solution_1, right_1, tolerance=0.002).right
print(f"{solution_1:.3f} nats per pixel")

# %% [markdown]
# 2. Only the part of the first mode is counted: log 0.8, and log p(x_1 | x_0) of the truth would look 0.22 nats too
#    high.

# %%
uneven = torch.tensor([0.2, 0.8]).double()
tilted = pv.oracles.MixturePrior(line, uneven, modes, torch.tensor(0.5).double())
measured = pv.conditional(tilted.model, one_sided, pair, seen, method="importance").report.log_evidence - log_p
assert pv.exercise(measured.item(), math.log(0.8), tolerance=0.005).right
print(f"{measured.item():.4f}")

# %% [markdown]
# 3. The formula of the hint; or, as a mean over draws, log p(x_m | x_o) - log p(x_m):

# %%
lower = dist.MultivariateNormal(centre[32:], s[32:, 32:])
upper_half = torch.eye(64).double()[:32]
torch.manual_seed(0)
simulated = whole.sample((20_000,))
gain = exact_nats(simulated, upper_half) - lower.log_prob(simulated[:, 32:])
entropies = [torch.linalg.slogdet(part)[1] / 2 for part in (s[:32, :32], s[32:, 32:], s)]
solution_3 = (entropies[0] + entropies[1] - entropies[2]).item()
assert pv.exercise(solution_3, right_3, tolerance=0.02).right
print(f"{solution_3:.3f} nats; by simulation {gain.mean():.3f}, SE {gain.std() / len(gain) ** 0.5:.3f}")
