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
# # Reconstruction against KL
#
# After this notebook you will be able to
#
# - say what each of the two terms of the ELBO does to the codes, with a number for each;
# - derive, for a linear-Gaussian model, what a weight beta on the KL costs in log p(x), and why the best beta is
#   exactly 1;
# - predict at which beta a latent collapses, and read a collapse off the account;
# - tell a collapse that costs evidence from one that costs nothing.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Three panels
#
# The ELBO has two terms,
#
# $$\mathrm{ELBO}(x) = E_{q(z \mid x)}[\log p(x \mid z)] - \mathrm{KL}(q(z \mid x) \,\|\, p(z)).$$
#
# What does each of them want? We train the same networks on the first alone, on the second alone, and on both. Digits
# of 8 x 8 pixels, two latents, prior N(0, I).

# %%
digits = pv.data.load("digits")
epochs = 60  # short: 4


def vae(num_latents, **options):
    """The same networks from the same seeds, trained on what the options say."""
    mlp = pv.networks.mlp
    pair = pv.VAE(
        prior=pv.priors.StandardNormal(num_latents),
        decoder=pv.Conditional(pv.families.binomial(16), digits.shape, mlp(num_latents, 200, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), num_latents, mlp(digits.shape, 200, seed=1)),
    )
    pv.fit(
        pair.model,
        pair.guide,
        digits.train,
        epochs=epochs,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        seed=0,
        progress=False,
        **options,
    )
    return pair


terms = {
    "reconstruction only": pv.objectives.ReconstructionOnly(),
    "KL only": pv.objectives.KLOnly(),
    "both": pv.objectives.SampledELBO(),
}
of_terms = {name: vae(2, objective=objective) for name, objective in terms.items()}

# %%
num_test = 50  # short: 5
test = digits.test[:num_test]
budget = 10_000  # decoder passes for each digit, at most
panels = pv.latent_panels(of_terms, test, num_particles=200, budget=budget, progress=False)
print(panels)
pv.figures.latent_panels(panels)

# %% [markdown]
# *Reconstruction only*: codes fly apart, far from the grey draws of the prior, and q has hardly any noise; neighbours
# are alike. *KL only*: one ball, the prior itself; whose code it is cannot be told (ten classes: a guess is right one
# time in ten). *Both*: spread about the origin, neighbours alike.
#
# ## A deliberate failure, and the grid beside it
#
# Log p(x) of the first panel is flagged: a good part of the digits are *unreliable*, by k-hat. It is a **deliberate
# failure**: codes lie where N(0, I) has next to nothing, and are as narrow as points. With two latents there is
# a twin for the intractable integral: a sum over a fine grid that holds all codes.

# %%
num_points = 500  # short: 300


def log_p_by_grid(pair, x, reach, num_points):
    """log p(x), (N,), by a sum over a grid on [-reach, reach]²."""
    line = torch.linspace(-reach, reach, num_points)
    cell = 2 * (line[1] - line[0]).log()
    total = torch.full((len(x),), -torch.inf)
    with torch.no_grad():
        for z in torch.cartesian_prod(line, line).split(20_000):
            logits = pair.decoder.network(z).flatten(1)
            kernel = logits @ x.flatten(1).T - 16 * nn.functional.softplus(logits).sum(1, keepdim=True)
            total = torch.logaddexp(total, (kernel + pair.prior().log_prob(z)[:, None]).logsumexp(0))
    ways = torch.lgamma(torch.tensor(17.0)) - torch.lgamma(x + 1) - torch.lgamma(17 - x)
    return total + cell + ways.flatten(1).sum(1)


print("                        by evaluate      by grid (error)     evaluate less grid   unreliable   the others")
for name, pair in of_terms.items():
    report, reach = panels.reports[name], 4 + 1.3 * panels.means[name].abs().max().item()
    exact = log_p_by_grid(pair, test.x, reach, num_points)
    error = (exact - log_p_by_grid(pair, test.x, reach, num_points // 2)).mean().abs()  # by twice the spacing
    off = report.log_evidence - exact
    print(
        f"{name:22s}{report.log_evidence.mean():13.2f}{exact.mean():13.2f} ({error:.3f})"
        f"{off.mean():16.2f} ± {off.std() / len(off) ** 0.5:.2f}{report.fraction_unreliable:13.0%}"
        f"{off[~report.unreliable].mean():13.2f}"
    )

# %% [markdown]
# In the first line `evaluate`, within its budget, is too low by many nats. K-hat flags a good part of the digits, but
# not all that it should: those it does not flag (the last column) are too low by about two nats as well. It sees only
# where draws have fallen, and here the posterior can lie where none did. In the other two lines evaluate agrees with
# the grid to a tenth of a nat. And only *both* gives a good model: log p(x) by the grid is the judge of that.
#
# ## A weight on the KL
#
# Why should the two terms be weighted alike? Put a weight beta on the second (Higgins et al. 2017),
#
# $$J_\beta = E_q[\log p(x \mid z)] - \beta\,\mathrm{KL}(q(z \mid x) \,\|\, p(z)).$$
#
# A twin says what that does, exactly. Let $x \mid z \sim N(Wz, \sigma^2 I)$ with $D$ features and $k$ latents. For a
# given model the best guide is proportional to $p(z)\,p(x \mid z)^{1/\beta}$, and $p(x \mid z)^{1/\beta}$ is, but for a
# constant, a Normal of variance $\beta\sigma^2$. So the best guide believes in a noise of $\beta\sigma^2$, and with
# $\tau = \beta\sigma^2$
#
# $$\max_q J_\beta = \beta \log N(x;\, 0,\, WW' + \tau I) + (\beta - 1)\tfrac{D}{2} \log \tau + \text{const}.$$
#
# Let $\lambda_1 \ge \lambda_2 \ge \dots$ be the variances along the principal axes. Setting derivatives to zero,
#
# $$\sigma^2 = \frac{\lambda_{k+1} + \dots + \lambda_D}{D - \beta k}, \qquad |w_j|^2 = \lambda_j - \beta \sigma^2,$$
#
# where latents with $\lambda_j \le \beta\sigma^2$ collapse ($w_j = 0$) and are not counted in $k$. At beta = 1 that is
# probabilistic PCA, the maximum-likelihood solution (Tipping and Bishop 1999), so **no other beta has a higher log
# p(x)** on the data it was fitted to.

# %%
num_features, num_rows = 6, 2000
torch.manual_seed(0)
directions = torch.linalg.qr(torch.randn(num_features, 2))[0]
truth = pv.oracles.LinearGaussian(directions * torch.tensor([2.0, 1.0]), torch.zeros(num_features), torch.tensor(1.0))
x = truth.draw(num_rows, seed=0)[0].float()
x = x - x.mean(0)
variances, principal = (each.flip(-1) for each in torch.linalg.eigh(x.T @ x / num_rows))
print("variances along the principal axes:", [round(v, 3) for v in variances.tolist()])


def best_model(beta, most=2):
    """The model that maximises J of beta, in closed form, and how many latents it uses."""
    for used in range(most, -1, -1):
        noise = variances[used:].sum() / max(num_features - beta * used, 1e-9)
        if used == 0 or variances[used - 1] > beta * noise:
            loadings = torch.zeros(num_features, most)
            loadings[:, :used] = principal[:, :used] * (variances[:used] - beta * noise).sqrt()
            return pv.oracles.LinearGaussian(loadings, torch.zeros(num_features), noise.sqrt()), used


class LinearVAE(nn.Module):
    """x | z ~ N(Wz, s² I), and a factorised Normal guide whose mean is linear in x."""

    def __init__(self, num_latents=2):
        super().__init__()
        torch.manual_seed(1)
        self.loadings = nn.Parameter(torch.randn(num_features, num_latents) / 2)
        self.log_noise = nn.Parameter(torch.tensor(0.0))
        self.gain = nn.Parameter(torch.randn(num_features, num_latents) / 10)
        self.log_scale = nn.Parameter(torch.zeros(num_latents))

    def model(self, x):
        pyro.module("linear", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.log_scale), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.loadings.T, self.log_noise.exp()).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("linear", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.gain, self.log_scale.exp()).to_event(1))


steps = 300  # short: 60


def fit_linear(pair, data, beta):
    pv.fit(
        pair.model,
        pair.guide,
        data,
        objective=pv.objectives.WeightedELBO(beta, num_particles=5),
        epochs=steps,
        batch_size=len(data),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
        seed=0,
        progress=False,
    )
    return pair


# %% [markdown]
# What was fitted is linear and Gaussian too, so that its log p(x) needs no draws: no error in the table below is one of
# Monte Carlo.

# %%
betas = (0.3, 0.6, 1.0, 1.3, 2.0)  # the knob
best = best_model(1.0)[0].log_evidence(x)
linear, away = {}, {}
print("beta   log p(x) of the fit   in closed form   fit less the best, paired   latents used")
for beta in betas:
    pair = linear[beta] = fit_linear(LinearVAE(), x, beta)
    fitted = pv.oracles.LinearGaussian(pair.loadings.detach(), torch.zeros(num_features), pair.log_noise.detach().exp())
    model, used = best_model(beta)
    away[beta] = fitted.log_evidence(x) - best
    print(
        f"{beta:4.1f}{fitted.log_evidence(x).mean():17.4f}{model.log_evidence(x).mean():19.4f}"
        f"{away[beta].mean():16.4f} ± {away[beta].std() / num_rows**0.5:.4f}{used:13d}"
    )

# %%
fine = torch.linspace(0.1, 2.5, 200)
curve = [(best_model(float(b))[0].log_evidence(x) - best).mean() for b in fine]
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
axes.plot(fine, curve, color="#222222", lw=0.8, label="closed form")
axes.errorbar(
    betas,
    [a.mean() for a in away.values()],
    yerr=[2 * a.std() / num_rows**0.5 for a in away.values()],
    fmt="o",
    ms=4,
    capsize=3,
    color="#d55e00",
    label="fits, ± 2 SE over rows",
)
axes.axvline(1.0, color="#8a8a8a", lw=0.8, ls=":")
axes.set(xlabel="beta", ylabel="log p(x) less the largest, nats per row")
axes.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Fits and formula agree, and the maximum is at 1. Below it the guide believes in less noise than the decoder has, and
# latents are pressed to explain noise; above it, latents are given up that the data have use for: at beta = 2 the
# second has collapsed ($\lambda_2 < \beta\sigma^2$) although it is there in the truth. In both cases the decoder no
# longer is the likeliest one.
#
# ## Beta on digits, and warm-up
#
# Sixteen latents. A latent is *active* if the mean of its q(z|x) varies over the data by more than 0.01 (Burda et al.
# 2016). The last row weighs the terms alike at the end, but lets beta rise from 0 to 1 over the first third of the
# epochs: *warm-up* (Bowman et al. 2016), meant to keep latents from collapsing early.

# %%
num_latents = 16
num_digits = 60  # short: 10
some = digits.test[:num_digits]
settings = {f"beta {b:g}": {"objective": pv.objectives.WeightedELBO(b)} for b in (0.3, 1, 3, 10, 30)}
settings["warm-up"] = {"kl_warmup": epochs / 3}
accounts, anatomies = {}, {}
for name, options in settings.items():
    pair = vae(num_latents, **options)
    accounts[name] = pv.evaluate(pair.model, pair.guide, some, num_particles=300, progress=False)
    anatomies[name] = pv.surgery(pair.model, pair.guide, digits.test, progress=False)
print("            reconstruction   KL(q || p)       ELBO   log p(x)   less beta 1, paired   active   collapsed")
for name, report in accounts.items():
    change = report.log_evidence - accounts["beta 1"].log_evidence
    means = [each.mean() for each in (report.reconstruction, report.kl_prior, report.elbo, report.log_evidence)]
    print(
        f"{name:10s}{means[0]:16.2f}{means[1]:13.2f}{means[2]:11.2f}{means[3]:11.2f}"
        f"{change.mean():13.2f} ± {change.std() / len(change) ** 0.5:.2f}"
        f"{anatomies[name].active_units:9d}{len(anatomies[name].collapsed):12d}"
    )

# %%
rates = [accounts[name].kl_prior.mean() for name in settings]
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
change = [report.log_evidence - accounts["beta 1"].log_evidence for report in accounts.values()]
axes.errorbar(
    rates,
    [c.mean() for c in change],
    yerr=[2 * c.std() / len(c) ** 0.5 for c in change],
    fmt="o",
    ms=4,
    capsize=3,
    color="#0072b2",
)
for name, rate, c in zip(settings, rates, change, strict=True):
    axes.annotate(
        name, (rate, c.mean()), xytext=(6, 6 if name == "warm-up" else -10), textcoords="offset points", fontsize=8
    )
axes.margins(0.15)
axes.set(xlabel="KL(q ‖ prior), nats per digit", ylabel="log p(x) less that of beta 1, nats")
plt.show()

# %% [markdown]
# On digits nothing is linear, yet the same is seen: no other beta does better than 1, though 0.3 and 3 are within two
# errors of it. Reconstruction rises all the way to the smallest beta, which is not the best model. Far above 1 the evidence goes long before the first latent has
# collapsed: one whose code says little still counts as active. Warm-up changes nothing beyond twice its error, as no
# latent had collapsed at beta = 1.
# (Errors are over digits, given one fit of each; between fits from other seeds there is more.)
#
# ## A decoder so strong that the code is not needed
#
# A collapse can also be right. Rows of six numbers share a level: $x_t = b + e_t$, with $b$ and $e_t$ standard Normal.
# One decoder needs a code for the level, $x_t \mid z \sim N(w_t z, s^2)$. The other may look at all numbers *before*
# the t-th,
#
# $$x_t \mid z, x_1, \dots, x_{t-1} \sim N\Big(w_t z + \sum_{u < t} a_{tu} x_u,\; s_t^2\Big),$$
#
# and can write any Normal density of x without z (the regression of each number on those before it). As the data are
# Normal, the truth is known.


# %%
class Sequential(LinearVAE):
    """The same with a regression on the numbers before."""

    def __init__(self, num_latents=1):
        super().__init__(num_latents)
        self.before = nn.Parameter(torch.zeros(num_features, num_features))
        self.log_noise = nn.Parameter(torch.zeros(num_features))

    def model(self, x):
        pyro.module("linear", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.log_scale), 1.0).to_event(1))
            loc = z @ self.loadings.T + x @ self.before.tril(-1).T
            pyro.sample("x", dist.Normal(loc, self.log_noise.exp()).to_event(1), obs=x)


levels = pv.oracles.LinearGaussian(torch.ones(num_features, 1), torch.zeros(num_features), torch.tensor(1.0))
num_new = 1000  # short: 200
rows, new_rows = (levels.draw(num, seed=num)[0].float() for num in (num_rows, num_new))
exact = levels.log_evidence(new_rows)
print("                           KL(q || p)      ELBO   log p(x) less the truth's   active")
collapse = {}
for name, new in {"needs the code": lambda: LinearVAE(1), "does not need it": Sequential}.items():
    for beta in (1.0, 1.5):
        pair = fit_linear(new(), rows, beta)
        report = pv.evaluate(pair.model, pair.guide, new_rows, num_particles=100, progress=False)
        anatomy = pv.surgery(pair.model, pair.guide, new_rows, progress=False)
        collapse[name, beta] = report, anatomy
        off = report.log_evidence - exact
        print(
            f"{name:17s} beta {beta:g}{report.kl_prior.mean():12.3f}{report.elbo.mean():11.3f}"
            f"{off.mean():16.4f} ± {off.std() / len(off) ** 0.5:.4f}{anatomy.active_units:12d}"
        )

# %%
report, anatomy = collapse["does not need it", 1.5]
print(report.summary())
print(anatomy)

# %% [markdown]
# At beta = 1 both decoders are the truth to a few thousandths of a nat, by quite different means: one says with about
# one nat per row what the level is, the other needs no code. A weight of 1.5 collapses the second, and that costs
# *nothing*; the first it pushes away from the truth by several standard errors. So a collapse is a fault only where
# log p(x) tells of one; what is lost otherwise is the use of z as a description (Chen et al. 2017).
#
# The account says it in four places: KL(q ‖ prior) is zero; so is KL(q ‖ posterior), as the posterior is the prior too;
# log p(x) = ELBO = reconstruction; and the anatomy names the dimension as collapsed. Note what k-hat does: it flags some
# rows although all weights are equal to three digits (the least effective sample size is nearly all of the draws). It
# looks at the shape of the tail of the weights, not at its size. Read the two together.
#
# ## Exercise 1: at which beta does the second latent collapse?
#
# In the linear-Gaussian twin. Use the closed form above and `variances`; check your formula against the column of
# latents used.

# %%
answer_1 = ...


def is_threshold(beta):
    return best_model(beta - 0.01)[1] == 2 and best_model(beta + 0.01)[1] == 1


pv.exercise(
    answer_1,
    is_threshold,
    hint="set the second variance equal to beta times the noise variance, which depends on beta itself (k = 2).",
)

# %% [markdown]
# ## Exercise 2: a beta that nobody wrote down
#
# A program minimises the *mean* over pixels of the squared error of a digit, plus the KL. It looks like an ELBO with
# beta = 1. Of which Normal likelihood is it the ELBO, up to a constant: what is the standard deviation of a pixel?

# %%
answer_2 = ...
num_pixels = digits.shape.numel()
pv.exercise(
    answer_2,
    math.sqrt(num_pixels / 2),
    tolerance=0.01,
    hint="-log N(x; m, s²) is (x - m)² / (2 s²) and a constant; match it with (x - m)² / 64.",
)

# %% [markdown]
# ## Exercise 3: what does a latent cost?
#
# In the twin at beta = 1, how many nats per datum is the mean of KL(q(z | x) ‖ p(z)), summed over both latents? Answer
# from `variances` and the noise alone, without a draw.

# %%
answer_3 = ...
noise_variance = best_model(1.0)[0].noise_scale[0].item() ** 2
covariance = best_model(1.0)[0].evidence().covariance_matrix
pv.exercise(
    answer_3,
    (torch.logdet(covariance) - num_features * math.log(noise_variance)).item() / 2,
    tolerance=0.01,
    hint="the posterior variance of a latent is the noise variance over lambda, and E m² = 1 less that variance.",
)

# %% [markdown]
# ## Solutions
#
# 1. $\lambda_2 = \beta (\lambda_3 + \dots + \lambda_D) / (D - 2\beta)$, solved for beta.

# %%
threshold = (num_features * variances[1] / (variances[2:].sum() + 2 * variances[1])).item()
assert pv.exercise(threshold, is_threshold).right
print(f"beta = {threshold:.3f}")

# %% [markdown]
# 2. $1 / (2 s^2) = 1 / 64$. Ink goes from 0 to 16, so this is a program with a very noisy likelihood, or, with a
#    pixel's standard deviation of 1, one with a beta of 32: expect collapse. The same numbers, summed instead of
#    averaged, would make another model.

# %%
scale = math.sqrt(num_pixels / 2)
assert pv.exercise(scale, math.sqrt(num_pixels / 2), tolerance=0.01).right
print(f"{scale:.3f} dots of ink; a beta of {scale**2:.0f} at a standard deviation of 1")

# %% [markdown]
# 3. For one latent $(E m^2 + v - 1)/2 - \tfrac12 \log v$ with $v = \sigma^2 / \lambda_j$ and $E m^2 = 1 - v$, so half
#    the logarithm of $\lambda_j / \sigma^2$: nothing for a latent at the threshold of collapse.

# %%
cost = (variances[:2] / noise_variance).log().sum().item() / 2
by_determinant = (torch.logdet(covariance) - num_features * math.log(noise_variance)).item() / 2
assert pv.exercise(cost, by_determinant, tolerance=0.01).right
with torch.no_grad():
    mean, log_scale = x @ linear[1.0].gain, linear[1.0].log_scale
    of_fit = ((mean**2 + (2 * log_scale).exp() - 1) / 2 - log_scale).sum(1)
print(f"{cost:.3f} nats; of the fit {of_fit.mean():.3f} ± {of_fit.std() / len(of_fit) ** 0.5:.3f}")
