"""Sequences: Markov chains, padding under masks, partly observed steps, a state space; each sequence is a datum."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from strangers.stranger import BY_DENSITIES, BY_WEIGHTS, Stranger, bits, discrete, line, noise, refuse, summed
from torch import nn

STEPS = 3
PATHS = noise(31, 6, STEPS)
LENGTHS = torch.tensor([3, 1, 2, 3, 2, 1])
SEEN = torch.arange(STEPS) < LENGTHS[:, None]
MASK = ("mask",)
ALL = (*BY_WEIGHTS, *BY_DENSITIES)


def chain_covariance(slope=0.5, noise_variance=1.0):
    """Of x_t = z_t + noise, where z_t = slope z_(t-1) + a standard normal."""
    step = torch.eye(STEPS, dtype=torch.float64)
    step[torch.arange(1, STEPS), torch.arange(STEPS - 1)] = -slope
    root = torch.linalg.inv(step)
    return root @ root.T, noise_variance * torch.eye(STEPS, dtype=torch.float64)


def chain_evidence(x, seen=None):
    latent, noise_part = chain_covariance()
    each = []
    for n, row in enumerate(x.double()):
        keep = torch.ones(STEPS, dtype=torch.bool) if seen is None else seen[n]
        covariance = (latent + noise_part)[keep][:, keep]
        each.append(
            dist.MultivariateNormal(torch.zeros(len(covariance), dtype=torch.float64), covariance).log_prob(row[keep])
        )
    return torch.stack(each)


def chain_mean(x):
    latent, noise_part = chain_covariance()
    return x.double() @ torch.linalg.solve(latent + noise_part, latent)


def chain_model(x):
    with pyro.plate("data", len(x)):
        z = torch.zeros(())
        for step in pyro.markov(range(STEPS)):
            z = pyro.sample(f"z_{step}", dist.Normal(0.5 * z, 1.0))
            pyro.sample(f"x_{step}", dist.Normal(z, 1.0), obs=x[..., step])


def state_space():
    """A site for each step, by independent normals."""

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            for step in range(STEPS):
                pyro.sample(f"z_{step}", dist.Normal(slope * x[..., step], 0.75))

    posterior = chain_mean(PATHS)
    return Stranger(
        chain_model,
        guide,
        (PATHS,),
        chain_evidence,
        guide_mean={f"z_{step}": 0.5 * PATHS[:, step] for step in range(STEPS)},
        posterior_mean={f"z_{step}": posterior[:, step] for step in range(STEPS)},
        skipped=("predictive_check",),
        exact=False,
    )


def state_space_by_gru():
    """The guide is a recurrent network, and each of its draws leans on the one before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gru, head = nn.GRU(1, 4, batch_first=True), nn.Linear(5, 1)

    def guide(x):
        pyro.module("gru", gru)
        pyro.module("head", head)
        hidden, _ = gru(x[..., None])
        with pyro.plate("data", len(x)):
            z = torch.zeros(len(x), 1)
            for step in pyro.markov(range(STEPS)):
                state = hidden[:, step].expand(*z.shape[:-1], 4)
                loc = 0.5 * x[:, step] + 0.1 * head(torch.cat([state, z], -1)).squeeze(-1)
                z = pyro.sample(f"z_{step}", dist.Normal(loc, 0.8))[..., None]

    posterior = chain_mean(PATHS)
    return Stranger(
        chain_model,
        guide,
        (PATHS,),
        chain_evidence,
        posterior_mean={f"z_{step}": posterior[:, step] for step in range(STEPS)},
        skipped=("predictive_check",),
        exact=False,
    )


def padded(in_model, in_guide, **more):
    """Sequences of unlike lengths, padded; the steps beyond the end are masked in the programs named."""

    def steps(x, length, masked, step):
        return poutine.mask(mask=(step < length) if masked else torch.ones(len(x), dtype=torch.bool))

    def model(x, length):
        with pyro.plate("data", len(x)):
            z = torch.zeros(())
            for step in pyro.markov(range(STEPS)):
                with steps(x, length, in_model, step):
                    z = pyro.sample(f"z_{step}", dist.Normal(0.5 * z, 1.0))
                with steps(x, length, True, step):
                    pyro.sample(f"x_{step}", dist.Normal(z, 1.0), obs=x[..., step])

    def guide(x, length):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            for step in range(STEPS):
                with steps(x, length, in_guide, step):
                    pyro.sample(f"z_{step}", dist.Normal(slope * x[..., step], 0.75))

    def log_evidence(x, length):
        return chain_evidence(x, torch.arange(STEPS) < length[:, None])

    skipped = ("predictive_check", "calibrate", "reference", "simulated")
    return Stranger(model, guide, (PATHS, LENGTHS), log_evidence, **{"skipped": skipped, **more})


def padded_in_both():
    return padded(
        True, True, refused=refuse("z_", *MASK, by=("annealed", "bidirectional", "gaps", "surgery"), or_right=True)
    )


def padded_in_neither():
    """What is drawn beyond the end is drawn in vain, and weighs nothing."""
    return padded(False, False)


def padded_in_the_model():
    return padded(True, False, refused=refuse("z_", *MASK, by=ALL))


def padded_in_the_guide():
    return padded(False, True, refused=refuse("z_", *MASK, by=ALL))


def level_of_padded_series():
    """One level for a whole series, its steps in a plate of their own, padding masked."""

    def model(x, seen):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("time", STEPS, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0).mask(seen), obs=x)

    def guide(x, seen):
        width = pyro.param("width", torch.tensor(0.75))
        loc = (x * seen).sum(-1, keepdim=True) / (1 + seen.sum(-1, keepdim=True))
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(loc, width))

    mean = (PATHS * SEEN).sum(-1, keepdim=True) / (1 + SEEN.sum(-1, keepdim=True))

    def joint(z, x, seen):
        return dist.Normal(0.0, 1.0).log_prob(z)[:, None] + (dist.Normal(z[:, None, None], 1.0).log_prob(x) * seen).sum(
            -1
        )

    return summed(
        model,
        guide,
        (PATHS, SEEN),
        line(-8, 8),
        joint,
        lambda z, x, seen: dist.Normal(mean[:, 0].double(), 0.75).log_prob(z[:, None]),
        plate="data",
        guide_mean={"z": mean},
        skipped=("simulated",),
        exact=False,
    )


# ----------------------------------------------------------------------------------------- partly observed: obs_mask


def partly(draws_unseen, masked=True, **more):
    """Missing values by ``obs_mask=``: Pyro makes of the site one that is observed and one that is drawn."""
    x, seen = PATHS[:, 0], torch.tensor([True, False, True, True, False, True])

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    def guide(x, seen):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(slope * x * seen, 0.9))
            if draws_unseen:
                with poutine.mask(mask=~seen if masked else torch.ones_like(seen)):
                    pyro.sample("x_unobserved", dist.Normal(z, 1.25))

    def log_evidence(x, seen):
        return dist.Normal(0.0, 2**0.5).log_prob(x.double()) * seen

    skipped = ("predictive_check", "calibrate", "bidirectional", "reference")
    return Stranger(model, guide, (x, seen), log_evidence, **{"skipped": skipped, **more})


def partly_seen():
    return partly(True, refused=refuse("x_unobserved", *MASK, by=("annealed", "gaps", "surgery"), or_right=True))


def partly_seen_by_a_guide_without_mask():
    return partly(
        True, masked=False, refused=refuse("x_unobserved", *MASK, by=tuple(m for m in ALL if m != "bidirectional"))
    )


def partly_seen_by_a_guide_without_it():
    """The guide says nothing of what is not observed."""
    return partly(
        False,
        refused=refuse("x_unobserved", "not in the guide", *MASK, by=tuple(m for m in ALL if m != "bidirectional")),
    )


def mask_of_another_program():
    """Both programs mask the latent, at other rows."""
    x, seen = PATHS[:, 0], torch.tensor([True, False, True, True, False, True])

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0).mask(seen))
            pyro.sample("x", dist.Normal(z, 1.0).mask(seen), obs=x)

    def guide(x, seen):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 0.9).mask(seen.roll(1, 0)))

    refused = refuse("z", *MASK, by=tuple(m for m in ALL if m != "bidirectional"))
    skipped = ("predictive_check", "calibrate", "bidirectional", "reference")
    return Stranger(model, guide, (x, seen), refused=refused, skipped=skipped)


# --------------------------------------------------------------------------------------------------- discrete, and AR


def hidden_markov():
    """Two states at three steps; all eight paths by enumeration."""
    stay, means = torch.tensor([[0.75, 0.25], [0.375, 0.625]]), torch.tensor([-1.0, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            state = None
            for step in pyro.markov(range(STEPS)):
                probs = torch.tensor([0.5, 0.5]) if state is None else stay[state]
                state = pyro.sample(f"s_{step}", dist.Categorical(probs))
                pyro.sample(f"x_{step}", dist.Normal(means[state], 1.0), obs=x[..., step])

    def guide(x):
        slope = pyro.param("slope", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            for step in range(STEPS):
                scores = slope * x[..., step]
                pyro.sample(f"s_{step}", dist.Categorical(logits=torch.stack([-scores, scores], -1)))

    def joint(path, x):
        path = path.long()
        prior = stay.double().log()[path[:, :-1], path[:, 1:]].sum(-1) + torch.tensor(0.5).double().log()
        return prior[:, None] + dist.Normal(means.double()[path][:, None], 1.0).log_prob(x).sum(-1)

    def density(path, x):
        return dist.Bernoulli(logits=2 * x).log_prob(path[:, None]).sum(-1)

    return summed(
        model,
        guide,
        (PATHS,),
        bits(STEPS),
        joint,
        density,
        lambda path: {f"s_{step}": path[:, step] for step in range(STEPS)},
        refused=discrete("s_"),
        skipped=("predictive_check",),
        exact=False,
    )


def autoregressive():
    """Each observation leans on the one before; the drift is latent."""

    def before(x):
        return torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], -1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(0.5 * before(x) + z[..., None], 1.0).to_event(1), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.625))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - 0.5 * before(x)).mean(-1) * 0.75, width))

    def joint(z, x):
        steps = dist.Normal(0.5 * before(x) + z[:, None, None], 1.0).log_prob(x).sum(-1)
        return dist.Normal(0.0, 1.0).log_prob(z)[:, None] + steps

    def density(z, x):
        return dist.Normal((x - 0.5 * before(x)).mean(-1) * 0.75, 0.625).log_prob(z[:, None])

    by_itself = refuse(
        "x", "depends on the data", "itself", "simulat", by=("bidirectional", "calibrate"), or_right=True
    )
    return summed(
        model, guide, (PATHS,), line(-8, 8), joint, density, lambda z: {"z": z}, refused=by_itself, exact=False
    )


PROGRAMS = {
    f.__name__: f
    for f in (
        state_space,
        state_space_by_gru,
        padded_in_both,
        padded_in_neither,
        level_of_padded_series,
        partly_seen,
        hidden_markov,
        autoregressive,
        padded_in_the_model,
        padded_in_the_guide,
        partly_seen_by_a_guide_without_mask,
        partly_seen_by_a_guide_without_it,
        mask_of_another_program,
    )
}
