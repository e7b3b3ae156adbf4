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
# # A VAE is two Pyro programs
#
# This is the tour from data to account. A variational autoencoder consists of two probabilistic programs: a *model*
# that says how data arise, and a *guide* that guesses where they came from. Everything else (the objective, the
# evidence, the figures) is read off them.

# %%
import inspect

import pyro.poutine as poutine
import torch

import pyrovae as pv

# %% [markdown]
# ## The data
#
# Real handwritten digits, scanned at 32 x 32 dots. Each of the 8 x 8 pixels counts the ink dots in its 4 x 4 block:
# a number from 0 to 16. So a binomial with 16 trials is the natural likelihood. A split carries its *protocol*, which will
# stand beside every number computed from it.

# %%
digits = pv.data.load("digits")
print(digits.train.protocol)
print(digits.test.protocol)
print("one datum:", tuple(digits.shape), "with", digits.range)

# %% [markdown]
# ## The two programs
#
# `VAE` holds a prior, a decoder and an encoder. Its `model` and `guide` are the two programs; this is all of them.

# %%
vae = pv.VAE(
    prior=pv.priors.StandardNormal(2),
    decoder=pv.Conditional(pv.families.binomial(16), digits.shape, pv.networks.mlp(2, 200, 200, seed=0)),
    encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp(digits.shape, 200, 200, seed=1)),
)
print(inspect.getsource(type(vae).model))
print(inspect.getsource(type(vae).guide))

# %% [markdown]
# A program is run under *handlers*. `trace` writes down what each `sample` statement did; `replay` runs the model on the latents
# that the guide drew. From the two traces come three log densities, and their combination is the evidence lower bound
#
# $$\mathrm{ELBO}(x) = E_{q(z \mid x)}\big[\log p(x \mid z) + \log p(z) - \log q(z \mid x)\big] \le \log p(x).$$

# %%
x = digits.test.x[:3]
torch.manual_seed(0)
guide_trace = poutine.trace(vae.guide).get_trace(x)
model_trace = poutine.trace(poutine.replay(vae.model, trace=guide_trace)).get_trace(x)

log_guide = guide_trace.nodes["z"]["fn"].log_prob(guide_trace.nodes["z"]["value"])
log_prior = model_trace.nodes["z"]["fn"].log_prob(model_trace.nodes["z"]["value"])
log_likelihood = model_trace.nodes["x"]["fn"].log_prob(x)
one_draw = log_likelihood + log_prior - log_guide
print("one draw for each of three digits:", one_draw.detach())

# %% [markdown]
# `log_terms` does this for any pair of programs, for K particles at once: three tables of shape (K, N). The ELBO is the mean
# over K of the log weights; the evidence estimate is the log of their mean.

# %%
terms = pv.log_terms(vae.model, vae.guide, x, num_particles=1000)
print("tables:", [tuple(table.shape) for table in terms])
print("ELBO        ", pv.estimators.elbo(terms.log_weight).detach())
print("log evidence", pv.estimators.log_evidence(terms.log_weight).detach())

# %% [markdown]
# ## Fitting
#
# `fit` is Pyro's stochastic variational inference. What it logs is always the true ELBO, split into reconstruction and KL, in
# nats per datum.

# %%
fitted = pv.fit(vae.model, vae.guide, digits.train, valid=digits.valid, epochs=150, batch_size=64, seed=1)
print(fitted)
pv.figures.training_curves(fitted.history)

# %% [markdown]
# ## The account
#
# Two identities hold on the same draws: log p(x) = ELBO + KL(q ‖ posterior), and ELBO = reconstruction − KL(q ‖ prior). Each line
# has two errors: *data SE*, because there are only 300 test digits, and *MC SE*, because there are only K draws for each.

# %%
report = pv.evaluate(fitted.model, fitted.guide, digits.test, num_particles=1000)
print(report.summary())

# %%
pv.figures.account(report)

# %% [markdown]
# Is the number to be trusted? Pareto k-hat describes the tail of each digit's own weights. Above the threshold a few weights
# carry the sum, and the estimate is too low. More particles show it: by the guide's own draws alone the evidence rises with K,
# as a lower bound does. The account above has repaired it, datum by datum.

# %%
for num_particles in (10, 100, 1000, 5000):
    r = pv.evaluate(fitted.model, fitted.guide, digits.test, num_particles=num_particles, method="importance")
    print(f"K = {num_particles:5d}   log p(x) = {r.log_evidence.mean():9.3f}   ELBO = {r.elbo.mean():9.3f}")

# %% [markdown]
# ## Looking at it
#
# With two latents the whole model fits on a page: where the guide puts the digits, and what the decoder draws from each place.

# %%
pv.figures.latent_means(fitted.model, fitted.guide, digits.test)

# %%
pv.figures.manifold(fitted.model, digits.test)

# %%
pv.figures.reconstructions(fitted.model, fitted.guide, digits.test)

# %% [markdown]
# ## Another prior
#
# Nothing in the evaluator knows the prior. Swap it, fit again, and ask what that did to log p(x), digit by digit.

# %%
mixture = pv.VAE(
    prior=pv.priors.GaussianMixture(2, num_components=10, seed=0),
    decoder=pv.Conditional(pv.families.binomial(16), digits.shape, pv.networks.mlp(2, 200, 200, seed=0)),
    encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp(digits.shape, 200, 200, seed=1)),
)
refitted = pv.fit(mixture.model, mixture.guide, digits.train, valid=digits.valid, epochs=150, batch_size=64, seed=1)
reports = {"standard normal": report, "mixture of 10": pv.evaluate(refitted.model, refitted.guide, digits.test)}
print(pv.compare(reports))

# %% [markdown]
# The differences are paired: both models are asked about the same digits, so the spread between easy and hard digits cancels.
# The errors are those of these two fits; another seed would give other fits.
