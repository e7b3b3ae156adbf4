r"""Discrete latents summed out: a pair whose latents are the continuous ones alone.

.. math:: p(x, u) = \sum_d p(x, u, d), \qquad q(u \mid x) = \sum_d q(u, d \mid x)

over all values d of the discrete sites of a datum together (Rao-Blackwellisation). Without continuous ones the sum is
p(x) itself.
"""

import math

import torch
from torch import Tensor

from pyrovae.pairs.discrete.values import every_value
from pyrovae.pairs.handlers import Placed, Unconstrained
from pyrovae.pairs.latents import Joint, Latents, Values


class Summed(Latents):
    """The continuous latents of a pair, its discrete ones summed out of every density.

    Raises:
        InputError: naming the site, where there are too many values to sum, or no finite number of them.
    """

    def __init__(self, latents: Latents) -> None:
        vars(self).update(vars(latents))
        self.discrete = every_value(latents)
        self.num_values = len(next(iter(self.discrete.values())))
        self.sites = {name: site for name, site in self.every_site.items() if name not in self.discrete}

    def part_sizes(self, num_particles: int, fewer: int = 1) -> list[int]:
        return super().part_sizes(num_particles, fewer * self.num_values)

    def site_log_guide(self, values: Values) -> dict[str, Tensor]:
        of_each = super().site_log_guide(self._among_values(values))
        return {"all sites together": self._sum(torch.stack([*of_each.values()]).sum(0))}

    def log_evidence(self) -> Tensor:
        """log p(x), the sum over all values, where there is no continuous latent: (n,) nats, float64."""
        joint = super()._score_model(self._among_values({}))
        return self._sum(joint.log_likelihood.double() + joint.log_prior.double())[0]

    def draw_posterior(self, num_draws: int) -> Values:
        """Values by their probabilities given the data, where there is no continuous latent: site -> (L, n, ...)."""
        joint = super()._score_model(self._among_values({}))
        log_joint = (joint.log_likelihood + joint.log_prior)[:, None].expand(-1, num_draws, -1)
        return self._chosen(log_joint.movedim(0, 1))

    def values_at(self, u: Tensor) -> Values:
        joint = super()._score_model(self._among_values(self.split_sites(u)), Unconstrained)
        values = {name: value[:: self.num_values] for name, value in joint.values.items()}
        return values | self._chosen(joint.log_density.unflatten(0, (-1, self.num_values)))

    def _chosen(self, log_joint: Tensor) -> Values:
        """Discrete values by log p(x, u, d), (K, M, n): site -> (K, n, ...)."""
        fine = log_joint.logsumexp(1, keepdim=True).isfinite()
        index = torch.distributions.Categorical(logits=torch.where(fine, log_joint, 0.0).movedim(1, -1)).sample()
        return {name: value.squeeze(1)[index] for name, value in self.discrete.items()}

    def _score_model(self, given: Values, handler: type[Placed] = Placed) -> Joint:
        joint = super()._score_model(self._among_values(given), handler)
        log_prior, total = self._sum(joint.log_prior), self._sum(joint.log_likelihood + joint.log_prior)
        log_likelihood = torch.where(log_prior == -math.inf, 0.0, total - log_prior)
        values = {name: value[:: self.num_values] for name, value in joint.values.items()}
        return Joint(log_likelihood, log_prior, joint.log_jacobian[:: self.num_values], values)

    def _among_values(self, values: Values) -> Values:
        """K continuous latents (K, n, ...), each with all M values of the discrete ones: (K M, n, ...)."""
        count = len(next(iter(values.values()))) if values else 1
        continuous = {name: value.repeat_interleave(self.num_values, 0) for name, value in values.items()}
        discrete = {
            name: value.expand(-1, self.num_data, *value.shape[2:]).repeat(count, *[1] * (value.dim() - 1))
            for name, value in self.discrete.items()
        }
        return continuous | discrete

    def _sum(self, log_density: Tensor) -> Tensor:
        return log_density.unflatten(0, (-1, self.num_values)).logsumexp(1)


def without_discrete(latents: Latents) -> Latents:
    """The latents as they are, or with the discrete ones summed out."""
    return Summed(latents) if any(site.is_discrete for site in latents.every_site.values()) else latents
