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
# This is the tour from data to account. After this notebook you will be able to
#
# - write a variational autoencoder as two programs, a *model* that says how data arise and a *guide* that guesses
#   where they came from;
# - read three log densities off their traces, and everything else off those;
# - fit the pair, and read the account of log p(x) with its two kinds of errors;
# - swap the prior, and say by paired differences whether that was worth it.

# %%
import inspect
import math
import warnings

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch

import pyrovae as pv

# %% [markdown]
# ## The data
#
# Real handwritten digits, scanned at 32 x 32 dots. Each of the 8 x 8 pixels counts the ink dots in its 4 x 4 block: a
# number from 0 to 16. So a binomial with 16 trials is the natural likelihood. A split carries its *protocol*, which
# will stand beside every number computed from it.

# %%
digits = pv.data.load("digits")
num_test = 300  # short: 60
test = digits.test[:num_test]
print(digits.train.protocol)
print(test.protocol)
print("one datum:", tuple(digits.shape), "with", digits.range)

# %% [markdown]
# ## The two programs
#
# `VAE` holds a prior, a decoder and an encoder. Its `model` and `guide` are the two programs; this is all of them.

# %%
num_latents = 2


def new_vae(prior):
    """The same networks, from the same seeds, for any prior."""
    decoder = pv.Conditional(pv.families.binomial(16), digits.shape, pv.networks.mlp(num_latents, 200, 200, seed=0))
    encoder = pv.Conditional(pv.families.normal(), (num_latents,), pv.networks.mlp(digits.shape, 200, 200, seed=1))
    return pv.VAE(prior=prior, decoder=decoder, encoder=encoder)


vae = new_vae(pv.priors.StandardNormal(num_latents))
print(inspect.getsource(type(vae).model))
print(inspect.getsource(type(vae).guide))

# %% [markdown]
# The class has no privilege. Two functions written by hand say the same, and go everywhere it goes:


# %%
def model(x):
    pyro.module("decoder", vae.decoder)
    with pyro.plate("data", len(x)):  # the rows are independent given the weights
        z = pyro.sample("z", dist.Normal(torch.zeros(num_latents), 1.0).to_event(1))  # z ~ p(z)
        pyro.sample("x", vae.decoder(z), obs=x)  # x ~ p(x | z)


def guide(x):
    pyro.module("encoder", vae.encoder)
    with pyro.plate("data", len(x)):
        pyro.sample("z", vae.encoder(x))  # z ~ q(z | x)


x = digits.test.x[:3]
torch.manual_seed(0)
built_in = pv.log_terms(vae.model, vae.guide, x, num_particles=5)
torch.manual_seed(0)
by_hand = pv.log_terms(model, guide, x, num_particles=5)
print("largest difference between the two pairs:", (built_in.log_weight - by_hand.log_weight).abs().max().item())

# %% [markdown]
# ## Three log densities
#
# A program is run under *handlers*. `trace` writes down what each `sample` statement did; `replay` runs the model on
# the latents that the guide drew. From the two traces come log p(x|z), log p(z) and log q(z|x), and
#
# $$\log w = \log p(x \mid z) + \log p(z) - \log q(z \mid x), \qquad
#   \mathrm{ELBO}(x) = E_q[\log w] \;\le\; \log E_q[w] = \log p(x).$$

# %%
torch.manual_seed(0)
guide_trace = poutine.trace(guide).get_trace(x)
model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)

log_guide = guide_trace.nodes["z"]["fn"].log_prob(guide_trace.nodes["z"]["value"])
log_prior = model_trace.nodes["z"]["fn"].log_prob(model_trace.nodes["z"]["value"])
log_likelihood = model_trace.nodes["x"]["fn"].log_prob(x)
log_weight = log_likelihood + log_prior - log_guide
print("log w of one draw for each of three digits:", log_weight.detach())

# %% [markdown]
# `log_terms` does this for any pair of programs, for K draws at once: three tables of shape (K, N). The ELBO is the
# mean over K of the log weights; the estimate of the evidence is the log of their mean.

# %%
terms = pv.log_terms(model, guide, x, num_particles=1000)
print("tables:", [tuple(table.shape) for table in terms])
print("ELBO        ", pv.estimators.elbo(terms.log_weight).detach())
print("log evidence", pv.estimators.log_evidence(terms.log_weight).detach())

# %% [markdown]
# ## A twin whose log p(x) is known
#
# What should these tables look like if the guide were the posterior itself? Of *probabilistic PCA* everything is known
# exactly. With its posterior as the guide, $w = p(x, z) / p(z \mid x) = p(x)$: every draw has the same weight, and
# ELBO and evidence are one. With a factorised guide in its place the weights vary, and the ELBO falls short.

# %%
oracle = pv.oracles.ppca(20, 3, collinearity=0.5)
row, _ = oracle.draw(1, seed=1)
print(f"exact log p(x) {oracle.log_evidence(row)[0]:.4f}")
for name, q in {"posterior": oracle.guide, "factorised": oracle.mean_field_guide()}.items():
    log_weight = pv.log_terms(oracle.model, q, row, num_particles=1000).log_weight
    elbo, evidence = pv.estimators.elbo(log_weight)[0], pv.estimators.log_evidence(log_weight)[0]
    se = pv.estimators.log_evidence_se(log_weight)[0]
    print(f"{name:10s} sd of log w {log_weight.std():.1e}   ELBO {elbo:.4f}   evidence {evidence:.4f} ± {se:.4f}")

# %% [markdown]
# ## A guide that forgets a latent
#
# Here is a **deliberate failure**: a guide that calls its latent `code`, where the model calls it `z`. Pyro's own loss
# warns, draws z from the prior, as no guide draws it, and returns a number; trained on it, the encoder would learn
# nothing.
# `evaluate`, `fit` and all others refuse the pair, and name the site.


# %%
def forgetful(x):
    pyro.module("encoder", vae.encoder)
    with pyro.plate("data", len(x)):
        pyro.sample("code", vae.encoder(x))


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    loss = pyro.infer.Trace_ELBO().loss(model, forgetful, x)
print(
    f"Pyro: {loss:.1f}, with {len(said)} warnings:",
    *{str(warning.message).split(chr(10))[0] for warning in said},
    sep="\n  ",
)
try:
    pv.evaluate(model, forgetful, x)
except pv.InputError as error:
    print(f"pyrovae: {error}")

# %% [markdown]
# ## Fitting
#
# `fit` is Pyro's stochastic variational inference. What it logs is always the true ELBO, split into reconstruction and
# KL, in nats per datum.

# %%
epochs = 150  # short: 8
fitted = pv.fit(vae.model, vae.guide, digits.train, valid=digits.valid, epochs=epochs, batch_size=64, seed=1)
print(fitted)
pv.figures.training_curves(fitted.history)

# %% [markdown]
# The curves of training and validation go apart. Is the model overfitted, or something else? The account tells.
#
# ## The account
#
# Two identities hold on the same draws: log p(x) = ELBO + KL(q ‖ posterior), and ELBO = reconstruction − KL(q ‖
# prior). Each line has two errors: *data SE*, because there are only so many test digits, and *MC SE*, because there
# are only K draws for each. The small table below them says by whose draws the evidence of each datum was found, its
# *route*: those of the encoder, or of a proposal that was made for that datum, as the encoder's did not do (notebook 10).

# %%
report = pv.evaluate(fitted.model, fitted.guide, test, num_particles=1000)
print(report.summary())

# %%
pv.figures.account(report)

# %%
on_training = pv.evaluate(fitted.model, fitted.guide, digits.train[:num_test])
print("              ELBO    KL(q || posterior)    log p(x)")
for name, each in {"training": on_training, "test": report}.items():
    means = [value.mean() for value in (each.elbo, each.kl_posterior, each.log_evidence)]
    print(f"{name:10s}{means[0]:8.2f}{means[1]:22.2f}{means[2]:12.2f}")

# %% [markdown]
# The ELBO of new digits is far below that of training digits, and most of the distance is the KL to the posterior: the
# *encoder* has learnt its training digits by heart. The difference in log p(x) is small beside it, and is between
# unlike digits: what the model itself has learnt by heart is some of it, if any.
#
# Is that number to be trusted? Pareto k-hat describes the tail of each digit's own weights. Above the threshold a few
# weights carry the sum, and the estimate is too low. More draws show it: by the guide's own draws alone the evidence
# rises with K, as a lower bound does. The account above has repaired it, datum by datum.

# %%
for num_particles in (10, 100, 1000):
    r = pv.evaluate(fitted.model, fitted.guide, test, num_particles=num_particles, method="importance")
    print(f"K = {num_particles:5d}   log p(x) = {r.log_evidence.mean():9.3f}   ELBO = {r.elbo.mean():9.3f}")
print(f"repaired    log p(x) = {report.log_evidence.mean():9.3f}")

# %% [markdown]
# ## Looking at it
#
# With two latents the whole model fits on a page: where the guide puts the digits, and what the decoder draws from
# each place.

# %%
pv.figures.latent_means(fitted.model, fitted.guide, test)

# %%
pv.figures.manifold(fitted.model, test, num=10)

# %% [markdown]
# ## Another prior
#
# Nothing in the evaluator knows the prior. Swap it, fit again, and ask what that did to log p(x), digit by digit.

# %%
mixture = new_vae(pv.priors.GaussianMixture(num_latents, num_components=10, seed=0))  # the only change
refitted = pv.fit(mixture.model, mixture.guide, digits.train, valid=digits.valid, epochs=epochs, batch_size=64, seed=1)
other = pv.evaluate(refitted.model, refitted.guide, test)
table = pv.compare({"standard normal": report, "mixture of 10": other})
print(table)
pv.figures.comparison(table)

# %% [markdown]
# The differences are paired: both models are asked about the same digits, so the spread between easy and hard digits
# cancels. The errors are those of these two fits; another seed would give other fits.
#
# ## Exercise 1: the signs of the account
#
# From `report.reconstruction`, `report.kl_prior` and `report.kl_posterior` alone, each a number for each digit,
# compute the mean log p(x).

# %%
answer_1 = ...
pv.exercise(
    answer_1,
    report.log_evidence.mean().item(),
    tolerance=0.01,
    hint="the guide pays one KL to draw from where the prior seldom goes; the other is what the bound lacks.",
)

# %% [markdown]
# ## Exercise 2: another unit
#
# Compression people quote bits per pixel, of -log p(x). What is it for this model? Would pixels that are uniform on
# 0..16 need more or fewer bits? Answer with two numbers, (model, uniform).

# %%
answer_2 = ...
pv.exercise(
    answer_2,
    [-report.log_evidence.mean().item() / 64 / math.log(2), math.log2(17)],
    tolerance=0.01,
    hint="a digit has 64 pixels, a bit is log 2 nats, and 0..16 are 17 values.",
)

# %% [markdown]
# ## Exercise 3: what pairing buys
#
# Suppose that the second model had been tested on *other* digits, so that the two means were independent. What would
# the standard error of their difference be then, in nats? Compare it with the paired one in the table above: by what
# factor is pairing better?

# %%
answer_3 = ...


def standard_error(values):
    return values.std() / len(values) ** 0.5


pv.exercise(
    answer_3,
    torch.hypot(standard_error(report.log_evidence), standard_error(other.log_evidence)).item(),
    tolerance=0.01,
    hint="variances of independent means add up.",
)

# %% [markdown]
# ## Solutions
#
# 1. Reconstruction, less the KL to the prior, is the ELBO; the KL to the posterior comes on top.

# %%
evidence = (report.reconstruction - report.kl_prior + report.kl_posterior).mean()
assert pv.exercise(evidence.item(), report.log_evidence.mean().item(), tolerance=0.01).right
print(f"{evidence:.3f} nats")

# %% [markdown]
# 2. The uniform code knows nothing of digits: $\log_2 17$ bits a pixel.

# %%
bits = [-report.log_evidence.mean().item() / (64 * math.log(2)), math.log(17) / math.log(2)]
assert pv.exercise(bits, [-report.log_evidence.mean().item() / 64 / math.log(2), math.log2(17)], tolerance=0.01).right
print(f"{bits[0]:.2f} bits per pixel by the model, {bits[1]:.2f} uniform")

# %% [markdown]
# 3. The root of the sum of both squares. Pairing is better as easy digits are easy for both models.

# %%
unpaired = (report.log_evidence.var() / num_test + other.log_evidence.var() / num_test).sqrt().item()
paired = standard_error(other.log_evidence - report.log_evidence).item()
assert pv.exercise(unpaired, torch.hypot(standard_error(report.log_evidence), standard_error(other.log_evidence)).item(), tolerance=0.01).right  # fmt: skip
print(f"unpaired {unpaired:.3f}, paired {paired:.3f}: {unpaired / paired:.1f} times better")
