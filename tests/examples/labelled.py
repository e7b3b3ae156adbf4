"""A semi-supervised pair whose every density is known in closed form: x ~ Normal(W z + b_y, s), z ~ Normal(0, 1)."""

import pyro.distributions as dist
import torch
from torch import nn

import pyrovae as pv

DOUBLE = {"dtype": torch.float64}
PROBS = torch.tensor([0.2, 0.5, 0.3], **DOUBLE)
LOADINGS = torch.tensor([[1.0, 0.2], [-0.4, 0.8], [0.3, -0.6], [0.5, 0.5]], **DOUBLE)  # 4 columns, 2 latents
MEANS = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, -1.0, 0.0, 0.5], [-1.0, 0.5, 0.0, 1.0]], **DOUBLE)  # of 3 classes
SCALE = 0.7


class Standard(nn.Module):
    def forward(self):
        return dist.Normal(torch.zeros(2, **DOUBLE), 1.0).to_event(1)


def decoder(z, y):
    return dist.Normal(z @ LOADINGS.T + MEANS[y], SCALE).to_event(1)


def encoder(x, y):
    """p(z | x, y)."""
    precision = torch.eye(2, **DOUBLE) + LOADINGS.T @ LOADINGS / SCALE**2
    covariance = precision.inverse()
    return dist.MultivariateNormal((x - MEANS[y]) @ LOADINGS @ covariance / SCALE**2, covariance)


def log_joint(x):
    """log p(x, y), (N, 3)."""
    covariance = LOADINGS @ LOADINGS.T + SCALE**2 * torch.eye(4, **DOUBLE)
    return dist.MultivariateNormal(MEANS, covariance).log_prob(x[:, None]) + PROBS.log()


def classifier(x):
    """p(y | x)."""
    return dist.Categorical(logits=log_joint(x))


def exact_pair(q=classifier):
    """The pair whose guide is the posterior, but for the classifier given."""
    return pv.SemiSupervisedVAE(Standard(), decoder, encoder, q, 3, PROBS)


def draw(num_data, seed=0):
    """Data and their classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(PROBS, num_data, replacement=True, generator=generator)
    z = torch.randn(num_data, 2, generator=generator, **DOUBLE)
    noise = SCALE * torch.randn(num_data, 4, generator=generator, **DOUBLE)
    return z @ LOADINGS.T + MEANS[y] + noise, y


def networks(num_classes=10, images=(8, 8), latent=4, width=32, seed=0):
    """A semi-supervised pair of digits."""
    label, size = pv.networks.OneHot(num_classes), images[0] * images[1]
    decode = pv.networks.beside([latent, label], pv.networks.mlp(latent + num_classes, width, seed=seed))
    encode = pv.networks.beside([images, label], pv.networks.mlp(size + num_classes, width, seed=seed + 1))
    return pv.SemiSupervisedVAE(
        prior=pv.priors.StandardNormal(latent),
        decoder=pv.Conditional(pv.families.binomial(16), images, decode),
        encoder=pv.Conditional(pv.families.normal(), latent, encode),
        classifier=pv.Conditional(
            pv.families.categorical(num_classes), (), pv.networks.mlp(images, width, seed=seed + 2)
        ),
        num_classes=num_classes,
    )
