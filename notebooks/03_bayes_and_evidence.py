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
# # Bayes, the evidence, and why the integral is hard
#
# After this notebook you will be able to
#
# - read Bayes' theorem off a picture of the joint density: p(x) is an area, p(z | x) a slice divided by it;
# - integrate the latents out on a grid, in one and in two dimensions, and say how large the error is;
# - say why a grid ends at six latents or so, and draws from the prior soon after;
# - tell from Pareto k-hat, without knowing the truth, that an estimate of log p(x) is not to be trusted.

# %%
import math
import warnings

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## One latent: everything can be seen
#
# A latent $z \sim N(0, 1)$ is bent by a curve $f$ and observed with noise, $x \mid z \sim N(f(z), s^2)$. Bayes'
# theorem is
#
# $$p(z \mid x) = \frac{p(x \mid z)\,p(z)}{p(x)}, \qquad p(x) = \int p(x \mid z)\,p(z)\,dz.$$
#
# The numerator costs nothing: a program that draws z and then x can be asked for its log density. The denominator, the
# *evidence*, is the integral that all of variational inference is about.

# %%
noise = 0.3  # the knob: s


def curve(z):
    return z / 2 + torch.sin(2 * z)


def log_joint(z, x, f=curve, s=noise):
    """log p(z) + log p(x | z), in nats."""
    return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(f(z), s).log_prob(x)


x = torch.tensor(0.5)  # one datum
z = torch.linspace(-5, 5, 2001)
evidence = torch.trapezoid(log_joint(z, x).exp(), z)  # the area under the slice
posterior = log_joint(z, x).exp() / evidence  # the slice, divided by its area
print(f"p(x) = {evidence:.6f}, log p(x) = {evidence.log():.6f} nats")

# %%
everywhere = torch.linspace(-3, 3, 301)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.pcolormesh(z, everywhere, log_joint(z[None], everywhere[:, None]).exp(), cmap="Blues", rasterized=True)
left.axhline(x, color="#d55e00")
left.set(xlim=(-3, 3), xlabel="z", ylabel="x", title="joint density p(z, x); the line is the datum")
right.plot(z, dist.Normal(0.0, 1.0).log_prob(z).exp(), color="#8a8a8a", label="prior p(z)")
right.plot(z, log_joint(z, x).exp(), color="#d55e00", label=f"slice p(z, x), area {evidence:.3f}")
right.plot(z, posterior, color="#0072b2", label="posterior p(z | x), area 1")
right.set(xlim=(-3, 3), xlabel="z", ylabel="density")
right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(-0.02, 1))
plt.show()

# %% [markdown]
# Three values of z explain this datum, and each is a mode of the posterior. (A fourth, near -2.2, explains nothing: it
# is where the curve comes nearest on its side, and holds less than a hundredth of the mass.) No Normal looks like that:
# remember it when a guide is a Normal.
#
# How good is the grid? **A twin whose answer is known** tells. With $f(z) = z$ instead, x is a sum of two Normals, and
# $p(x) = N(x; 0, 1 + s^2)$ exactly. The same grid on the twin:

# %%
exact = dist.Normal(0.0, math.sqrt(1 + noise**2)).log_prob(x)
for num_points in (11, 21, 41, 81, 2001):
    nodes = torch.linspace(-5, 5, num_points)
    on_twin = torch.trapezoid(log_joint(nodes, x, f=lambda z: z).exp(), nodes).log()
    print(f"{num_points:5d} points, {10 / (num_points - 1):.3f} apart: grid - exact = {on_twin - exact:+.1e} nats")

# %% [markdown]
# The trapezoid rule fails while its points lie further apart than the posterior is wide (here 0.29), and then
# converges faster than any power of the spacing. What is left at the end is the mass of the prior beyond the box, and
# rounding.
#
# ## The same as a program
#
# Two Pyro programs say the same as `log_joint`. A guide is a program of some q(z | x); for now the prior stands in. On
# one datum with one or two latents, `reference_posterior` lays the grid by itself and states its error, found by
# halving the spacing. Importance sampling from the guide stands beside it with its own.


# %%
def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(curve(z), noise), obs=x)


def prior_as_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))


reference = pv.reference_posterior(model, prior_as_guide, x[None], num_draws=1000)
print(reference)
by_draws = pv.evaluate(model, prior_as_guide, x[None], num_particles=10_000, method="importance")
estimate, error = by_draws.log_evidence[0], by_draws.mc_se_log_evidence[0]
print(f"\nby hand {evidence.log():.6f}; by the tool's grid {reference.log_evidence.value:.6f}")
print(f"by 10,000 draws of the prior {estimate:.4f}, standard error {error:.4f}")

# %% [markdown]
# p(x) is a density of x, so it has to fit a histogram of data that the model simulates. That is the whole meaning of
# the number: how probable, under the model, a datum like this one is.

# %%
by_x = torch.trapezoid(log_joint(z[None], everywhere[:, None]).exp(), z)
simulated = pv.sample(model, x[None], num_samples=4000, seed=0).values["x"].flatten()
counts, edges = torch.histogram(simulated, bins=30, range=(-3.0, 3.0))
width = edges[1] - edges[0]
figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
axes.errorbar(edges[:-1] + width / 2, counts / 4000 / width, yerr=2 * counts.sqrt() / 4000 / width, fmt="o", ms=3,
              color="#d55e00", label="4,000 simulated x, ± 2 standard errors")  # fmt: skip
axes.plot(everywhere, by_x, color="#0072b2", label="p(x) by the grid")
axes.set(
    xlabel="x", ylabel="density", title=f"the area under p(x) from -3 to 3 is {torch.trapezoid(by_x, everywhere):.4f}"
)
axes.legend(frameon=False, fontsize=8, loc="lower center")
plt.show()

# %% [markdown]
# ## Two latents: still on paper
#
# Let $x \mid z \sim N(z_1 z_2, s^2)$. Many pairs have the same product, so the posterior is two ridges along the
# branches of a hyperbola. Blue is the posterior on a grid of the tool's, orange are draws of the prior.


# %%
def product(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.prod(-1), noise), obs=x)


def prior_of_two(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


ridges = pv.reference_posterior(product, prior_of_two, torch.tensor([1.0]), num_draws=1000)
print(ridges)
pv.figures.posterior_of_one(ridges)

# %% [markdown]
# The verdict compares means and standard deviations, coordinate by coordinate: both nearly fit, and yet the guide is
# far from the posterior. The picture shows it, and the evidence accounts for it: $\log p(x) = \mathrm{ELBO} +
# \mathrm{KL}(q \,\|\, p(z \mid x))$, which is the next notebook.
#
# ## The curse: points needed against latents
#
# The twin in D dimensions is probabilistic PCA, $z \sim N(0, I)$, $x \mid z \sim N(Wz + b, I)$, for which $p(x) = N(b,
# WW' + I)$. How many grid points does log p(x) take to within 0.01 nat? We lay G points along each axis from -5 to 5,
# and take more until the worst of 10 data is right.

# %%
tolerance = 0.01  # the knob, in nats


def on_grid(oracle, datum, num_points):
    """log p(x) by the trapezoid rule on a grid of so many points along each axis."""
    num_latents, axis = oracle.loadings.shape[1], torch.linspace(-5, 5, num_points)
    nodes = torch.cartesian_prod(*[axis] * num_latents).reshape(-1, num_latents)
    log_density = oracle.prior().log_prob(nodes) + oracle.likelihood(nodes).log_prob(datum)
    return log_density.logsumexp(0) + num_latents * math.log(10 / (num_points - 1))


def points_needed(oracle, data):
    for num_points in range(10, 60, 2):
        errors = torch.stack([on_grid(oracle, datum, num_points) for datum in data]) - oracle.log_evidence(data)
        if errors.abs().max() < tolerance:
            return num_points, errors.abs().max().item()
    raise ValueError("no grid of this size will do")


most = 4  # short: 3
needed = {}
print("latents   points an axis   points in all   worst error")
for num_latents in range(1, most + 1):
    oracle = pv.oracles.ppca(20, num_latents, collinearity=0.0)
    needed[num_latents], worst = points_needed(oracle, oracle.draw(10, seed=1)[0])
    print(f"{num_latents:7d}{needed[num_latents]:17d}{needed[num_latents] ** num_latents:16,}{worst:14.4f} nats")

# %%
per_axis = needed[most]
for num_latents in (8, 20, 50):
    years = per_axis**num_latents / 1e9 / (365.25 * 24 * 3600)
    print(f"{num_latents:2d} latents: {float(per_axis**num_latents):.0e} points, {years:.0e} years at 1e9 a second")

# %% [markdown]
# Points an axis hardly change, points in all are a power of them. Nothing about the integrand is difficult here (it is
# a single Gaussian bump): the grid fails as it looks everywhere, while nearly all of the integral lies in a small part
# of space.
#
# ## Draws from the prior do not help for long
#
# $p(x) = E_{p(z)}[p(x \mid z)]$ is a mean, so draw $z_1, \dots, z_K$ from the prior and average the likelihoods. That
# is importance sampling with the prior as its guide, and its standard error falls with $\sqrt K$ *in every dimension*.
# Here is a **deliberate failure**: the same 10,000 draws for more and more latents, held against the exact log p(x).

# %%
num_particles = 10_000  # the knob: K
dimensions = (1, 2, 3, 4, 6, 8, 12, 16)


def standard_normal(num_latents):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(num_latents), 1.0).to_event(1))

    return guide


reports, differences = {}, {}
for num_latents in dimensions:
    oracle = pv.oracles.ppca(20, num_latents, collinearity=0.0)
    data, _ = oracle.draw(50, seed=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        reports[num_latents] = pv.evaluate(
            oracle.model, standard_normal(num_latents), data, num_particles=num_particles, method="importance"
        )
    differences[num_latents] = reports[num_latents].log_evidence - oracle.log_evidence(data)
print(f"the last of them, {num_latents} latents, warned:\n{said[0].message}")

# %%
print("latents   estimate - exact   stated error   effective draws   k-hat bad")
for num_latents, report in reports.items():
    stated = report.mc_se_log_evidence.square().mean().sqrt()
    print(
        f"{num_latents:7d}{differences[num_latents].mean():19.3f}{stated:15.3f}{report.ess.median():18.1f}"
        f"{report.fraction_unreliable:12.0%}"
    )

# %%
means = torch.stack([differences[d].mean() for d in dimensions])
stated = torch.stack([reports[d].mc_se_log_evidence.square().mean().sqrt() for d in dimensions])
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
axes.errorbar(dimensions, means, yerr=2 * stated, fmt="o-", capsize=3, color="#d55e00")
axes.axhline(0, color="#222222", lw=0.8)
axes.set(xlabel="latents", ylabel="log p(x), estimate − exact, nats",
         title=f"K = {num_particles:,} draws of the prior; bars: ± 2 stated errors of one datum")  # fmt: skip
plt.show()

# %% [markdown]
# Three things to see. The estimate is too *low*, never too high on average: few draws hit the small region that
# matters, and a mean without its largest terms is too small. The stated error is no measure of it: computed from the
# same draws, which do not know what they missed, it cannot exceed 1, and near 1 says only that one draw carries all.
# **Pareto k-hat warns**: it fits the tail of each datum's weights, and where that is too heavy for so many draws the
# datum counts as unreliable.
#
# (A nicety: weights of the prior are bounded by the largest likelihood, so their variance is finite, and in theory a
# large enough K will do. k-hat tells that *this* K is not large enough, which is what one wants to know.)
#
# ## What would help
#
# Draws from where the mass is. Were the guide the posterior itself, every weight $p(x \mid z)\,p(z) / p(z \mid x)$
# would be p(x): one draw would do, in any dimension.

# %%
oracle = pv.oracles.ppca(20, 16, collinearity=0.0)
data, _ = oracle.draw(50, seed=1)
best = pv.evaluate(oracle.model, oracle.guide, data, num_particles=10, method="importance")
print(
    f"16 latents, 10 draws of the posterior: off by {(best.log_evidence - oracle.log_evidence(data)).abs().max():.1e} nats"
)

# %% [markdown]
# So the plan is: find a program q(z | x) near the posterior, for every x at once. A variational autoencoder calls it
# the encoder, and the next notebooks say how it is found, what it leaves open, and how that is measured.
#
# ## Exercise 1: the noise and the evidence
#
# The datum x = 2.0 lies at the rim of what the first model can produce. The noise is halved, from 0.3 to 0.15. Does
# log p(x) rise or fall? Decide before you compute: less noise means a sharper likelihood, higher at its peak. Then
# give the change in nats.

# %%
answer_1 = ...


def log_evidence_of(x, s):
    return torch.trapezoid(log_joint(z, torch.tensor(x), s=s).exp(), z).log().item()


pv.exercise(
    answer_1,
    log_evidence_of(2.0, 0.15) - log_evidence_of(2.0, 0.3),
    tolerance=0.02,
    hint="after minus before; which z reach x = 2.0, and how many standard deviations of noise are they away?",
)

# %% [markdown]
# ## Exercise 2: how far a grid goes
#
# You can afford a billion points (1e9), and each axis takes `per_axis` of them. What is the largest number of latents?

# %%
answer_2 = ...
pv.exercise(
    answer_2, lambda d: per_axis**d <= 1e9 < per_axis ** (d + 1), hint="per_axis to the power of D is at most 1e9."
)

# %% [markdown]
# ## Exercise 3: choose K
#
# Effective draws of the prior are in expectation about $K \, E[w]^2 / E[w^2]$, where $E[w^2] / E[w]^2$ grows with the
# dimension. From the table above, at 2, 3 and 4 latents: about how many draws K would 6 latents take for 100 effective
# ones? A factor of four is near enough.


# %%
def draws_for(effective, num_latents):
    """K for the median datum, as E[w^2] = integral of p(x|z)^2 p(z) is Gaussian too."""
    oracle = pv.oracles.ppca(20, num_latents, collinearity=0.0)
    data, _ = oracle.draw(50, seed=1)
    precision = oracle.precision()
    information = (data - oracle.bias) @ oracle.loadings
    twice = 2 * precision - torch.eye(num_latents)
    quadratic = lambda matrix, h: (h @ torch.linalg.inv(matrix) * h).sum(-1)  # noqa: E731
    log_ratio = (
        torch.logdet(precision)
        - torch.logdet(twice) / 2
        + quadratic(twice, 2 * information) / 2
        - quadratic(precision, information)
    )
    return effective * log_ratio.median().exp().item()


answer_3 = ...
pv.exercise(
    answer_3,
    lambda k: 0.25 < k / draws_for(100, 6) < 4,
    hint="by what factor do effective draws fall for each further latent? Multiply 10,000 by it until 6.",
)

# %% [markdown]
# ## Solutions
#
# 1. It falls. Within two standard deviations of the prior the curve stays below x = 2.0, so the datum is some standard
#    deviations of noise away from every probable z, and halving the noise doubles that number: by this alone log p(x)
#    would fall by more than five nats. It falls by less, as the curve does reach 2.0, near z = 3, where the prior has
#    little mass; with the smaller noise most of p(x) comes from there. (A sharper likelihood is higher at its peak
#    only.)

# %%
change = log_evidence_of(2.0, 0.15) - log_evidence_of(2.0, 0.3)
assert pv.exercise(change, lambda answer: answer < 0 and abs(answer - change) < 0.02).right
print(f"{change:.2f} nats; nearest the curve comes, within |z| < 2: {curve(z[z.abs() < 2]).max():.2f}")

# %% [markdown]
# 2. $D \log_{10} G \le 9$.

# %%
latents = math.floor(9 / math.log10(per_axis))
assert pv.exercise(latents, lambda d: per_axis**d <= 1e9 < per_axis ** (d + 1)).right
print(latents)

# %% [markdown]
# 3. Each latent divides the effective draws by the same factor, on average: take it from 2 to 4 latents, where the
#    draws can be trusted most, and go on to 6. (k-hat doubts many of these data already, and the more so at 6: the answer
#    is right within a factor of four, no better.)

# %%
factor = (reports[2].ess.median() / reports[4].ess.median()).sqrt().item()
k = 100 * num_particles / reports[2].ess.median().item() * factor**4
assert pv.exercise(k, lambda k: 0.25 < k / draws_for(100, 6) < 4).right
print(f"each latent costs a factor of {factor:.1f}; K = {k:,.0f}, by the exact second moment {draws_for(100, 6):,.0f}")
