"""A latent class whose bounds and gradients are sums over all draws; each row is an independent estimate."""

import itertools

import pyro
import pyro.distributions as dist
import torch

MEANS = torch.tensor([-1.0, 0.5, 2.0]).double()
PRIOR = torch.tensor([0.2, 0.5, 0.3]).double()
LOGITS = torch.tensor([0.3, -0.2, 0.1]).double()
X = 1.3  # as in ``gradients``


def model(x):
    means = pyro.param("means", lambda: MEANS.expand(len(x), 3).clone())
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(PRIOR))
        loc = means.gather(-1, k.reshape(-1, len(x)).T).T.reshape(k.shape)
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def guide(x):
    logits = pyro.param("logits", lambda: LOGITS.expand(len(x), 3).clone())
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(logits=logits))


def tables(means, logits):
    """log p(x, k) and log q(k) of each class, (3,)."""
    return PRIOR.log() + dist.Normal(means, 1.0).log_prob(torch.tensor(X).double()), logits.log_softmax(-1)


def exact(per_datum, num_particles):
    """The gradient, by means and logits, of the expectation over K draws of ``per_datum(log_joint, log_guide)``.

    Chances of draws are part of what is differentiated, if ``per_datum`` does not hold them: it gives both, value and
    whether its chance counts.
    """
    means, logits = MEANS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    log_joint, log_guide = tables(means, logits)
    total = 0.0
    for draws in itertools.product(range(3), repeat=num_particles):
        index = torch.tensor(draws)
        total = total + per_datum(log_joint[index], log_guide[index])
    return dict(zip(("means", "logits"), torch.autograd.grad(total, (means, logits)), strict=True))
