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
# # Can log p(x) be trusted?
#
# A variational autoencoder gives a lower bound on log p(x), and importance sampling a better one. Neither says how far
# below the truth it is. Here is a model whose log p(x) is known exactly, so that every estimate can be held against it;
# the tools know nothing of that, and work on any pair of programs.

# %%
import warnings

import pyrovae as pv

warnings.simplefilter("ignore", pv.UntrustedEvidence)  # we know, and shall say so

# %% [markdown]
# ## A model with known evidence, and a guide that cannot follow it
#
# Probabilistic PCA with two nearly collinear columns: z ~ N(0, I), x | z ~ N(W z + b, I). The exact posterior is a narrow
# ridge. The guide is the best *factorised* Normal: right means, and standard deviations that know nothing of the ridge.

# %%
oracle = pv.oracles.ppca(20, 3, collinearity=0.9)
x, z = oracle.draw(100, seed=1)
model, guide = oracle.model, oracle.mean_field_guide()
exact = oracle.log_evidence(x)
print(f"exact log p(x): {exact.mean():.3f} nats per datum")
print(f"exact KL(q || posterior): {oracle.kl_mean_field():.3f}")

# %% [markdown]
# ## Importance sampling rises with K, and does not say where to
#
# E[log p-hat_K] grows with K towards log p(x). Here the weights have infinite variance, so it grows slowly. Pareto k-hat, computed
# from each datum's own weights, sees it without knowing the truth.

# %%
rising = pv.convergence(model, guide, x, num_particles=10_000)
print(rising)
print(f"\nstill {(exact - rising.log_evidence[-1]).mean():.3f} nats below the truth at K = 10,000")

# %% [markdown]
# Two cheap remedies: a wider guide, and *defensive* sampling, where one draw in ten comes from the prior so that no weight can be
# larger than ten times the likelihood. And one that needs no choice: `evaluate` looks at a few draws of each datum first, and where
# they do not vouch for the guide it finds a better proposal for that datum (here the posterior itself, which is Gaussian).

# %%
for name, report in {
    "the guide": pv.evaluate(model, guide, x, method="importance"),
    "widened 2 times": pv.evaluate(model, pv.widened(guide, 2.0), x, method="importance"),
    "one tenth from the prior": pv.evaluate(model, guide, x, defensive=0.1),
    "repaired, datum by datum": pv.evaluate(model, guide, x),
}.items():
    print(f"{name:26} {(report.log_evidence - exact).mean():8.3f}   k-hat bad for {report.fraction_unreliable:.0%}")

# %% [markdown]
# ## Annealing
#
# Annealed importance sampling walks from the guide (or the prior) to p(x, z) over many temperatures, with Hamiltonian
# transitions on the way. Step sizes are found in a pilot run and then frozen; a kernel that adapts while it is being weighed
# would make the weights biased.

# %%
annealed = pv.annealed_evidence(model, guide, x, num_temperatures=100)
print(annealed)
print(f"\noff by {(annealed.log_evidence - exact).mean():.4f} nats")
pv.figures.convergence(rising, annealed=annealed)

# %% [markdown]
# ## A certificate: bounds from both sides
#
# Data simulated from the model come with an exact posterior draw: the z that made them. Walking backwards from it bounds
# log p(x) from *above*. The width between the two bounds shrinks as temperatures grow, and certifies the error on simulated
# data; no knowledge of the exact value is used.

# %%
bounds = {t: pv.bidirectional(model, guide, x, num_temperatures=t, start=pv.from_prior) for t in (10, 30, 100)}
print(bounds[100])
pv.figures.bounds(bounds)

# %% [markdown]
# ## Whose fault is the gap?
#
# log p(x) - ELBO is the *approximation gap*, what the best member of the family would leave for each datum alone, plus the
# *amortization gap*, what the encoder adds to it. A deliberately poor guide, 1.5 times too wide and shifted by half a standard deviation,
# has both; and the oracle knows them.

# %%
poor = oracle.mean_field_guide(scale=1.5, shift=0.5)
anatomy = pv.gaps(model, poor, x[:50], num_steps=400)
print(anatomy)
print(f"\nexact: approximation {oracle.kl_mean_field():.3f},", end=" ")
print(f"amortization {oracle.kl_mean_field(1.5, 0.5) - oracle.kl_mean_field():.3f}")
pv.figures.gaps(anatomy)

# %% [markdown]
# ## What the code carries
#
# Averaged over the data, KL(q || prior) is the mutual information between datum and code, plus the distance of the *aggregate* posterior
# from the prior. Mutual information cannot exceed log N, and the summary says so.

# %%
surgery = pv.surgery(model, guide, oracle.draw(500, seed=2)[0])
print(surgery)
pv.figures.anatomy(surgery)

# %% [markdown]
# ## Is the guide the posterior?
#
# On simulated data the true z must rank uniformly among the guide's draws. The exact guide passes; the factorised one is told
# what is wrong with it.

# %%
print(pv.calibrate(model, oracle.guide, x).verdict)
found = pv.calibrate(model, guide, x)
print(found.verdict)
pv.figures.calibration(found)

# %% [markdown]
# ## One posterior, as exactly as can be
#
# For one datum, NUTS (or a grid, for up to two latents) draws from p(z | x), and the guide's draws are held beside it.

# %%
one = pv.reference_posterior(model, guide, x[:1], num_draws=500, num_warmup=200, num_chains=2)
print(one)
pv.figures.posterior_of_one(one)
