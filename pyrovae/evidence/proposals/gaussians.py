r"""Gaussian families in unconstrained space, one member per datum: with all covariances, and mixtures without any.

.. math:: q(u) = \mathcal{N}(u; m + s \mu, (s A)(s A)^T), \qquad
    q(u) = \sum_c \pi_c \, \mathcal{N}(u; m + s \mu_c, \mathrm{diag}(s \sigma_c)^2)

Parameters are relative to the mean m and the standard deviations s of a distribution that is near already.
"""

import torch
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal, Normal

from pyrovae.evidence.proposals.local import Family, Local, Parameters, Points, draw_unconstrained, single
from pyrovae.pairs.latents import Joint, Latents

NUM_COMPONENTS = 4  # of a mixture
_NUM_DRAWS = 256  # for moments, and for places where the components of a mixture may start


def full_covariance(latents: Latents, near: Local) -> Family:
    """One Gaussian over all coordinates together; it starts at the moments of ``near``, without covariances."""
    u = draw_unconstrained(latents, near.sample, _NUM_DRAWS)
    mean, scale = u.mean(0), u.std(0)
    start = {"loc": torch.zeros_like(mean), "scale_tril": torch.zeros_like(mean).diag_embed()}

    def build(parameters: Parameters) -> Local:
        free = parameters["scale_tril"]
        tril = free.tril(-1) + free.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return Gaussian(latents, mean + scale * parameters["loc"], scale[..., None] * tril)

    return Family("full covariance", start, build)


class Gaussian(Local):
    """N(loc, scale_tril scale_tril'), of shapes (n, num_dims) and (n, num_dims, num_dims)."""

    def __init__(self, latents: Latents, loc: Tensor, scale_tril: Tensor) -> None:
        self.weight, self.loc, self.scale_tril = single(latents), loc, scale_tril

    def draw(self, num_particles: int) -> Tensor:
        noise = torch.randn(num_particles, *self.loc.shape, dtype=self.loc.dtype)
        return self.loc + torch.einsum("nij,knj->kni", self.scale_tril, noise)

    def log_prob(self, points: Points, joint: Joint) -> Tensor:
        return MultivariateNormal(self.loc, scale_tril=self.scale_tril).log_prob(points)


def mixture(latents: Latents, near: Local) -> Family:
    """Gaussians without covariances, weighted; they start at :func:`centres`, with the spread of ``near``."""
    u = draw_unconstrained(latents, near.sample, _NUM_DRAWS)
    mean, spread = u.mean(0), u.std(0)
    loc = torch.stack([(centre - mean) / spread for centre in centres(latents, near, u)], 1)
    start = {"logits": torch.zeros_like(loc[..., 0]), "loc": loc, "log_scale": torch.zeros_like(loc)}

    def build(parameters: Parameters) -> Local:
        loc, scale = parameters["loc"].movedim(1, 0), parameters["log_scale"].movedim(1, 0).exp()
        return Mixture(parameters["logits"].log_softmax(-1).T, mean + spread * loc, spread * scale)

    return Family("mixture", start, build)


class Mixture(Local):
    """Log weights (C, n), locations and scales (C, n, num_dims)."""

    def __init__(self, log_weight: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.weight, self.log_weight, self.loc, self.scale = log_weight.exp(), log_weight, loc, scale

    def draw(self, num_particles: int) -> Tensor:
        noise = torch.randn(len(self.loc), num_particles, *self.loc.shape[1:], dtype=self.loc.dtype)
        return (self.loc[:, None] + self.scale[:, None] * noise).flatten(0, 1)

    def sample(self, num_particles: int) -> Tensor:
        component = Categorical(logits=self.log_weight.T).sample((num_particles,))
        noise = torch.randn(num_particles, *self.loc.shape[1:], dtype=self.loc.dtype)
        return _rows(self.loc, component) + _rows(self.scale, component) * noise

    def log_prob(self, points: Points, joint: Joint) -> Tensor:
        of_each = Normal(self.loc, self.scale).log_prob(points[:, None]).sum(-1)
        return (of_each + self.log_weight).logsumexp(1)


def centres(latents: Latents, near: Local, u: Tensor) -> list[Tensor]:
    """Where the components of a mixture start, (n, num_dims) each: the mean of ``near``, and posterior draws far apart.

    Draws u of ``near`` and as many of the prior are resampled by their weights against the mixture of the two, so
    that a mode unknown to ``near`` has a chance. Of these, each centre is the farthest from all centres before it
    (Gonzalez 1985), in units of the spread of ``near``.

    References:
        Gonzalez (1985), Clustering to minimize the maximum intercluster distance, Theoretical Computer Science 38:293.
    """
    candidates = torch.cat([u, draw_unconstrained(latents, latents.draw_prior, len(u))])
    parts = candidates.split(latents.part_sizes(len(candidates)))
    log_weight = torch.cat([_defensive_weight(latents, near, part) for part in parts])
    candidates = _rows(candidates, Categorical(logits=log_weight.T).sample((len(u),)))
    found, spread = [u.mean(0)], u.std(0)
    for _ in range(NUM_COMPONENTS - 1):
        distance = torch.stack([((candidates - centre) / spread).square().sum(-1) for centre in found]).amin(0)
        found.append(_rows(candidates, distance.argmax(0, keepdim=True))[0])
    return found


def _defensive_weight(latents: Latents, near: Local, u: Tensor) -> Tensor:
    """Log weights of points against the mixture of ``near`` and the prior: (K, n), up to a constant."""
    joint = latents.log_joint_unconstrained(u)
    log_prior = joint.log_prior + joint.log_jacobian
    return joint.log_likelihood + log_prior - torch.logaddexp(near.log_prob(u, joint), log_prior)


def _rows(u: Tensor, index: Tensor) -> Tensor:
    """The rows of u (K, n, D) that index (R, n) names for each datum: (R, n, D)."""
    return u.gather(0, index[..., None].expand(*index.shape, u.shape[-1]))
