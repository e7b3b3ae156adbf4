"""Finite mixtures, whose evidence and posterior are sums over components.

The program and its evidence in closed form::

    k ~ Categorical(w),  x | k ~ family(m_k),  log p(x) = logsumexp_k [log w_k + log p(x | m_k)]
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.oracles.single_latent import SingleLatent
from pyrovae.programs.parameters import check_proportions, check_rows, learned_or_fixed, register_module, seeded

MeanFamily = Callable[[Tensor], TorchDistributionMixin]


class FiniteMixture(SingleLatent):
    """A mixture of C components with the latent component "k", drawn exactly by the guide.

    Args:
        weights: mixing proportions, shape (C,), that sum to one.
        means: mean parameters, shape (C, *event).
        family: maps mean parameters (..., *event) to a distribution of that event shape,
            e.g. ``lambda mean: dist.Binomial(16, probs=mean / 16).to_event(2)``.

    Raises:
        InputError: if the shapes do not agree or the weights are not proportions.

    Example:
        >>> means = torch.tensor([0.1, 0.9])
        >>> coins = FiniteMixture(torch.tensor([0.5, 0.5]), means, lambda mean: dist.Bernoulli(mean))
        >>> coins.log_evidence(torch.tensor([1.0])).exp()
        tensor([0.5000])
    """

    site = "k"

    def __init__(self, weights: Tensor, means: Tensor, family: MeanFamily) -> None:
        super().__init__()
        check_proportions(weights)
        if means.shape[:1] != weights.shape:
            raise InputError(f"expected means of shape ({len(weights)}, *event); got {tuple(means.shape)}")
        event_shape = tuple(family(means).event_shape)
        if event_shape != tuple(means.shape[1:]):
            raise InputError(
                f"family must give the event shape {tuple(means.shape[1:])} of its means; got {event_shape}; "
                "declare the event dimensions with .to_event"
            )
        self.weights = learned_or_fixed("weights", weights, weights.shape)
        self.means = learned_or_fixed("means", means, means.shape)
        self.family = family

    def prior(self) -> dist.Categorical:
        return dist.Categorical(self.weights)

    def likelihood(self, k: Tensor) -> TorchDistributionMixin:
        return self.family(self.means[k])

    def marginal(self, x: Tensor) -> None:
        """The program p(x) with k summed out: no latent is left, so its evidence needs no guide and no particles."""
        register_module(self)
        with pyro.plate("data", len(x)):
            # Of each row once, where MixtureSameFamily would score it anew for each particle.
            pyro.sample("x", dist.ExpandedDistribution(self.evidence()), obs=x)

    def posterior(self, x: Tensor) -> dist.Categorical:
        """p(k | x) for x of shape (N, *event): batch shape (N,), over C components."""
        return dist.Categorical(logits=log_components(self.evidence(), x))

    def evidence(self) -> dist.MixtureSameFamily:
        return dist.MixtureSameFamily(dist.Categorical(self.weights), self.family(self.means))


def log_components(evidence: dist.MixtureSameFamily, x: Tensor) -> Tensor:
    """log p(k, x) of a mixture of C components, batch shape (), for x of shape (N, *event): (N, C) in nats."""
    check_rows(x, evidence.event_shape)
    return evidence.mixture_distribution.logits + evidence.component_distribution.log_prob(x.unsqueeze(1))


def bernoulli_mixture(num_features: int, num_components: int, *, seed: int = 0) -> FiniteMixture:
    """A mixture in float64 of independent Bernoullis: uniform means, weights as 1 : 2 : ... : C.

    Example:
        >>> bernoulli_mixture(5, 2).log_evidence(torch.zeros(3, 5)).shape
        torch.Size([3])
    """
    with seeded(seed):
        means = torch.rand(num_components, num_features, dtype=torch.float64)
    return FiniteMixture(_rising_weights(num_components), means, lambda mean: dist.Bernoulli(mean).to_event(1))


def gaussian_mixture(
    num_features: int, num_components: int, *, spread: float = 1.0, noise: float = 1.0, seed: int = 0
) -> FiniteMixture:
    """A mixture in float64 of spherical Gaussians: means from N(0, spread^2), weights as 1 : 2 : ... : C.

    Args:
        num_features: D.
        num_components: C.
        spread: standard deviation of the means.
        noise: standard deviation of every feature within a component.
        seed: of the means.

    Example:
        >>> gaussian_mixture(5, 2).posterior(torch.zeros(3, 5)).probs.shape
        torch.Size([3, 2])
    """
    with seeded(seed):
        means = spread * torch.randn(num_components, num_features, dtype=torch.float64)
    return FiniteMixture(_rising_weights(num_components), means, lambda mean: dist.Normal(mean, noise).to_event(1))


def _rising_weights(num_components: int) -> Tensor:
    check_at_least_one(num_components=num_components)
    rising = torch.arange(1, num_components + 1, dtype=torch.float64)
    return rising / rising.sum()
