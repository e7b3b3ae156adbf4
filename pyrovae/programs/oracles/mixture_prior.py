"""A linear-Gaussian likelihood under a prior of several Gaussians: a continuous posterior of several modes.

With Lambda_c = diag(t_c^-2) + W' diag(s^-2) W and h_c = t_c^-2 m_c + W' diag(s^-2) (x - b)::

    z ~ sum_c w_c N(m_c, diag(t_c^2)),  x | z ~ N(W z + b, diag(s^2))
    p(x) = sum_c p(c, x),  p(c, x) = w_c N(x; W m_c + b, W diag(t_c^2) W' + diag(s^2))
    p(z | x) = sum_c p(c | x) N(Lambda_c^-1 h_c, Lambda_c^-1)
"""

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyrovae.programs.oracles.linear_gaussian import LinearGaussian, information_normal
from pyrovae.programs.oracles.mixtures import log_components
from pyrovae.programs.oracles.single_latent import SingleLatent
from pyrovae.programs.parameters import check_proportions, learned_or_fixed, seeded


class MixturePrior(SingleLatent):
    """The linear-Gaussian program with a mixture of C Gaussians in place of its prior.

    Args:
        linear: gives W, b and s of p(x | z), for D features and Z latents.
        weights: mixing proportions, shape (C,), that sum to one.
        means: m, shape (C, Z).
        scales: t > 0, shape (C, Z), or a scalar.

    Raises:
        InputError: if the shapes do not agree, the weights are not proportions or a scale is not positive.

    Example:
        >>> mixture_prior(3, 2).posterior(torch.zeros(7, 3)).batch_shape
        torch.Size([7])
    """

    def __init__(self, linear: LinearGaussian, weights: Tensor, means: Tensor, scales: Tensor) -> None:
        super().__init__()
        check_proportions(weights)
        shape = torch.Size([len(weights), linear.loadings.shape[1]])
        self.weights = learned_or_fixed("weights", weights, weights.shape)
        self.means = learned_or_fixed("means", means, shape)
        self.scales = learned_or_fixed("scales", scales, shape, positive=True)
        self.linear = linear

    def prior(self) -> dist.MixtureSameFamily:
        return dist.MixtureSameFamily(dist.Categorical(self.weights), dist.Normal(self.means, self.scales).to_event(1))

    def likelihood(self, z: Tensor) -> TorchDistributionMixin:
        return self.linear.likelihood(z)

    def posterior(self, x: Tensor) -> dist.MixtureSameFamily:
        """p(z | x) for x of shape (N, D): batch shape (N,), event shape (Z,), of C components."""
        mixing = dist.Categorical(logits=log_components(self.evidence(), x))
        whitened = self.linear.loadings / self.linear.noise_scale[:, None]
        precision = (self.scales**-2).diag_embed() + whitened.T @ whitened
        projected = ((x - self.linear.bias) / self.linear.noise_scale) @ whitened
        information = self.means / self.scales**2 + projected.unsqueeze(1)
        return dist.MixtureSameFamily(mixing, information_normal(precision, information))

    def evidence(self) -> dist.MixtureSameFamily:
        mean = self.linear.likelihood(self.means).mean
        factor = self.linear.loadings * self.scales.unsqueeze(1)
        components = dist.LowRankMultivariateNormal(mean, factor, self.linear.noise_scale.expand_as(mean) ** 2)
        return dist.MixtureSameFamily(dist.Categorical(self.weights), components)


def mixture_prior(
    num_features: int,
    num_latents: int,
    *,
    num_components: int = 3,
    spread: float = 2.0,
    scale: float = 0.5,
    noise: float = 1.0,
    seed: int = 0,
) -> MixturePrior:
    """Standard normal loadings in float64 under a prior of C equally likely spherical Gaussians.

    Fewer features than latents leave some directions of z to the prior, and so keep several modes apart.

    Args:
        num_features: D.
        num_latents: Z.
        num_components: C.
        spread: standard deviation of the components' means, along each axis.
        scale: standard deviation of each component, along each axis.
        noise: standard deviation of every feature given z.
        seed: of the means and the loadings.
    """
    with seeded(seed):
        normal = torch.randn(num_components + num_features, num_latents, dtype=torch.float64)
    means, loadings = spread * normal[:num_components], normal[num_components:]
    linear = LinearGaussian(loadings, torch.zeros_like(loadings[:, 0]), torch.tensor(noise).to(means))
    weights = torch.full_like(means[:, 0], 1 / num_components)
    return MixturePrior(linear, weights, means, torch.full_like(means, scale))
