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
# # Looking at a latent space, and scoring with the density
#
# After this notebook you will be able to
#
# - draw a latent space with what a picture of means leaves out: the prior, the width of q, and the true posterior;
# - say how sure a reconstruction is, pixel by pixel, and whether the entropy of q(z|x) tells an ambiguous datum;
# - walk through the space with a measure of what a walk does, and count the dimensions in use;
# - show why a high log p(x) does not mean "one of ours", repair it with a likelihood ratio, and give each AUROC an error.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

import pyrovae as pv
from pyrovae.diagnostics.codes.geometry import stroke_width

plt.rcParams.update({"figure.dpi": 70, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## A plane of digits
#
# Scikit-learn's digits count ink: each pixel has 0 to 16 dots. Two latents, so that nothing is projected.

# %%
digits = pv.data.load("digits")
num_test = 200  # short: 30
test = digits.test[:num_test]


def new_vae(num_latents, family):
    """A VAE of one hidden layer to each side."""
    return pv.VAE(
        prior=pv.priors.StandardNormal(num_latents),
        decoder=pv.Conditional(family, digits.shape, pv.networks.mlp(num_latents, 200, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), (num_latents,), pv.networks.mlp(digits.shape, 200, seed=1)),
    )


epochs = 60  # short: 3
vae = new_vae(2, pv.families.binomial(16))
fitted = pv.fit(vae.model, vae.guide, digits.train, epochs=epochs, batch_size=64, seed=1, progress=False)
pv.figures.latent_means(fitted.model, fitted.guide, test)

# %% [markdown]
# The points are means of q(z|x), the lines hold 50 and 90 % of the *prior*, the ellipses are one standard deviation of
# q to each side. They are small: 64 pixels say much about two numbers. And many codes lie outside of the outer line:
# draws of the prior rarely come to where the data are, as the next figure shows too. It is what the decoder makes of
# equally spaced quantiles of the prior.

# %%
pv.figures.manifold(fitted.model, test, num=8)

# %% [markdown]
# ## The twin: the posterior on a grid
#
# Two latents can be integrated by brute force. At the nodes of a grid, Bayes' rule is a sum:
#
# $$p(z_g \mid x) \approx \frac{p(x \mid z_g)\, p(z_g)}{\sum_h p(x \mid z_h)\, p(z_h)}, \qquad
#   \log p(x) \approx \log \sum_h p(x \mid z_h)\, p(z_h)\, \Delta^2.$$
#
# This gives log p(x) and the posterior of every digit without a guide. `evaluate` has no grid; it is held against it.

# %%
side = 600  # short: 150
axis = torch.linspace(-6.5, 6.5, side)
cell = float(axis[1] - axis[0]) ** 2
nodes = torch.cartesian_prod(axis, axis)
x = test.x
with torch.no_grad():
    given = vae.decoder(nodes).base_dist
    log_p, log_not_p = (torch.nn.functional.logsigmoid(sign * given.logits).flatten(1) for sign in (1, -1))
log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(nodes).sum(1)
ways = (math.lgamma(17) - torch.lgamma(x + 1) - torch.lgamma(17 - x)).flatten(1).sum(1)


def on_grid(rows):
    """log p(x, z) of rows at all nodes, (n, G)."""
    flat = rows.flatten(1)
    return flat @ log_p.T + (16 - flat) @ log_not_p.T + log_prior


log_evidence, posterior_entropy = [], []
for rows in x.split(20):
    joint = on_grid(rows).double()
    total = joint.logsumexp(1)
    mass = (joint - total[:, None]).exp()
    posterior_entropy.append(-(mass * (joint - total[:, None])).sum(1) + math.log(cell))
    log_evidence.append(total + math.log(cell))
log_evidence, posterior_entropy = torch.cat(log_evidence) + ways, torch.cat(posterior_entropy)

report = pv.evaluate(fitted.model, fitted.guide, test, num_particles=300, progress=False)
by_guide = report.log_evidence_importance
off = report.log_evidence.mean() - log_evidence.mean()
off_se = report.mc_se_log_evidence.square().sum().sqrt() / len(x)
print(f"log p(x) on the grid  {log_evidence.mean():.3f} nats")
print(f"evaluate less grid    {off:.4f} ± {off_se:.4f}")
print(f"by the guide's own draws less grid {by_guide.mean() - log_evidence.mean():.3f}")
print(f"ELBO less grid        {report.elbo.mean() - log_evidence.mean():.3f} = -KL(q || posterior)")
missed, short = log_evidence - report.log_evidence, log_evidence - by_guide
worst = int(short.argmax())
print(f"largest shortfall of evaluate: {missed.max():.3f} nats; beyond 0.1: {int((missed > 0.1).sum())} rows")
print(f"of the guide's own draws: {short[worst]:.3f} nats, row {worst}; beyond 0.1: {int((short > 0.1).sum())} rows")
alone = pv.reference_posterior(fitted.model, fitted.guide, test[worst : worst + 1], method="grid", num_draws=200)
print(f"that row by a grid of its own: log p(x) {alone.log_evidence.value:.3f}, modes: {alone.diagnostics.num_modes}")
wide_draws = 200_000  # short: 20_000
again = pv.evaluate(
    fitted.model,
    fitted.guide,
    test[worst : worst + 1],
    num_particles=wide_draws,
    method="importance",
    defensive=0.5,
    progress=False,
)
print(
    f"half of {wide_draws:,} draws from the prior: {again.log_evidence[0]:.3f} ± {again.mc_se_log_evidence[0]:.3f}; "
    f"doubtful: {again.fraction_unreliable:.0%}; in the report above {report.fraction_unreliable:.1%} of rows were"
)

# %% [markdown]
# Where the guide sits far from the posterior, or in a lesser one of several modes, its own draws are short by many
# nats, and so is every proposal that is made from them; k-hat sees only where draws fall. `evaluate` looks elsewhere too: with up to three latents it
# climbs from the likeliest of a thousand draws of the prior, and what it finds there it draws from. With more latents no
# such search is complete, and the last lines of a report warn of just this. Half of the draws from the prior
# (`defensive=0.5`) are the plain look from elsewhere: they come near the grid's value, and doubt themselves.
#
# The ellipses above are not the posterior either. Here is one digit as it is, the one that a classifier is least sure
# of.

# %%
classifier = LogisticRegression(max_iter=3000).fit(digits.train.x.flatten(1).numpy() / 16, digits.train.labels.numpy())
chance = classifier.predict_proba(x.flatten(1).numpy() / 16)
ambiguity = -(chance * np.log(chance + 1e-300)).sum(1)  # nats
hardest = int(ambiguity.argmax())
likeliest = chance[hardest].argsort()[::-1][:2]
print(
    f"row {hardest}, a {test.labels[hardest]}; classifier:",
    ", ".join(f"{c}: {chance[hardest, c]:.2f}" for c in likeliest),
)
one = pv.reference_posterior(fitted.model, fitted.guide, test[hardest : hardest + 1], method="grid", num_draws=500)
print(f"log p(x) by its own grid {one.log_evidence.value:.4f}, by ours {log_evidence[hardest]:.4f}")
pv.figures.draw(one)

# %% [markdown]
# ## Does the entropy of q tell an ambiguous digit?
#
# It is often read so: a wide q, an unsure model. That can be measured. Ambiguity is the entropy of the classifier's
# ten probabilities; beside the entropy of q stands that of the true posterior, from the grid. Rank correlations, with
# standard errors by the bootstrap over digits.

# %%
with torch.no_grad():
    guide_entropy = vae.encoder(x).entropy().double()


def rank_correlation(a, b, num=300):
    """Spearman's, and its bootstrap standard error."""
    rng = np.random.default_rng(0)
    again = [spearmanr(a[rows], b[rows]).statistic for rows in rng.integers(len(a), size=(num, len(a)))]
    return spearmanr(a, b).statistic, np.std(again)


correlations = {}
for name, entropy in {"q(z|x)": guide_entropy, "posterior": posterior_entropy}.items():
    correlations[name] = rank_correlation(entropy.numpy(), ambiguity)
    rho, se = correlations[name]
    print(f"entropy of {name:10s} mean {entropy.mean():6.2f} nats, with ambiguity: {rho:5.2f} ± {se:.2f}")
misfit = rank_correlation(-log_evidence.numpy(), ambiguity)
print(f"-log p(x)                              with ambiguity: {misfit[0]:5.2f} ± {misfit[1]:.2f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for (name, (rho, se)), entropy, color in zip(
    correlations.items(), (guide_entropy, posterior_entropy), ("#d55e00", "#0072b2"), strict=True
):
    axes.scatter(
        entropy, ambiguity, s=8, color=color, alpha=0.5, label=f"{name}: rank correlation {rho:.2f} ± {se:.2f}"
    )
axes.set(xlabel="entropy of z, nats (a density's: it may be negative)", ylabel="entropy of the classifier, nats")
axes.set_ylim(0, 2.1)
axes.legend(frameon=False, fontsize=8, loc="upper left")
plt.show()

# %% [markdown]
# They do not tell it: neither entropy goes with ambiguity by more than two standard errors. The width of a posterior
# says how well *this model* can place a datum among its codes, given that it made it; a digit that is unlike all others
# may be placed sharply, and wrongly. What does go with ambiguity is a low log p(x), moderately.
#
# ## How sure is a reconstruction?
#
# A pixel of a new picture of the same z varies for two reasons, by the law of total variance:
#
# $$\mathrm{Var}[x_j] = E_q[16\,p_j(1 - p_j)] + \mathrm{Var}_q[16\,p_j],$$
#
# ink that is drawn anew, and not knowing z. The usual picture of a reconstruction shows the mean alone. Three digits are
# drawn: on top the one that was picked above as the hardest, below it the first two of the test set, as they come. The
# numbers are of all test digits.

# %%
shown = [hardest, 0, 1]
with torch.no_grad():
    torch.manual_seed(0)
    p = vae.decoder(vae.encoder(x).sample((500,))).mean / 16
of_ink, of_z = (16 * p * (1 - p)).mean(0), (16 * p).var(0)
spread, mean = (of_ink + of_z).sqrt(), 16 * p.mean(0)
rows = {"datum": x[shown], "mean": mean[shown], "sd in all": spread[shown], "sd from z": of_z[shown].sqrt()}
figure, axes = plt.subplots(len(shown), 4, figsize=(6, 4.4), layout="constrained")
for column, (name, images) in enumerate(rows.items()):
    for place, image in enumerate(images):
        drawn = axes[place, column].imshow(image, cmap="gray_r", vmin=0, vmax=16 if column < 2 else 3)
        axes[place, column].set(xticks=[], yticks=[])
    axes[0, column].set_title(name, fontsize=9)
    figure.colorbar(drawn, ax=axes[:, column], location="bottom", shrink=0.8, label="dots of 16")
plt.show()
from_z = of_z.flatten(1).sum(1) / (of_ink + of_z).flatten(1).sum(1)
inked = x.flatten(1).std(0) > 0  # pixels that vary in the test set: others are foretold without a mistake
within = ((x - mean).abs() <= 2 * spread).flatten(1)[:, inked].float().mean(1)
for name, of_each in {"of the variance of a pixel, from z": from_z, "pixels within two predictive sds": within}.items():
    told = ", ".join(f"{of_each[row]:.0%}" for row in shown)
    print(f"{name}: {of_each.mean():.1%} (SE {of_each.std() / len(x) ** 0.5:.1%}); the three shown {told}")
print("of a model that is right, about 95 % of the pixels are within two")

# %% [markdown]
# Little of the variance comes from z. Yet fewer pixels lie within two standard deviations than should: what is missing
# is spread in p(x|z), which a binomial cannot give. The next fit has a likelihood that can.

# %% [markdown]
# ## Which dimensions are used?
#
# With more latents there is no plane to look at, but numbers. Eight latents, and a likelihood that allows for more
# spread than a binomial, the beta-binomial. `surgery` takes the KL to the prior apart: what the code says of the
# datum, and how far all codes together are from the prior; and dimension by dimension.

# %%
epochs_of_wide = 60  # short: 3
wide = new_vae(8, pv.families.beta_binomial(16))
wider = pv.fit(wide.model, wide.guide, digits.train, epochs=epochs_of_wide, batch_size=64, seed=1, progress=False)
taken = pv.surgery(wider.model, wider.guide, digits.train)
print(taken)

# %% [markdown]
# All eight are in use. The warning is to be taken seriously: the codes of 1,197 digits hardly overlap, and then the
# split between information and marginal KL cannot be read from so few data.
#
# ## Walks and lines, measured
#
# A walk along an attribute moves codes in the direction in which they move with it, all else fixed; here the attribute
# is ink. A picture of a walk always looks like something. `continuity` asks how far the attribute moves of what was
# asked, and how real the decoded pictures are, by their distance to the training data and by a classifier.

# %%
num = 60  # short: 6
walked = pv.continuity({"2 latents": fitted, "8 latents": wider}, digits.train, test, num=num)
print(walked)
pv.figures.continuity(walked, part="walk", num=3)

# %% [markdown]
# Ink is but a sum. The same for the width of a stroke: twice the ink over the length of its outline, in pixels.

# %%
by_width = pv.continuity({"2 latents": fitted, "8 latents": wider}, digits.train, test, attribute=stroke_width, num=num)
for name in by_width.names:
    (ink_moved, ink_se), (width_moved, width_se) = walked.slope(name), by_width.slope(name)
    print(
        f"{name}: of what is asked, ink moves by {ink_moved:.2f} ± {ink_se:.2f}, width by {width_moved:.2f} ± {width_se:.2f}"
    )
pv.figures.continuity(by_width, part="walk", num=3)

# %%
pv.figures.interpolation(wider.model, wider.guide, test, pairs=3, steps=7)

# %% [markdown]
# In the plane a walk moves ink by a hundredth of what was asked, though its pictures look as good as those of
# reconstructions: the plane has no direction for ink. With eight latents it is about a third, at better pictures. And
# where no datum has its code, in gaps and under the prior, what is decoded is farther from the training data than test
# digits are, in both.
#
# ## Is log p(x) a detector of what does not belong?
#
# A density seems made for it: what is not a digit should have a low log p(x). Four kinds of strangers: inverted
# digits, digits whose ink is thinned to a quarter, blank pictures, and bars, two columns of ink in the middle. AUROC
# is the probability that a digit scores higher than a stranger; its standard error is that of DeLong et al. (1988),
# for two independent samples.

# %%
num_scored = 100  # short: 12
ink = 0.75  # of a bar; the knob
generator = torch.Generator().manual_seed(0)
inside = test.x[:num_scored]
bars = torch.zeros_like(inside)
bars[:, :, 3:5] = torch.binomial(torch.full((len(bars), 8, 2), 16.0), torch.full((len(bars), 8, 2), ink), generator)
strangers = {
    "inverted": 16 - inside,
    "thinned": torch.binomial(inside, torch.full_like(inside, 0.25), generator),
    "blank": torch.zeros_like(inside),
    "bars": bars,
}
reports = {
    name: pv.evaluate(wider.model, wider.guide, rows, num_particles=200, progress=False)
    for name, rows in {"digits": inside, **strangers}.items()
}
scores = {name: one.log_evidence.numpy() for name, one in reports.items()}


def auroc(ours, theirs):
    """Probability that one of ours scores higher, ties by half, and its standard error (DeLong et al. 1988)."""
    higher = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)
    return higher.mean(), math.sqrt(higher.mean(1).var(ddof=1) / len(ours) + higher.mean(0).var(ddof=1) / len(theirs))


by_density = {name: auroc(scores["digits"], scores[name]) for name in strangers}
print(f"digits    log p(x) {scores['digits'].mean():8.1f} nats")
for name, (area, se) in by_density.items():
    print(f"{name:9s} log p(x) {scores[name].mean():8.1f} nats   AUROC {area:.3f} ± {se:.3f}")

# %% [markdown]
# Here is the **deliberate failure**. Bars are no digits, and they have a *higher* log p(x) than nearly all digits: an
# AUROC near zero, far below one half. It is no fault of the estimate, and it is known (Nalisnick et al. 2019): a density
# counts ink and empty pixels before it counts digits, and a picture that is simpler than the data may lie where each
# pixel is likely. Inverted and thinned digits are found, blank pictures mostly.
#
# ## The repair: a likelihood ratio
#
# Most of log p(x) is about things that all pictures share, above all how much of the picture is empty. A *background*
# model that knows only this is divided out (Ren et al. 2019):
#
# $$s(x) = \log p(x) - \log p_0(x).$$
#
# The background here is the independent baseline, each pixel by its own frequencies of 0 to 16 dots. Its log p(x) is
# exact. Beside it a background that is too good, a mixture of 10 components.

# %%
backgrounds = {name: pv.baseline(name, digits) for name in ("independent", "mixture:10")}
everyone = {"digits": inside, **strangers}
print("AUROC            log p(x)        less independent     less mixture")
ratios = {}
for name in strangers:
    found = [by_density[name]]
    for background, fit in backgrounds.items():
        of = {who: scores[who] - fit.log_prob(everyone[who]).numpy() for who in ("digits", name)}
        ratios[name, background] = auroc(of["digits"], of[name])
        found.append(ratios[name, background])
    print(f"{name:12s}" + "".join(f"{area:11.3f} ± {se:.3f}  " for area, se in found))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
repaired = {who: scores[who] - backgrounds["independent"].log_prob(everyone[who]).numpy() for who in ("digits", "bars")}
for axes, score, label in ((left, scores, "log p(x), nats"), (right, repaired, "log p(x) - log p0(x), nats")):
    bins = np.linspace(
        min(map(np.min, (score["digits"], score["bars"]))), max(score["digits"].max(), score["bars"].max()), 30
    )
    for who, color in (("digits", "#222222"), ("bars", "#d55e00")):
        axes.hist(score[who], bins=bins, color=color, alpha=0.6, label=who)
    area, se = auroc(score["digits"], score["bars"])
    axes.set(xlabel=label, ylabel="pictures", title=f"AUROC {area:.2f} ± {se:.2f}")
left.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# The ratio finds the bars, and the blank pictures better than before. It has a price: inverted digits, which log p(x)
# found without a miss, are missed altogether, as the background likes them still less than the VAE does. And with a
# background that knows digits, nothing is left in the ratio to tell them by. So the ratio answers a question of its
# own, "rather a digit than independent pixels?", and no single number says "one of ours". Look at both, and name the
# strangers that they were tried on.
#
# ## Exercise 1: twice as wide
#
# An encoder returns standard deviations that are twice as large in both latents. By how many nats does the entropy of
# q(z|x) rise?

# %%
answer_1 = ...
with torch.no_grad():
    q = vae.encoder(x[:1]).base_dist
    doubled = torch.distributions.Normal(q.mean, 2 * q.stddev).entropy().sum() - q.entropy().sum()
pv.exercise(answer_1, doubled.item(), tolerance=0.01, hint="the entropy of a normal is log sd and a constant.")

# %% [markdown]
# ## Exercise 2: the best background
#
# A better background should know more about pictures. The VAE itself knows most. What AUROC has the likelihood ratio
# if it is its own background?

# %%
answer_2 = ...
own, own_bars = (scores[who] - scores[who] for who in ("digits", "bars"))
pv.exercise(answer_2, float(auroc(own, own_bars)[0]), tolerance=0.001, hint="what is s(x), whatever x?")

# %% [markdown]
# ## Exercise 3: turn it round
#
# A colleague sees the AUROC of bars and proposes to call *high* log p(x) suspicious. Which AUROC have inverted digits
# then, by the table? Is that a repair?

# %%
answer_3 = ...
turned = auroc(-scores["digits"], -scores["inverted"])[0]
pv.exercise(
    answer_3, float(turned), tolerance=0.005, hint="a score with its sign turned orders all pairs the other way."
)

# %% [markdown]
# ## Solutions
#
# 1. $2 \log 2$: one $\log 2$ for each latent.

# %%
assert pv.exercise(2 * math.log(2), doubled.item(), tolerance=0.01).right
print(f"{2 * math.log(2):.3f} nats")

# %% [markdown]
# 2. One half: all scores are zero, and ties count by half. A background must lack just that which tells the digits.

# %%
assert pv.exercise(0.5, float(auroc(own, own_bars)[0]), tolerance=0.001).right

# %% [markdown]
# 3. One less what it was. No repair: which strangers score high and which score low is not known before.

# %%
assert pv.exercise(1 - by_density["inverted"][0], float(turned), tolerance=0.005).right
print(f"{1 - by_density['inverted'][0]:.3f}")
