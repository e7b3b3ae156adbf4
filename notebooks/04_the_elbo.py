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
# # The ELBO: what it bounds, by how much, and where it misleads
#
# After this notebook you will be able to
#
# - derive the evidence lower bound by Jensen's inequality, and see what the inequality loses;
# - use the identity log p(x) = ELBO + KL(q ‖ posterior), and check each of its three terms against its exact value;
# - say which way KL(q ‖ p) errs, and why a factorised guide comes out too narrow;
# - show a model whose ELBO rises while its log p(x) falls, and name the cause.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Jensen: a mean of logarithms is below the logarithm of the mean
#
# Draw $z$ from a guide $q(z \mid x)$ and weigh it by $w = p(x, z) / q(z \mid x)$. Then $E_q[w] = p(x)$, whatever the
# guide, and as the logarithm is concave
#
# $$\mathrm{ELBO} = E_q[\log w] \;\le\; \log E_q[w] = \log p(x).$$
#
# An *oracle* is a model that knows its log p(x) and its posterior exactly. Here it is probabilistic PCA, $z \sim N(0,
# I)$, $x \mid z \sim N(Wz + b, I)$, with three latents, and the guide is a factorised Normal, 1.4 times too wide.

# %%
oracle = pv.oracles.ppca(20, 3, collinearity=0.3)
x, _ = oracle.draw(200, seed=1)
scale = 1.4  # the knob

torch.manual_seed(0)
terms = pv.log_terms(oracle.model, oracle.mean_field_guide(scale), x[:1], num_particles=10_000)
log_weight = terms.log_weight[:, 0]
elbo, elbo_se = log_weight.mean(), log_weight.std() / 100
truth = oracle.log_evidence(x[:1])[0]
print(f"mean of log w  = {elbo:.3f} ± {elbo_se:.3f}        exact ELBO {truth - oracle.kl_mean_field(scale):.3f}")
print(
    f"log of mean w  = {pv.estimators.log_evidence(terms.log_weight)[0]:.3f}"
    f" ± {pv.estimators.log_evidence_se(terms.log_weight)[0]:.3f}     exact log p(x) {truth:.3f}"
)

# %%
figure, axes = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
axes.hist(log_weight, bins=80, color="#0072b2", alpha=0.6)
axes.axvline(elbo, color="#d55e00", label=f"E log w = ELBO = {elbo:.2f} ± {elbo_se:.2f}")
axes.axvline(truth, color="#222222", label=f"log E w = log p(x) = {truth:.2f}")
axes.set(xlabel="log w of one draw, nats", ylabel="draws of 10,000", title=f"guide {scale} times too wide, one datum")
axes.legend(frameon=False, fontsize=8, loc="upper left")
plt.show()

# %% [markdown]
# The long left tail costs the mean of log w dearly and the mean of w nothing. What lies between the two lines has a
# name.
#
# ## The identity
#
# As $p(x, z) = p(z \mid x)\,p(x)$, the weight is $\log w = \log p(x) - \log [q(z \mid x) / p(z \mid x)]$, and the mean
# over $q$ is
#
# $$\log p(x) = \mathrm{ELBO} + \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x)).$$
#
# So a guide can lose nothing but this KL, and the ELBO is log p(x) only if the guide is the posterior. In an ordinary
# VAE neither log p(x) nor the KL is known. Here all three are: the columns below are measured by `evaluate`, which
# knows nothing of the oracle, and held against the exact values, in Monte-Carlo standard errors.

# %%
scales = (0.6, 0.8, 1.0, 1.4, 2.0)
exact = oracle.log_evidence(x).mean()
print("scale   ELBO measured      exact   off by   KL measured     exact   off by   k-hat bad")
by_scale = {}
for each in scales:
    report = by_scale[each] = pv.evaluate(
        oracle.model, oracle.mean_field_guide(each), x, num_particles=2000, method="importance"
    )
    kl = oracle.kl_mean_field(each)
    elbo_se, kl_se = (se.square().sum().sqrt() / len(x) for se in (report.mc_se_elbo, report.mc_se_kl_posterior))
    print(
        f"{each:5.1f}{report.elbo.mean():12.4f} ± {elbo_se:.4f}{exact - kl:11.4f}"
        f"{(report.elbo.mean() - exact + kl) / elbo_se:6.1f} SE{report.kl_posterior.mean():10.4f} ± {kl_se:.4f}{kl:8.4f}"
        f"{(report.kl_posterior.mean() - kl) / kl_se:6.1f} SE{report.fraction_unreliable:10.0%}"
    )

# %%
measured = torch.stack([report.elbo.mean() for report in by_scale.values()])
errors = torch.stack([report.mc_se_elbo.square().sum().sqrt() / len(x) for report in by_scale.values()])
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
axes.axhline(exact, color="#222222", label="log p(x), exact")
axes.errorbar(scales, measured, yerr=4 * errors, fmt="o", ms=4, capsize=3, color="#d55e00", label="ELBO ± 4 SE")
fine = torch.linspace(0.5, 2.1, 100)
axes.plot(fine, torch.stack([exact - oracle.kl_mean_field(float(s)) for s in fine]), color="#d55e00", lw=0.8)
axes.annotate("", (1.8, exact), (1.8, exact - oracle.kl_mean_field(1.8)), arrowprops={"arrowstyle": "<->"})
axes.text(1.82, exact - 0.15, "KL(q ‖ posterior)", va="top", fontsize=8)
axes.set(xlabel="scale of the guide (1: the best factorised Normal)", ylabel="nats per datum")
axes.legend(frameon=False, fontsize=8, loc="lower center")
plt.show()

# %% [markdown]
# The best factorised guide is still short of log p(x): the posterior is correlated, and no factorised guide is. The
# narrowest guide shows the **deliberate failure**: its ELBO is measured well, its log p(x), and with it the KL, is
# not. Draws never reach the rims of the posterior, the weights have infinite variance, and the KL is far off in its own
# standard errors. No error bar says so. Pareto k-hat does, in the last column.
#
# ## Which way a guide errs
#
# Two columns of the loadings are now nearly collinear, and the posterior of two latents is a ridge. Among factorised
# Normals, the one that minimises $\mathrm{KL}(q \,\|\, p)$ has standard deviations $1 / \sqrt{\Lambda_{ii}}$ (with
# $\Lambda$ the posterior's precision), the one that minimises $\mathrm{KL}(p \,\|\, q)$ those of the posterior,
# $\sqrt{(\Lambda^{-1})_{ii}}$.

# %%
ridge = pv.oracles.ppca(20, 2, collinearity=0.9)
precision = ridge.precision()
covariance = torch.linalg.inv(precision)
centre = torch.zeros(2)
posterior = dist.MultivariateNormal(centre, covariance)
narrow = dist.MultivariateNormal(centre, torch.diag(1 / precision.diagonal()))
wide = dist.MultivariateNormal(centre, torch.diag(covariance.diagonal()))
print("guide          sd    KL(q || p)   KL(p || q)   nats")
for name, q in {"narrow": narrow, "wide": wide}.items():
    to, fro = (torch.distributions.kl_divergence(a, b) for a, b in ((q, posterior), (posterior, q)))
    print(f"{name:10s}{q.stddev[0]:7.3f}{to:14.3f}{fro:13.3f}")

# %%
side = torch.linspace(-2, 2, 201)
plane = torch.cartesian_prod(side, side)
figure, axes = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
named = {"posterior": (posterior, "#222222"), "minimises KL(q ‖ p)": (narrow, "#d55e00"),
         "minimises KL(p ‖ q)": (wide, "#0072b2")}  # fmt: skip
for name, (q, color) in named.items():
    density = q.log_prob(plane).exp().reshape(201, 201).T
    inside_90 = (
        density.max() * 0.1
    )  # of a Gaussian in the plane, 90 % lie where the density is above a tenth of its peak
    axes.contour(side, side, density, levels=[inside_90], colors=color)
    axes.plot([], [], color=color, label=name)
axes.set(xlabel="z[0]", ylabel="z[1]", title="90 % contours, datum in the centre", aspect="equal")
axes.legend(frameon=False, fontsize=7, loc="lower left")
plt.show()

# %% [markdown]
# $\mathrm{KL}(q \,\|\, p)$, the one in the ELBO, is a mean over $q$: it punishes draws where the posterior has no
# mass, and never asks where $q$ itself is absent. So the guide hides in the ridge. Intervals from such a guide are too
# short, and it is a poor proposal for importance sampling, which wants the wide one.
#
# ## When the ELBO rises and log p(x) falls
#
# With the model fixed, a better ELBO is a better guide. **When the model moves too, it need not be a better model**:
#
# $$\mathrm{ELBO}(\theta) = \log p_\theta(x) - \min_q \mathrm{KL}(q \,\|\, p_\theta(z \mid x)),$$
#
# and a fit may give up evidence for a posterior that the guide can follow (Turner and Sahani 2011). The smallest
# example: D latents, one feature, one parameter,
#
# $$z \sim N(0, I), \qquad x \mid z \sim N\big(w\,(z_1 + \dots + z_D),\, 1\big), \qquad p_w(x) = N(0,\, 1 + D w^2),$$
#
# with a factorised Normal guide whose mean is linear in x. Explaining away correlates the posterior, the more the
# larger $w$. In closed form the best such guide loses $\tfrac12 [D \log(1 + w^2) - \log(1 + D w^2)]$ nats.

# %%
num_latents = 3  # the knob: D


class Sum(nn.Module):
    """The two programs, at a given w, with the best factorised guide for it."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))
        self.gain = nn.Parameter(torch.tensor(w / (1 + num_latents * w**2)))  # E[z_i | x] = gain * x
        self.log_scale = nn.Parameter(torch.tensor(-math.log(1 + w**2) / 2))

    def model(self, x):
        pyro.module("sum", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(num_latents), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.w * z.sum(-1), 1.0), obs=x)

    def guide(self, x):
        pyro.module("sum", self)
        with pyro.plate("data", len(x)):
            loc = (self.gain * x).unsqueeze(-1).expand(-1, num_latents)
            pyro.sample("z", dist.Normal(loc, self.log_scale.exp()).to_event(1))


def log_p(w, data):
    """Exact log p(x) at w, a mean over the data."""
    return dist.Normal(0.0, (1 + num_latents * w**2) ** 0.5).log_prob(data).mean()


def loss_of_guide(w):
    """KL of the best factorised guide to the posterior at w, the same for every datum."""
    w = torch.as_tensor(w)
    return (num_latents * torch.log(1 + w**2) - torch.log(1 + num_latents * w**2)) / 2


torch.manual_seed(0)
truth_of_w = 1.5
train, test = (dist.Normal(0.0, (1 + num_latents * truth_of_w**2) ** 0.5).sample((1000,)) for _ in range(2))
likeliest = ((train.square().mean() - 1) / num_latents).sqrt().item()  # the maximum-likelihood estimate
print(f"true w {truth_of_w}, maximum likelihood {likeliest:.3f}")

# %% [markdown]
# We start where log p(x) is *highest*, with the best guide there is for it, and let `fit` raise the ELBO. The exact
# log p(x) is written down at each epoch.

# %%
epochs = 400  # short: 60
pair, path = Sum(likeliest), [likeliest]
fitted = pv.fit(
    pair.model,
    pair.guide,
    train,
    epochs=epochs,
    batch_size=len(train),
    objective=pv.objectives.SampledELBO(10),
    optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    callback=lambda epoch, so_far: path.append(pair.w.item()),
    seed=0,
    progress=False,
)
print(f"w went from {path[0]:.3f} to {path[-1]:.3f}")

# %%
steps = torch.tensor(path)
evidence = torch.stack([log_p(w, train) for w in steps])
rising = torch.tensor([row["elbo"] for row in fitted.history])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
left.plot(evidence, color="#222222", label="log p(x), exact")
left.plot(rising, color="#d55e00", lw=0.8, label="ELBO of the fit, 10 draws a datum")
left.set(xlabel="epoch", ylabel="nats per datum (training)", title="the fit: one rises, the other falls")
left.legend(frameon=False, fontsize=8)
ws = torch.linspace(0.4, 2.2, 200)
right.plot(ws, torch.stack([log_p(w, train) for w in ws]), color="#222222", label="log p(x)")
right.plot(ws, torch.stack([log_p(w, train) - loss_of_guide(w) for w in ws]), color="#d55e00",
           label="ELBO of the best guide")  # fmt: skip
right.axvline(likeliest, color="#222222", ls=":", lw=1)
right.axvline(path[-1], color="#d55e00", ls=":", lw=1)
right.set(xlabel="w", title="both in closed form; dotted: start and end of the fit")
right.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Is it real, or a matter of these training data? `evaluate` and `compare` ask new data, datum by datum: the difference
# in log p(x) has a paired standard error.

# %%
start = Sum(likeliest)
reports = {
    "maximum likelihood": pv.evaluate(start.model, start.guide, test),
    "after raising the ELBO": pv.evaluate(fitted.model, fitted.guide, test),
}
print(pv.compare(reports))
for name, report in reports.items():
    print(f"{name:24s} log p(x) {report.log_evidence.mean():.3f}  ELBO {report.elbo.mean():.3f}"
          f"  KL(q || posterior) {report.kl_posterior.mean():.3f}")  # fmt: skip
change = reports["after raising the ELBO"].log_evidence - reports["maximum likelihood"].log_evidence
print(f"log p(x) of new data changed by {change.mean():.4f}, standard error {change.std() / len(change) ** 0.5:.4f}")

# %% [markdown]
# So two models must not be ranked by their ELBOs, only by log p(x). A guide that can follow the posterior removes the
# pull: with a full covariance the KL is zero at every $w$, and both curves are one.
#
# ## Exercise 1: a nat of slack
#
# `oracle.kl_mean_field(scale)` is the exact KL of a guide that many times as wide as the best factorised one. Which
# scale above 1 gives away exactly one nat more than the best? (For Z latents the KL grows by $\tfrac{Z}{2}(s^2 - 1 -
# \log s^2)$.)

# %%
answer_1 = ...


def slack(s):
    return (oracle.kl_mean_field(s) - oracle.kl_mean_field()).item()


pv.exercise(answer_1, lambda s: s > 1 and abs(slack(s) - 1) < 0.02, hint="look at slack(1.5), then go up or down.")

# %% [markdown]
# ## Exercise 2: how short are the intervals?
#
# Two latents have posterior standard deviations 1 and correlation 0.9. What standard deviation does the factorised
# Normal have that minimises KL(q ‖ p)?

# %%
answer_2 = ...
correlated = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
pv.exercise(
    answer_2,
    (1 / torch.linalg.inv(correlated).diagonal().sqrt())[0].item(),
    tolerance=0.005,
    hint="it is the conditional standard deviation, of one latent given the other.",
)

# %% [markdown]
# ## Exercise 3: where would a free model go?
#
# Let D = 2 and give each latent a loading of its own: $x \mid z \sim N(a z_1 + b z_2, 1)$, so that $p(x) = N(0, 1 +
# a^2 + b^2)$. All pairs with $a^2 + b^2 = 4$ have the same log p(x). Which of them has the largest ELBO under the best
# factorised guide? Answer with a pair (a, b).

# %%
answer_3 = ...


def loss_of(a, b):
    return (math.log(1 + a**2) + math.log(1 + b**2) - math.log(1 + a**2 + b**2)) / 2


pv.exercise(
    answer_3,
    lambda pair: abs(pair[0] ** 2 + pair[1] ** 2 - 4) < 0.01 and loss_of(*pair) < 0.01,
    hint="when is the posterior of two latents not correlated, whatever x?",
)

# %% [markdown]
# ## Solutions
#
# 1. By bisection; the function rises for s above 1.

# %%
low, high = 1.0, 3.0
for _ in range(30):
    middle = (low + high) / 2
    low, high = (low, middle) if slack(middle) > 1 else (middle, high)
assert pv.exercise(low, lambda s: s > 1 and abs(slack(s) - 1) < 0.02).right
print(f"{low:.3f}")

# %% [markdown]
# 2. $1 / \sqrt{\Lambda_{11}} = \sqrt{1 - \rho^2}$, less than half of what it should be.

# %%
short_of = math.sqrt(1 - 0.9**2)
assert pv.exercise(short_of, (1 / torch.linalg.inv(correlated).diagonal().sqrt())[0].item(), tolerance=0.005).right
print(f"{short_of:.3f}")

# %% [markdown]
# 3. One loading is zero: then one latent is the prior, the other has all of x to itself, and nothing is correlated.
#    The bound *prunes* a latent although the evidence does not care. Seen in a VAE, a latent that the decoder ignores
#    need not mean that the data have no use for it.

# %%
pruned = (2.0, 0.0)
assert pv.exercise(pruned, lambda pair: abs(pair[0] ** 2 + pair[1] ** 2 - 4) < 0.01 and loss_of(*pair) < 0.01).right
print(f"loss at (2, 0): {loss_of(2.0, 0.0):.3f} nats; at equal loadings: {loss_of(2**0.5, 2**0.5):.3f} nats")
