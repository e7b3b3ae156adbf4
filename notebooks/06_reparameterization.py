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
# # The reparameterization trick
#
# After this notebook you will be able to
#
# - write the gradient of an expectation in two ways, by the *score function* and by the *path* of the draw, and see
#   the difference in the graph of the program;
# - show on an oracle that both are unbiased, and by how much their variances differ;
# - say what a baseline buys, and how many draws one estimator needs to match another;
# - name a program for which the path gradient is not there, and one for which it is wrong.

# %%
import math
import warnings

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.inspect import get_model_relations

import pyrovae as pv

plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Two gradients of one expectation
#
# A guide is trained by the gradient of $\mathrm{ELBO} = E_{q_\phi}[\log w(z)]$ by $\phi$, the parameters of the
# distribution that z is *drawn from*. One cannot differentiate through "draw". Either one differentiates the density
# (Williams 1992),
#
# $$\nabla_\phi\, E_{q_\phi}[\log w] = E_{q_\phi}\big[\log w(z)\; \nabla_\phi \log q_\phi(z)\big],$$
#
# which needs values of $\log w$ only; or one writes the draw as a function of noise without parameters, $z = m +
# s\,\varepsilon$, and differentiates along it (Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014),
#
# $$\nabla_\phi\, E_{q_\phi}[\log w] = E_\varepsilon\big[\nabla_\phi \log w(m + s\,\varepsilon)\big].$$
#
# As programs, the second moves the randomness to a site of its own, with nothing upstream. The graphs below are read
# off the programs.


# %%
def by_score(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    pyro.sample("z", dist.Normal(loc, 1.0))


def by_path(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    noise = pyro.sample("noise", dist.Normal(0.0, 1.0))
    pyro.deterministic("z", loc + noise)


def draw_graph(program, axes, title):
    """Circles for draws, squares for parameters, a diamond for what is computed; arrows as the program has them."""
    pyro.clear_param_store()
    found = get_model_relations(program, (torch.zeros(1),), include_deterministic=True)
    at = {"loc": (0.0, 0.8), "noise": (0.0, 0.2), "z": (1.0, 0.5), "log w": (2.0, 0.5)}
    arrows = [(parent, child) for key in ("sample_sample", "sample_param") for child, parents in found[key].items()
              for parent in parents if parent != child]  # fmt: skip
    for parent, child in [*arrows, ("z", "log w")]:
        axes.annotate("", at[child], at[parent], arrowprops={"arrowstyle": "->", "shrinkA": 14, "shrinkB": 16})
    for name in {name for arrow in arrows for name in arrow} | {"log w"}:
        drawn = name == "noise" or (name == "z" and "noise" not in {parent for parent, _ in arrows})
        marker = "o" if drawn else "s" if name == "loc" else "D"
        axes.plot(*at[name], marker, ms=30, mfc="#f5dcc0" if drawn else "white", mec="#222222")
        axes.text(*at[name], name, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.3, 2.3), ylim=(0, 1))
    axes.set_title(title, fontsize=10)
    axes.axis("off")


figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.2), layout="constrained")
draw_graph(by_score, left, "score function: z is drawn (circle)")
draw_graph(by_path, right, "path: z is computed (diamond), noise is drawn")
plt.show()

# %% [markdown]
# A derivative travels backwards along arrows, but not through a circle. On the left it does not reach `loc`; on the
# right it does.
#
# ## An oracle with the exact gradient
#
# Probabilistic PCA with posterior $N(\mu, \Lambda^{-1})$, and a factorised Normal guide with means $m$ and standard
# deviations $s$. The ELBO is $\log p(x) - \mathrm{KL}$, a KL of two Normals, so
#
# $$\frac{\partial\,\mathrm{ELBO}}{\partial m} = -\Lambda (m - \mu), \qquad \frac{\partial\,\mathrm{ELBO}}{\partial \log s_i} = 1 - \Lambda_{ii} s_i^2 .$$
#
# To have many estimates from one run, every row of the batch is the *same* datum with parameters of its own.

# %%
oracle = pv.oracles.ppca(20, 2, collinearity=0.5)
datum, _ = oracle.draw(1, seed=0)
posterior, precision = oracle.posterior(datum), oracle.precision()
start = (posterior.mean + 0.5 * posterior.stddev)[0], (1.3 * posterior.stddev)[0].log()
exact = {
    "loc": -precision @ (start[0] - posterior.mean[0]),
    "log_scale": 1 - precision.diagonal() * (2 * start[1]).exp(),
}


def guide(x):
    loc = pyro.param("loc", lambda: start[0].expand(len(x), 2).clone())
    log_scale = pyro.param("log_scale", lambda: start[1].expand(len(x), 2).clone())
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def gradients(objective, model=oracle.model, datum=datum, guide=guide, rows=4000, seed=0):
    """Estimates of the gradient of the ELBO, parameter -> (rows, ...), each of the objective's K draws."""
    x = datum.expand(rows, *datum.shape[1:])
    with pyro.get_param_store().scope():
        torch.manual_seed(seed)
        loss = objective.differentiable_loss(model, guide, x)
        named = dict(pyro.get_param_store().named_parameters())
        return dict(zip(named, torch.autograd.grad(-loss, list(named.values())), strict=True))


# %% [markdown]
# The three estimators are objectives of the library, so each of them also trains any pair: `SampledELBO` takes the
# path where there is one; `ScoreFunction` holds the draws, with or without a *baseline*. A baseline is a number that
# is subtracted from $\log w$ and does not depend on the draw. As $E_q[\nabla \log q] = 0$, it changes nothing on
# average. Here it is the mean of $\log w$ over the other draws of the same datum (Kool, van Hoof and Welling 2019).

# %%
num_particles = 10
estimators = {
    "score function": lambda k: pv.objectives.ScoreFunction(k, baseline=False),
    "score, baseline": lambda k: pv.objectives.ScoreFunction(k),
    "path": lambda k: pv.objectives.SampledELBO(k),
}
estimates = {name: gradients(make(num_particles)) for name, make in estimators.items()}
print(f"by the first coordinate, K = {num_particles}, 4,000 estimates")
print("estimator         parameter       mean       exact     off by     sd of one")
for name, found in estimates.items():
    for parameter, rows in found.items():
        mean, sd = rows[:, 0].mean(), rows[:, 0].std()
        away = (mean - exact[parameter][0]) / (sd / len(rows) ** 0.5)
        print(f"{name:17s} {parameter:10s}{mean:11.3f}{exact[parameter][0]:11.3f}{away:8.1f} SE{sd:13.2f}")

# %% [markdown]
# All three are unbiased: none is four standard errors away. They differ in noise, and noise is what a learning rate
# has to be small for.
#
# ## Variance against the number of draws


# %%
def variance(rows):
    """Variance of one estimate, a mean over the coordinates, and its standard error over batches of estimates."""
    batches = torch.stack([batch.var(0).mean() for batch in rows.chunk(20)])
    return batches.mean().item(), (batches.std() / 20**0.5).item()


numbers = (2, 5, 10, 20, 50)
curves = {
    name: [variance(gradients(make(k), rows=1000, seed=k)["loc"]) for k in numbers] for name, make in estimators.items()
}
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for (name, points), color in zip(curves.items(), ("#d55e00", "#e69f00", "#0072b2"), strict=True):
    values, errors = zip(*points, strict=True)
    axes.errorbar(numbers, values, yerr=[2 * e for e in errors], fmt="o-", ms=4, capsize=2, color=color, label=name)
axes.set(xscale="log", yscale="log", xlabel="draws K", ylabel="variance of the gradient by the means", title="± 2 SE")
axes.set_xticks(numbers, numbers)
axes.minorticks_off()
axes.legend(frameon=False, fontsize=8)
plt.show()

# %%
variances = {name: variance(found["loc"]) for name, found in estimates.items()}


def ratio_and_se(above, below):
    """A ratio of two variances, and its standard error by the delta method."""
    ratio = variances[above][0] / variances[below][0]
    return ratio, ratio * math.hypot(*(variances[name][1] / variances[name][0] for name in (above, below)))


ratio, ratio_se = ratio_and_se("score function", "path")
with_baseline, with_baseline_se = ratio_and_se("score, baseline", "path")
print(f"variance, score function : path = {ratio:.0f} ± {ratio_se:.0f}")
print(f"variance, with baseline  : path = {with_baseline:.2f} ± {with_baseline_se:.2f}")

# %% [markdown]
# All curves fall like 1/K; the ratio stays, so it is the number to remember. Where does it come from? The score
# function multiplies the score by $\log w$ *as it is*: tens of nats for 20 features, nearly all of it a constant that
# carries no information, and all of it noise. The baseline takes the constant away. What is left is that values of
# $\log w$ say in which direction it rises only by comparison of draws, while its derivative says so at each draw. So
# what matters is how many latents share one $\log w$:

# %%
print("latents   variance with baseline : path")
for num_latents in (1, 2, 5, 10):
    wide = pv.oracles.ppca(20, num_latents, collinearity=0.0)
    one = wide.draw(1, seed=0)[0]
    at = wide.posterior(one)

    def its_guide(x, at=at, num_latents=num_latents):
        loc = pyro.param("loc", lambda: (at.mean + 0.5 * at.stddev).expand(len(x), num_latents).clone())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.3 * at.stddev).to_event(1))

    two = [variance(gradients(estimators[name](10), wide.model, one, its_guide, rows=2000)["loc"])
           for name in ("score, baseline", "path")]  # fmt: skip
    growing = two[0][0] / two[1][0]
    print(f"{num_latents:7d}{growing:14.2f} ± {growing * math.hypot(two[0][1] / two[0][0], two[1][1] / two[1][0]):.2f}")

# %% [markdown]
# With one latent the compared scores have *less* noise than the path, with two about as much: the path is no law of
# nature. But their noise grows with every latent that adds its own to $\log w$, and a VAE has dozens.

# %% [markdown]
# ## What it does to learning
#
# The same guide for 100 data, a mean and a scale for each, fitted by each estimator from one start with one learning
# rate. The KL to the exact posterior is known at each epoch.

# %%
epochs = 150  # short: 20
data, _ = oracle.draw(100, seed=3)
targets = oracle.posterior(data)


class Free(torch.nn.Module):
    """A mean and a log scale for each datum, all at zero."""

    def __init__(self):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(100, 2))
        self.log_scale = torch.nn.Parameter(torch.zeros(100, 2))

    def forward(self, x):
        pyro.module("free", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))

    def kl(self):
        """To the exact posterior, nats per datum."""
        q = dist.MultivariateNormal(self.loc, scale_tril=torch.diag_embed(self.log_scale.exp()))
        return torch.distributions.kl_divergence(q, targets).mean().item()


def learned(make, seed):
    free, path = Free(), []
    pv.fit(
        oracle.model,
        free,
        data,
        only="guide",
        objective=make(num_particles),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
        epochs=epochs,
        batch_size=100,
        seed=seed,
        callback=lambda epoch, so_far: path.append(free.kl()),
        progress=False,
    )
    return torch.tensor(path)


lines = {name: torch.stack([learned(make, seed) for seed in range(3)]) for name, make in estimators.items()}
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for (name, paths), color in zip(lines.items(), ("#d55e00", "#e69f00", "#0072b2"), strict=True):
    axes.plot(paths.mean(0), color=color, label=name)
    axes.fill_between(range(epochs), paths.amin(0), paths.amax(0), color=color, alpha=0.25, lw=0)
axes.axhline(oracle.kl_mean_field(), color="#222222", lw=0.8, label="best factorised Normal, exact")
axes.set(yscale="log", xlabel="epoch", ylabel="KL(q ‖ posterior), nats per datum", title="mean and range of 3 seeds")
axes.legend(frameon=False, fontsize=8)
plt.show()
for name, paths in lines.items():
    print(
        f"{name:17s} at the end {paths[:, -1].mean():8.3f} nats; range {paths[:, -1].min():.3f} to {paths[:, -1].max():.3f}"
    )
print(f"{'exact optimum':17s}            {oracle.kl_mean_field():8.3f}")

# %% [markdown]
# ## Where there is no path
#
# A draw of a class is not a differentiable function of its probabilities. A **deliberate failure**: an objective whose
# gradient takes the path is asked to train a discrete latent, and refuses it by name. Only score functions (or summing
# the latent out) will do. The other case is easily overlooked: a mixture of Normals that draws a component, and then
# from it, is continuous and still carries no path. The fit goes on by the score function, and says so.

# %%
classes = pv.oracles.bernoulli_mixture(6, 3)
labels, _ = classes.draw(5, seed=0)
try:
    pv.objectives.DReG(5).loss(classes.model, classes.guide, labels)
except pv.InputError as error:
    print(f"discrete: {error}")


def mixture(x):
    at = oracle.posterior(x)
    loc = pyro.param("loc", lambda: torch.stack([at.mean - at.stddev, at.mean + at.stddev], 1))
    with pyro.plate("data", len(x)):
        components = dist.Normal(loc, at.stddev.unsqueeze(1)).to_event(1)
        pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), components))


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    pv.fit(oracle.model, mixture, data, only="guide", epochs=1, batch_size=100, progress=False)
print(*(f"\n{warning.category.__name__}: {warning.message}" for warning in said))

# %% [markdown]
# ## Exercise 1: the price of the score function
#
# The path gradient with K = 10 draws is good enough for you. How many draws K would the plain score function need for
# the same variance? A quarter off is near enough.

# %%
answer_1 = ...
pv.exercise(
    answer_1,
    10 * ratio,
    tolerance=2.5 * ratio,
    hint="both variances fall like 1 / K, and their ratio at equal K is printed above.",
)

# %% [markdown]
# ## Exercise 2: a constant
#
# Somebody measures x in millimetres instead of metres. That adds $-D \log 1000$ nats to $\log p(x \mid z)$, whatever
# z: a constant. The variance of which estimators changes? Answer with a set of their names, such as `{"path"}`.


# %%
millimetres = -20 * math.log(1000)  # of 20 features


def with_constant(name, constant=millimetres):
    """Variance of the estimator by hand, in this oracle, with a constant added to log w."""
    torch.manual_seed(0)
    loc, log_scale = (value.expand(4000, 10, 2).clone().requires_grad_() for value in start)
    q = dist.Normal(loc, log_scale.exp()).to_event(1)
    z = q.rsample() if name == "path" else q.sample()
    log_w = oracle.prior().log_prob(z) + oracle.likelihood(z).log_prob(datum) + constant - q.log_prob(z)
    if name == "path":
        value = log_w
    else:
        signal = log_w.detach()
        others = (signal.sum(1, keepdim=True) - signal) / 9 if name == "score, baseline" else 0.0
        value = (signal - others) * q.log_prob(z)
    return torch.autograd.grad(value.sum(), loc)[0].mean(1).var(0).mean().item()


changed = {name for name in estimators if abs(with_constant(name) / with_constant(name, 0.0) - 1) > 0.01}
answer_2 = ...
pv.exercise(
    answer_2, lambda names: set(names) == changed, hint="what happens to a derivative, and to a comparison of draws?"
)

# %% [markdown]
# ## Exercise 3: a path that leads nowhere
#
# Let $f(z) = \mathrm{sign}(z)$ and $z \sim N(m, 1)$, at m = 0. What is the derivative of $E[f(z)]$ by m, and what does
# the path estimator give for it? Nothing warns here. Answer with two numbers, (exact, path).

# %%
answer_3 = ...
pv.exercise(
    answer_3,
    [2 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)).exp().item(), 0.0],
    tolerance=0.01,
    hint="E[sign(z)] is P(z > 0) - P(z < 0); and the derivative of sign is zero wherever it exists.",
)

# %% [markdown]
# ## Solutions
#
# 1. Both fall like 1/K, so K has to be larger by the ratio.

# %%
k = 10 * ratio
assert pv.exercise(k, 10 * ratio, tolerance=2.5 * ratio).right
at_k = variance(gradients(estimators["score function"](round(k)), rows=200)["loc"])
print(
    f"K = {k:,.0f}: variance measured there {at_k[0]:.2f} ± {at_k[1]:.2f}, of the path at 10 {variances['path'][0]:.2f}"
)

# %% [markdown]
# 2. The plain score function alone. A derivative does not see a constant, and a comparison of draws cancels it. An
#    estimator whose noise depends on units is a poor choice.

# %%
for name in estimators:
    print(f"{name:17s} variance {with_constant(name, 0.0):12.2f} in metres {with_constant(name):12.2f} in millimetres")
assert pv.exercise({"score function"}, lambda names: set(names) == changed).right

# %% [markdown]
# 3. $E[\mathrm{sign}(z)] = 2\Phi(m) - 1$, whose derivative at 0 is $2\varphi(0) = 0.80$. The path gives exactly zero:
#    exchanging derivative and expectation needs an f that is continuous. The score function does not mind:

# %%
m = torch.zeros(100_000, requires_grad=True)
z = dist.Normal(m, 1.0).sample()
score = torch.autograd.grad((z.sign() * dist.Normal(m, 1.0).log_prob(z)).sum(), m)[0]
z = dist.Normal(m, 1.0).rsample()
path = torch.autograd.grad(z.sign().sum(), m)[0]
print(
    f"exact {2 / math.sqrt(2 * math.pi):.4f}, score function {score.mean():.4f} ± {score.std() / 100_000**0.5:.4f}, path {path.mean():.4f}"
)
assert pv.exercise([2 / math.sqrt(2 * math.pi), path.mean().item()], [0.7979, 0.0], tolerance=0.01).right
