"""A linear-Gaussian likelihood under a prior of several Gaussians: a continuous posterior of several modes.

With Lambda_c = diag(t_c^-2) + W' diag(s^-2) W and h_c = t_c^-2 m_c + W' diag(s^-2) (x - b)::

    z ~ sum_c w_c N(m_c, diag(t_c^2)),  x | z ~ N(W z + b, diag(s^2))
    p(x) = sum_c p(c, x),  p(c, x) = w_c N(x; W m_c + b, W diag(t_c^2) W' + diag(s^2))
    p(z | x) = sum_c p(c | x) N(Lambda_c^-1 h_c, Lambda_c^-1)
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.programs.moved import Program, moved_guide
from pyrovae.programs.oracles.linear_gaussian import LinearGaussian, information_normal
from pyrovae.programs.parameters import check_positive, check_proportions, check_rows, enter, keep, seeded


class MixturePrior(nn.Module):
    """The linear-Gaussian program with a mixture of C Gaussians in place of its prior.

    Args:
        likelihood: gives W, b and s of p(x | z), for D features and Z latents.
        weights: mixing proportions, shape (C,), that sum to one.
        means: m, shape (C, Z).
        scales: t > 0, shape (C, Z), or a scalar.

    Raises:
        InputError: if the shapes do not agree, the weights are not proportions or a scale is not positive.

    Example:
        >>> mixture_prior(3, 2).posterior(torch.zeros(7, 3)).batch_shape
        torch.Size([7])
    """

    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, likelihood: LinearGaussian, weights: Tensor, means: Tensor, scales: Tensor) -> None:
        super().__init__()
        check_proportions(weights)
        check_positive(scales=scales)
        shape = torch.Size([len(weights), likelihood.loadings.shape[1]])
        keep(self, "weights", weights, weights.shape)
        keep(self, "means", means, shape)
        keep(self, "scales", scales, shape)
        self.likelihood = likelihood

    def model(self, x: Tensor) -> None:
        """The program p(z) p(x | z) for x of shape (N, D)."""
        enter("mixture_prior", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            mean = z @ self.likelihood.loadings.T + self.likelihood.bias
            pyro.sample("x", dist.Normal(mean, self.likelihood.noise_scale).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(z | x) as a program: every importance weight is p(x)."""
        enter("mixture_prior", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def scaled_guide(self, scale: float, shift: float = 0.0) -> Program:
        """The posterior with each component widened by `scale` and moved by `shift` of its own sds."""
        return moved_guide(self.guide, scale, shift)

    def prior(self) -> dist.MixtureSameFamily:
        """p(z): batch shape (), event shape (Z,)."""
        return dist.MixtureSameFamily(dist.Categorical(self.weights), dist.Normal(self.means, self.scales).to_event(1))

    def posterior(self, x: Tensor) -> dist.MixtureSameFamily:
        """p(z | x) for x of shape (N, D): batch shape (N,), event shape (Z,), of C components."""
        mixing = dist.Categorical(logits=self._log_joint(x))
        whitened = self.likelihood.loadings / self.likelihood.noise_scale[:, None]
        precision = (self.scales**-2).diag_embed() + whitened.T @ whitened
        projected = ((x - self.likelihood.bias) / self.likelihood.noise_scale) @ whitened
        information = self.means / self.scales**2 + projected.unsqueeze(1)
        return dist.MixtureSameFamily(mixing, information_normal(precision, information))

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,), for x of shape (N, D)."""
        return self._log_joint(x).logsumexp(-1)

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, Tensor]:
        """x (N, D) and its latents z (N, Z) drawn from the model; the global generator is restored."""
        with torch.no_grad(), seeded(seed, self.means.device):
            z = self.prior().sample((num_data,))
            mean = z @ self.likelihood.loadings.T + self.likelihood.bias
            return dist.Normal(mean, self.likelihood.noise_scale).sample(), z

    def _log_joint(self, x: Tensor) -> Tensor:
        """log p(c, x), shape (N, C)."""
        check_rows(x, self.likelihood.loadings.shape[:1])
        mean = self.means @ self.likelihood.loadings.T + self.likelihood.bias
        factor = self.likelihood.loadings * self.scales.unsqueeze(1)
        components = dist.LowRankMultivariateNormal(mean, factor, self.likelihood.noise_scale.expand_as(mean) ** 2)
        return dist.Categorical(self.weights).logits + components.log_prob(x.unsqueeze(1))


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
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(num_components + num_features, num_latents, generator=generator, dtype=torch.float64)
    means, loadings = spread * normal[:num_components], normal[num_components:]
    likelihood = LinearGaussian(loadings, torch.zeros_like(loadings[:, 0]), torch.tensor(noise).to(means))
    return MixturePrior(
        likelihood, torch.full_like(means[:, 0], 1 / num_components), means, torch.full_like(means, scale)
    )
