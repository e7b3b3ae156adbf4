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
# # PCA, factor analysis, EM and the linear VAE: where everything is exact
#
# After this notebook you will be able to
#
# - carry out EM for factor analysis, and show at every half step why log p(x) never falls;
# - say what a linear VAE fits: probabilistic PCA, to a fraction of a nat, with the principal axes and not only their
#   span;
# - name the E step and the M step of a VAE, and what amortization adds to them;
# - explain why two models with the same p(x) can have different ELBOs.

# %%
import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA, FactorAnalysis
from torch.distributions import MultivariateNormal, kl_divergence

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The data and the model
#
# 178 wines, 13 chemical measurements, standardised by the training rows; 40 wines are held out. The model is that of
# factor analysis, with latents $z$ and one affine map:
#
# $$z \sim N(0, I_k), \qquad x \mid z \sim N(Wz + b,\; \Psi), \qquad \Psi \text{ diagonal}.$$
#
# Both integrals that a VAE has to estimate are known here:
#
# $$p(x) = N(b,\; WW^\top + \Psi), \qquad
#   p(z \mid x) = N\big(\Lambda^{-1} W^\top \Psi^{-1} (x - b),\; \Lambda^{-1}\big), \qquad
#   \Lambda = I + W^\top \Psi^{-1} W.$$
#
# *Probabilistic PCA* is the case $\Psi = \sigma^2 I$ (Tipping and Bishop 1999).

# %%
table = torch.tensor(load_wine().data)
order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
train, test = table[order[:138]], table[order[138:]]
centre, spread = train.mean(0), train.std(0, correction=0)
x, held_out = (train - centre) / spread, (test - centre) / spread
num_values, num_factors = x.shape[1], 3
print(f"{len(x)} training rows, {len(held_out)} held out, {num_values} values each")

# %% [markdown]
# ## EM: two steps in turns
#
# The E step computes $q_t(z) = p_{\theta_t}(z \mid x)$; the M step maximises $E_{q_t}[\log p_\theta(x, z)]$ over
# $\theta$. `factor_analysis_steps` does this in closed form, one step at a time, and `Steps` keeps them: log p(x) after
# each, the parameters W ("loadings"), $\Psi$ ("noise") and b ("loc"), and the posterior that the E step found. From
# random loadings:

# %%
num_steps = 3000  # short: 300
steps = pv.baselines.Steps.of(
    "factor analysis of wines",
    x,
    pv.baselines.factor_analysis_steps(x, num_factors, num_steps=num_steps, tolerance=1e-9, seed=0),
)
gains = steps.log_evidence.diff()
print(steps)
print(f"smallest gain of {len(gains)} steps: {gains.min():.1e} nats per datum")
twin = FactorAnalysis(num_factors, tol=1e-6, max_iter=20_000, svd_method="lapack").fit(x.numpy())
print(f"scikit-learn's factor analysis: {twin.score(x.numpy()):.6f}; EM: {steps.log_evidence[-1]:.6f}")

# %%
first = pv.baselines.factor_analysis_steps(x, num_factors, num_steps=25, seed=0)
pv.figures.draw(pv.baselines.Steps.of("the first 25 steps", x, first))

# %% [markdown]
# Two programs written apart, and by different algorithms, agree to about 0.0001 nats. Most of the way is gone in the
# first ten steps; the rest is slow, and after thousands of steps EM still gains a little. That is its manner.
#
# ## Why it never falls
#
# For any $q$, $\log p_\theta(x) = \mathrm{ELBO}(q, \theta) + \mathrm{KL}(q \,\|\, p_\theta(z \mid x))$. The E step
# makes the KL zero: the bound *touches* log p(x). The M step raises the bound, and as the KL cannot be negative,
# log p(x) rises at least as much. Below, each half step in numbers, from the exact KL between two Normals.


# %%
def model_at(step):
    """The model with the parameters of a step."""
    found = {name: value[step] for name, value in steps.parameters.items()}
    return pv.oracles.LinearGaussian(found["loadings"], found["loc"], found["noise"].sqrt())  # W, b, the noise's sds


def bound_after(step):
    """The ELBO after the M step, with the posterior of the step before, a mean over the data."""
    old = MultivariateNormal(steps.posterior["mean"][step], steps.posterior["covariance"][step])
    after = model_at(step + 1)
    return (after.log_evidence(x) - kl_divergence(old, after.posterior(x))).mean()


shown = 8
bounds = torch.stack([bound_after(step) for step in range(shown)])
print("step    touches at    M step lifts ELBO to    KL left    E step: log p(x)")
for step in range(shown):
    before, after = steps.log_evidence[step], steps.log_evidence[step + 1]
    print(f"{step:4d}{before:14.4f}{bounds[step]:24.4f}{after - bounds[step]:11.4f}{after:19.4f}")

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
stairs = torch.stack([steps.log_evidence[:shown], bounds], 1).flatten()
axes.plot(torch.arange(2 * shown) / 2, stairs, color="#d55e00", marker="o", ms=3, lw=1, label="ELBO after E, M, E, ...")
axes.plot(steps.log_evidence[: shown + 1], color="#222222", drawstyle="steps-mid", lw=1, label="log p(x)")
axes.set(xlabel="step (halves: after the M step)", ylabel="nats per datum", title="the E step closes, the M step lifts")
axes.legend(frameon=False, fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# ## The same for a mixture
#
# A mixture of normals is the same idea with a discrete latent: responsibilities are its posterior, weighted means its
# M step. Two of the measurements, three components; colours tell the likeliest component of each wine. (x[0] are
# flavanoids and x[1] colour intensity, both standardised; ellipses are two standard deviations. `mixture_steps` adds a
# millionth of the variances to its covariances, so that no component shrinks to a single wine; the proof
# above is no longer one to the letter, and with far more than a millionth log p(x) may fall.)

# %%
plane = x[:, [6, 9]]  # flavanoids and colour intensity
mixture = pv.baselines.Steps.of("three normals", plane, pv.baselines.mixture_steps(plane, 3, seed=0))
print(repr(mixture), f"- smallest gain {mixture.log_evidence.diff().min():.1e}")
pv.figures.draw(mixture)

# %% [markdown]
# ## The linear VAE
#
# Now a VAE whose decoder and encoder are affine maps, with one learned noise scale and a factorised guide. Nothing
# tells it of eigenvectors; `fit` follows noisy gradients of the ELBO. Its twin is probabilistic PCA in closed form:
# with eigenvalues $\lambda_i$ and eigenvectors $u_i$ of the covariance,
#
# $$\sigma^2 = \frac{1}{D - k} \sum_{i > k} \lambda_i, \qquad W = \big(u_i \sqrt{\lambda_i - \sigma^2}\big)_{i \le k}.$$

# %%
values, vectors = torch.linalg.eigh(x.T.cov(correction=0))
values, vectors = values.flip(0), vectors.flip(1)
variance = values[num_factors:].mean()
ppca = pv.oracles.LinearGaussian(
    vectors[:, :num_factors] * (values[:num_factors] - variance).sqrt(), torch.zeros(num_values), variance.sqrt()
)
best = ppca.log_evidence(x).mean()
by_sklearn = PCA(num_factors, svd_solver="full").fit(x.numpy()).score(x.numpy())
print("eigenvalues:", ", ".join(f"{value:.2f}" for value in values))
print(f"maximum of log p(x): {best:.4f}; scikit-learn's PCA.score: {by_sklearn:.4f}")

# %% [markdown]
# scikit-learn divides its variances by $N - 1$, maximum likelihood by $N$; that is all of the difference.

# %%
epochs = 3000  # short: 200
vae = pv.VAE(
    prior=pv.priors.StandardNormal(num_factors),
    decoder=pv.Conditional(
        pv.families.normal(scale=pv.families.learned(0.8)), num_values, pv.networks.mlp(num_factors, seed=0)
    ),
    encoder=pv.Conditional(pv.families.normal(), num_factors, pv.networks.mlp(num_values, seed=1)),
)


def exact_model():
    """The linear-Gaussian model that the decoder is at present: its mean is affine in z, its scale the same for all z."""
    with torch.no_grad():
        bias = vae.decoder(torch.zeros(num_factors)).mean
        loadings = (vae.decoder(torch.eye(num_factors)).mean - bias).T
        scale = vae.decoder(torch.zeros(num_factors)).stddev[0]
    return pv.oracles.LinearGaussian(loadings, bias, scale)


short_of = []
fitted = pv.fit(
    vae.model,
    vae.guide,
    x,
    epochs=epochs,
    batch_size=len(x),
    optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
    schedule=lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
    callback=lambda epoch, so_far: short_of.append(best - exact_model().log_evidence(x).mean()),
    seed=0,
    progress=False,
)
linear = exact_model()
report = pv.evaluate(fitted.model, fitted.guide, x, num_particles=1000, method="importance")
measured, error = report.log_evidence.mean(), report.mc_se_log_evidence.square().sum().sqrt() / len(x)
print(f"log p(x): closed form of pPCA {best:.4f}, exact at the fit {linear.log_evidence(x).mean():.4f}")
print(f"          measured by evaluate, which knows of no closed form: {measured:.4f} ± {error:.4f}")
print(f"noise variance: {linear.noise_scale.square().mean():.4f}, closed form {variance:.4f}")
print(f"KL(q || posterior) {report.kl_posterior.mean():.4f} nats")

# %%
most = twin.score(x.numpy())
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(
    range(1, len(steps)),
    most - steps.log_evidence[:-1],
    color="#0072b2",
    label="EM, factor analysis",
)
axes.plot(range(1, len(short_of) + 1), torch.stack(short_of), color="#d55e00", label="gradients, linear VAE")
axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="short of the maximum,\nnats per datum")
axes.axhline(0.1, color="#222222", ls=":", lw=1)
axes.text(1, 0.11, "0.1 nat", fontsize=8)
axes.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Each method is held against the maximum of its own model; a step of either goes through all of the data once. EM
# solves its M step, and is within 0.1 nat in some ten steps. The gradient takes a small step towards the solution,
# with draws of $z$ in place of $E_q$: it needs ten times as many, and the noise of the draws keeps it from the top
# until its learning rate falls.
#
# ## Loadings: which rotation?
#
# $W$ and $WR$ with a rotation $R$ give the same $WW^\top$, and so the same p(x): factor analysis never tells one from
# the other. What can be compared is the span of the columns, by the angles between the subspaces. A *factorised* guide
# can do more: the posterior's precision $\Lambda = I + W^\top W / \sigma^2$ is diagonal only if the columns of $W$ are
# orthogonal, and then they are the principal axes (Lucas et al. 2019).


# %%
def cosines(first, second):
    """Cosines of the principal angles between the spans of two matrices' columns."""
    return torch.linalg.svdvals(torch.linalg.qr(first).Q.T @ torch.linalg.qr(second).Q)


strongest = linear.loadings[:, linear.loadings.norm(dim=0).argsort(descending=True)]
axis_by_axis = torch.nn.functional.cosine_similarity(strongest, ppca.loadings, dim=0).abs()
print("cosines of the angles between the spans:      ", cosines(linear.loadings, ppca.loadings))
print("cosines with the principal axes, one by one:  ", axis_by_axis)
other = pv.baselines.Steps.of(
    "another start", x, pv.baselines.factor_analysis_steps(x, num_factors, tolerance=1e-9, seed=1)
)
pair = [record.parameters["loadings"][-1] for record in (steps, other)]
print("two starts of EM: log p(x) differs by", f"{abs(other.log_evidence[-1] - steps.log_evidence[-1]):.1e} nats;")
print("  cosines between the spans:                  ", cosines(*pair))
print("  cosines of the loadings, one by one:        ", torch.nn.functional.cosine_similarity(*pair, dim=0).abs())

# %% [markdown]
# ## Same p(x), lower ELBO
#
# Here is a **deliberate failure**. Turn the first two axes of probabilistic PCA by an angle. The model of x is the
# same to the last digit, and the best factorised guide is given to it; `evaluate` draws from it and knows nothing of
# the angle.

# %%
angles = (0, 15, 30, 45, 60, 75, 90)  # degrees; the knob


def turned(degrees):
    """Probabilistic PCA with its first two axes rotated; its mean_field_guide is the best factorised one, in closed form."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = torch.eye(num_factors)
    rotation[:2, :2] = torch.tensor([[c, -s], [s, c]])
    return pv.oracles.LinearGaussian(ppca.loadings @ rotation, ppca.bias, ppca.noise_scale)


by_angle = {}
print("angle   exact log p(x)     ELBO measured   log p(x) - ELBO   KL exact   k-hat bad")
for angle in angles:
    model = turned(angle)
    one = by_angle[angle] = pv.evaluate(
        model.model, model.mean_field_guide(), x, num_particles=400, method="importance"
    )
    se = one.mc_se_elbo.square().sum().sqrt() / len(x)
    exact = model.log_evidence(x).mean()
    print(
        f"{angle:5d}{exact:17.4f}{one.elbo.mean():11.4f} ± {se:.4f}{exact - one.elbo.mean():15.4f}{model.kl_mean_field():13.4f}{one.fraction_unreliable:10.0%}"
    )

# %%
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
fine = torch.linspace(0, 90, 91)
axes.axhline(best, color="#222222", label="log p(x), exact, at every angle")
axes.plot(fine, torch.stack([best - turned(float(angle)).kl_mean_field() for angle in fine]), color="#d55e00", lw=0.8)
elbos = [one.elbo.mean() for one in by_angle.values()]
errors = [4 * one.mc_se_elbo.square().sum().sqrt() / len(x) for one in by_angle.values()]
axes.errorbar(angles, elbos, yerr=errors, fmt="o", ms=4, capsize=3, color="#d55e00", label="ELBO ± 4 SE; line: exact")
axes.set(xlabel="rotation of the first two axes, degrees", ylabel="nats per datum")
axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0.9))
plt.show()

# %% [markdown]
# The ELBO falls, and the report says where the loss is: in KL(q ‖ posterior), the guide's part, and not in log p(x).
# To raise the ELBO, a fit turns the loadings, which is why the linear VAE found the axes. It is a preference of the
# guide, not a finding about the wines: the data cannot tell one rotation from another.
#
# ## The E step is the guide
#
# | | EM | a VAE |
# | --- | --- | --- |
# | E step | q = p(z given x), solved for each datum | an encoder, moved a little |
# | M step | best parameters for that q, solved | decoder, moved a little, along the same ELBO |
# | order | in turns | at once |
# | a new datum | an E step of its own | one run of the encoder |
#
# *Amortization* is the last line. For a linear-Gaussian model it costs nothing: the posterior mean is affine in x, and
# so is the encoder. On wines that neither has seen, the encoder is held against the exact E step of its own model.

# %%
truth = linear.posterior(held_out)
with torch.no_grad():
    q = vae.encoder(held_out)
off = (q.mean - truth.mean) / truth.stddev
new = pv.evaluate(fitted.model, fitted.guide, held_out, num_particles=1000, method="importance")
new_error = new.mc_se_kl_posterior.square().sum().sqrt() / len(held_out)
print(f"encoder's means are off by {off.square().mean().sqrt():.3f} posterior sds (root mean square)")
print(f"KL(q || posterior) of new wines: {new.kl_posterior.mean():.5f} ± {new_error:.5f} nats")
print(f"log p(x) of new wines: exact {linear.log_evidence(held_out).mean():.3f}, "
      f"measured {new.log_evidence.mean():.3f}, pPCA {ppca.log_evidence(held_out).mean():.3f}")  # fmt: skip

# %% [markdown]
# With a decoder that bends, none of the left column can be solved any more; the right column stays as it is. What an
# encoder then loses is measured in notebook 11.
#
# ## Exercise 1: what is there to estimate?
#
# Factor analysis of D = 13 values with k = 3 factors has 39 loadings, 13 noise variances and 13 means. How many
# *free* parameters has it, once rotations that leave p(x) alone are not counted?

# %%
answer_1 = ...
free = num_values * num_factors + 2 * num_values - num_factors * (num_factors - 1) // 2
pv.exercise(answer_1, free, hint="how many angles has a rotation in three dimensions?")

# %% [markdown]
# ## Exercise 2: the larger gain
#
# In one step of EM the ELBO gains from where it touches log p(x) to where the M step has lifted it. Is the gain of
# log p(x) in the same step smaller ("smaller"), never smaller ("never smaller"), or now one and now the other
# ("either")? Think before you look at the table.

# %%
answer_2 = ...
gain_of_bound = bounds - steps.log_evidence[:shown]
never = bool((gains[:shown] >= gain_of_bound - 1e-12).all())
pv.exercise(answer_2, "never smaller" if never else "either", hint="which sign has the KL that the M step leaves?")

# %% [markdown]
# ## Exercise 3: the worst rotation
#
# At which angle, in degrees, does a factorised guide lose the most? Does that depend on the eigenvalues? Give the
# angle.

# %%
answer_3 = ...
worst = fine[torch.stack([turned(float(angle)).kl_mean_field() for angle in fine]).argmax()].item()
pv.exercise(answer_3, worst, tolerance=1.0, hint="the loss is half of sum log diag(precision) - log det(precision).")

# %% [markdown]
# ## Solutions
#
# 1. $Dk + 2D - k(k-1)/2$: a rotation in k dimensions has $k(k-1)/2$ angles.

# %%
assert pv.exercise(13 * 3 + 13 + 13 - 3, free).right
print(13 * 3 + 13 + 13 - 3)

# %% [markdown]
# 2. Never smaller: log p(x) gains what the bound gains and the KL that the M step leaves, which is not negative.

# %%
assert pv.exercise("never smaller", "never smaller" if never else "either").right
print("gain of log p(x) less gain of the bound:", (gains[:shown] - gain_of_bound)[:4])

# %% [markdown]
# 3. 45 degrees, whatever the eigenvalues. Turned by $a$, the two diagonal entries of the precision are $\alpha \cos^2 a
#    + \beta \sin^2 a$ and $\alpha \sin^2 a + \beta \cos^2 a$: their sum is fixed, so that their product is largest
#    where they are equal; the determinant does not change.

# %%
assert pv.exercise(45.0, worst, tolerance=1.0).right
print(f"loss at 45 degrees: {turned(45).kl_mean_field():.3f} nats")
