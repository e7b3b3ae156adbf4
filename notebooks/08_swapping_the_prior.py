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
# # Swapping the prior
#
# The prior p(z) is one line of the model. What does another line do to log p(x), and what has it to do with the codes
# that the encoder gives? First where everything is exact, then on handwritten digits.
#
# After this notebook you will be able to
#
# - put another prior into a fitted model without a refit, and say when the weights forbid to believe the answer;
# - swap five priors with one line each, and tell a difference in log p(x) from noise: over data, and over seeds;
# - take KL(q || prior) apart, and read off what the best of all priors could have bought;
# - see the aggregated posterior beside a prior, and say in nats how far apart they are.

# %%
import math
import warnings

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch
from sklearn.mixture import GaussianMixture

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## The tractable twin
#
# Three features, two latents, a linear-Gaussian likelihood. Under N(0, I) this is probabilistic PCA. Under a mixture of
# three Gaussians it has an exact evidence too. With the likelihood left as it is,
#
# $$p_{new}(x) = p_{old}(x)\; E_{p_{old}(z \mid x)}\!\left[\frac{p_{new}(z)}{p_{old}(z)}\right],$$
#
# so the old posterior can be reweighted, if it reaches where the new prior sends us. `with_prior` is the model with its
# prior swapped; data come from the mixture. Two estimates of its log p(x): the formula as it stands, by importance
# sampling from the old posterior (`method="importance"`), and what `evaluate` does if it is told nothing
# (`method="auto"`): data whose draws do not vouch for themselves get a proposal of their own.

# %%
oracle = pv.oracles.mixture_prior(3, 2, seed=2)
linear = oracle.linear
x, _ = oracle.draw(200, seed=1)
swapped = pv.with_prior(linear.model, z=oracle.prior)

old, new = linear.log_evidence(x), oracle.log_evidence(x)
print(f"exact log p(x): N(0, I) {old.mean():.4f}, mixture {new.mean():.4f} nats per datum")
print("with_prior                                   off by        SE   k-hat bad")
for method, label in (("importance", "the old posterior, reweighted"), ("auto", "a proposal for each datum in need")):
    report = pv.evaluate(swapped, linear.guide, x, method=method)
    mc_se = report.mc_se_log_evidence.square().sum().sqrt().item() / len(x)
    off = (report.log_evidence - new).mean()
    print(f"{label:40} {off:+10.5f} {mc_se:9.5f} {report.fraction_unreliable:11.1%}")

# %% [markdown]
# ## The example that fails
#
# The same question by importance sampling alone, with draws of the old posterior only, and a prior that grows narrow.
# The knob is the standard deviation t of a prior N(m, t² I) that sits two units away. The truth is known for each t.

# %%
shift = torch.tensor([2.0, -2.0]).double()
# The knob: t.
spreads = [1.0, 0.5, 0.25, 0.1]  # short: [1.0, 0.1]


def exact_under(spread):
    """log p(x) under the prior N(shift, spread^2 I), in closed form."""
    covariance = spread**2 * linear.loadings @ linear.loadings.T + (linear.noise_scale**2).diag()
    return dist.MultivariateNormal(linear.bias + linear.loadings @ shift, covariance).log_prob(x)


rows = []
print("    t    reweighted - exact      SE   k-hat bad     repaired - exact      SE")
for spread in spreads:
    model = pv.with_prior(linear.model, z=dist.Normal(shift, spread).to_event(1))
    exact = exact_under(spread)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = {method: pv.evaluate(model, linear.guide, x, method=method) for method in ("importance", "auto")}
    off = {method: (one.log_evidence - exact).mean().item() for method, one in found.items()}
    se = {method: one.mc_se_log_evidence.square().sum().sqrt().item() / len(x) for method, one in found.items()}
    bad = found["importance"].fraction_unreliable
    rows.append((spread, off, se, bad))
    print(
        f"{spread:5.2f} {off['importance']:21.4f} {se['importance']:7.4f} {bad:11.0%}"
        f" {off['auto']:20.5f} {se['auto']:7.5f}"
    )
print(f"\nand it warns: {said[0].message}")

# %%
figure, axes = plt.subplots(figsize=(5, 2.8))
for method, label in (("importance", "the old posterior's draws"), ("auto", "repaired, datum by datum")):
    values, errors = [row[1][method] for row in rows], [2 * row[2][method] for row in rows]
    axes.errorbar(spreads, values, yerr=errors, fmt="o-", capsize=3, label=label)
axes.axhline(0, color="k", lw=1)
axes.set(xscale="log", xlabel="standard deviation t of the new prior", ylabel="log p(x) - exact, nats")
axes.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# The narrower the prior, the fewer old draws lie under it, and the estimate falls below the truth by more than its own
# error says: a standard error is computed from the very draws that miss. k-hat sees it, datum by datum, and `evaluate`
# climbs to a proposal for each datum unless it is told not to. From here on it is not told.
#
# ## Five priors, one line each
#
# Handwritten digits (8 x 8 pixels, counts 0 to 16), two latents so that everything can be seen. The rest of the model
# is the same for all.
#
# - *normal*: N(0, I), nothing to fit.
# - *Student-t*: a t with 5 degrees of freedom for each latent, that is, heavier tails.
# - *mixture of 10*: ten normals, whose places, widths and weights are fitted with the rest.
# - *VampPrior* (Tomczak and Welling 2018): a mixture too, of the encoder's own q(z | u) at 50 made-up data u, the
#   *pseudo-inputs*. These are fitted; so the prior moves with the encoder and can come near the average of all q(z | x).
# - *flow*: a normal that is bent by an invertible network, of which the density is known exactly.

# %%
digits = pv.data.load("digits")
num_latents = 2
priors = {
    "normal": lambda encoder, seed: pv.priors.StandardNormal(num_latents),
    "Student-t": lambda encoder, seed: pv.priors.StudentT(num_latents, df=5.0),
    "mixture of 10": lambda encoder, seed: pv.priors.GaussianMixture(num_latents, num_components=10, seed=seed),
    "VampPrior of 50": lambda encoder, seed: pv.priors.VampPrior(
        num_latents, num_pseudo_inputs=50, encoder=encoder, rows=digits.train, seed=seed
    ),
    "flow": lambda encoder, seed: pv.priors.MaskedAutoregressiveFlow(num_latents, seed=seed),
}


def build(name, seed):
    """A VAE of the digits with one of the priors."""
    decoder = pv.networks.mlp(num_latents, 200, 200, seed=10 * seed)
    encoder = pv.networks.mlp(digits.shape, 200, 200, seed=10 * seed + 1)
    guide = pv.Conditional(pv.families.normal(), (num_latents,), encoder)
    model = pv.Conditional(pv.families.binomial(16), digits.shape, decoder)
    return pv.VAE(priors[name](guide, seed), model, guide)


# %%
epochs = 60  # short: 2
num_seeds = 3  # short: 2
num_test = 80  # short: 8
num_particles = 300

test = digits.test[:num_test]
vaes, fits, reports = {}, {}, {}
for name in priors:
    vaes[name] = [build(name, seed) for seed in range(num_seeds)]
    fits[name] = [
        pv.fit(vae.model, vae.guide, digits.train, epochs=epochs, seed=seed, progress=False)
        for seed, vae in enumerate(vaes[name])
    ]
    reports[name] = [
        pv.evaluate(fit.model, fit.guide, test, num_particles=num_particles, progress=False) for fit in fits[name]
    ]
over_seeds = pv.compare_seeds(reports)
print(over_seeds)

# %%
pv.figures.over_seeds(over_seeds)

# %% [markdown]
# *Stacking* (Yao et al. 2018) weighs the models for a mixture of their predictions p(x), by its log score on these rows:
# a model that is second best on the mean may get weight, if it is best for some digits. *Unreliable* are data whose
# k-hat is too high, after all repairs.
#
# A difference has two errors. SE: these test digits are a sample, and the difference is paired, digit by digit. Spread:
# another seed is another fit. What `compare_seeds` calls noise may turn around with either; what it calls clear stands
# against both. Here nothing is clear: a seed moves a fit by two to five nats, as much as the priors differ. Had each
# been fitted once, a reader would have taken luck for a result.
#
# ## What the prior has to do with the codes
#
# Averaged over the data, the KL to the prior consists of two parts,
#
# $$\frac1N \sum_n \mathrm{KL}(q(z \mid x_n) \,\|\, p(z)) = I_q(x; z) + \mathrm{KL}(q(z) \,\|\, p(z)), \qquad q(z) = \frac1N \sum_n q(z \mid x_n),$$
#
# what a code says of whose it is, and how far the *aggregated posterior* q(z) is from the prior. Only the second is the
# prior's business.

# %%
anatomies = {
    name: pv.surgery(fits[name][0].model, fits[name][0].guide, digits.train, num_queries=400, progress=False)
    for name in priors
}
print(f"{'prior':16} {'KL to prior':>11} {'= information':>13} {'+ marginal KL':>13} {'MC SE':>7}")
for name, one in anatomies.items():
    print(
        f"{name:16} {one.kl_prior.mean:11.3f} {one.mutual_information.mean:13.3f}"
        f" {one.marginal_kl.mean:13.3f} {one.marginal_kl.mc_se:7.3f}"
    )
print(f"mutual information is at most log N = {math.log(len(digits.train)):.3f}")

# %% [markdown]
# Beside the numbers, the picture: lines are the density of each prior, dots are draws from q(z), one for each digit.


# %%
def density_on(prior, edge):
    """The log density of a prior on a grid of its plane."""
    side = torch.linspace(-edge, edge, 120)
    plane = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
    with torch.no_grad():
        return side.numpy(), prior().log_prob(plane).numpy()


figure, panels = plt.subplots(1, len(priors), figsize=(12, 2.9))
for axes, name in zip(panels, priors, strict=True):
    z = pv.posterior(fits[name][0].model, fits[name][0].guide, digits.train[:600]).values["z"][0]
    edge = float(z.abs().max()) + 0.5
    side, log_density = density_on(vaes[name][0].prior, edge)
    axes.plot(*z.T.numpy(), ".", ms=1.5, color="C1")
    levels = log_density.max() - torch.tensor([8.0, 5.0, 3.0, 1.5, 0.5]).numpy()
    axes.contour(side, side, log_density, levels=levels, colors="C0", linewidths=0.8, linestyles="solid")
    axes.set(title=f"{name}\nmarginal KL {anatomies[name].marginal_kl.mean:.2f}", xlabel="z[0]", aspect="equal")
panels[0].set_ylabel("z[1]")
figure.tight_layout()

# %% [markdown]
# ## What a better prior would have bought
#
# Take the fit with the normal prior and leave it as it is. The best prior for *this* encoder and decoder, by the ELBO
# on the training digits, is q(z) itself, and it would raise that ELBO by the marginal KL, no more. A mixture fitted to
# draws of q by EM comes near it; `with_prior` says what it does to log p(x) of test digits. (*Found by* is how: "auto"
# on both sides, draws of the encoder or, where these do not do, of a proposal for each digit.)

# %%
num_components = 20  # the knob
plain = fits["normal"][0]
codes = pv.posterior(plain.model, plain.guide, digits.train, num_draws=5).values["z"].flatten(0, 1)
em = GaussianMixture(num_components, random_state=0, reg_covar=1e-3).fit(codes.numpy())
aggregated = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor(em.weights_).float()),
    dist.MultivariateNormal(torch.tensor(em.means_).float(), torch.tensor(em.covariances_).float()),
)
without_refit = pv.evaluate(pv.with_prior(plain.model, z=aggregated), plain.guide, test, num_particles=num_particles)
comparison = pv.compare({"N(0, I), as fitted": reports["normal"][0], "density of the codes": without_refit})
print(comparison)

# %%
draws = pv.posterior(plain.model, plain.guide, digits.train, seed=1).values["z"][0]
with torch.no_grad():
    gain = (aggregated.log_prob(draws) - dist.Normal(0.0, 1.0).log_prob(draws).sum(-1)).double()
bought, bought_se = gain.mean().item(), gain.std().item() / len(gain) ** 0.5
ceiling = anatomies["normal"].marginal_kl
print(
    f"training ELBO: +{bought:.3f} nats (SE {bought_se:.3f}) of at most {ceiling.mean:.3f} (MC SE {ceiling.mc_se:.3f})"
)

# %% [markdown]
# So most of what a better prior has to offer these codes can be had after the fit, for the price of an EM of seconds.
# Encoder and decoder are the same on both sides, so that no refit is in this difference: smaller than those between
# priors above, it is six standard errors from zero. Refits let encoder and decoder answer to the new prior as well;
# where the nats went, an account says:

# %%
pv.figures.account({"normal": reports["normal"][0], "mixture of 10": reports["mixture of 10"][0]})

# %% [markdown]
# ## Exercise 1: where did it go?
#
# log p(x) = reconstruction - KL(q || prior) + KL(q || posterior). Compare `reports["mixture of 10"][0]` with
# `reports["normal"][0]`: how many nats per digit of the difference in log p(x) are *not* in the difference of their
# ELBOs?

# %%
answer_1 = ...
mixture_report, normal_report = reports["mixture of 10"][0], reports["normal"][0]
right_1 = (mixture_report.kl_posterior - normal_report.kl_posterior).mean().item()
pv.exercise(answer_1, right_1, tolerance=0.005, hint="What stands between log p(x) and the ELBO?")

# %% [markdown]
# ## Exercise 2: the scale that the data choose
#
# In the twin, take priors N(0, t² I) with t among 0.5, 1, 2, 4. Which t gives the data `x` the most evidence? All of it
# is in closed form: `linear.loadings`, `linear.noise_scale`, `linear.bias`.

# %%
answer_2 = ...
candidates = [0.5, 1.0, 2.0, 4.0]


def evidence_at(t):
    """Mean exact log p(x) under the prior N(0, t^2 I)."""
    covariance = t**2 * linear.loadings @ linear.loadings.T + (linear.noise_scale**2).diag()
    return dist.MultivariateNormal(linear.bias, covariance).log_prob(x).mean().item()


right_2 = max(candidates, key=evidence_at)
pv.exercise(answer_2, right_2, tolerance=1e-9, hint="Cov(x) = t² W W' + diag(s²).")

# %% [markdown]
# ## Exercise 3: the most that a prior can do
#
# Somebody promises a prior that will raise the training ELBO of the *flow* fit (`fits["flow"][0]`), encoder and decoder
# as they are. What is the most it can gain, in nats per digit?

# %%
answer_3 = ...
limit = anatomies["flow"].marginal_kl
pv.exercise(
    answer_3,
    limit.mean,
    tolerance=0.01 + 2 * limit.mc_se,
    hint="For the best of all priors the second part of the KL is zero.",
)

# %% [markdown]
# ## Solutions
#
# 1. The difference in KL(q || posterior): what the encoder of each leaves undone.

# %%
difference = (mixture_report.log_evidence - normal_report.log_evidence).mean()
of_elbo = (mixture_report.elbo - normal_report.elbo).mean()
assert pv.exercise((difference - of_elbo).item(), right_1, tolerance=0.005).right
print(f"log p(x) {difference:+.3f} = ELBO {of_elbo:+.3f} {difference - of_elbo:+.3f}")

# %% [markdown]
# 2. The components of the true prior lie about two units from the origin, so that a wider normal is the better summary
#    of them.

# %%
print({t: round(evidence_at(t), 3) for t in candidates})
scores = torch.tensor([evidence_at(t) for t in candidates])
assert pv.exercise(candidates[int(scores.argmax())], right_2, tolerance=1e-9).right

# %% [markdown]
# 3. The marginal KL: mutual information does not depend on the prior.

# %%
solution_3 = anatomies["flow"].kl_prior.mean - anatomies["flow"].mutual_information.mean
assert pv.exercise(solution_3, limit.mean, tolerance=0.01 + 2 * limit.mc_se).right
print(f"{solution_3:.3f}")
