r"""Conjugate programs with latents on part of the real line: gamma-Poisson and beta-binomial.

For every feature by itself::

    z ~ Gamma(a, b),  x | z ~ Poisson(z):      p(x) = NegativeBinomial(a, 1 / (1 + b)),  z | x ~ Gamma(a + x, b + 1)
    z ~ Beta(a, b),   x | z ~ Binomial(n, z):  p(x) = BetaBinomial(a, b, n),  z | x ~ Beta(a + x, b + n - x)

Weights of a guide of the posterior's family have finite variance if and only if both of its parameters, for every
feature, are less than twice those of the posterior.
"""

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyrovae.base.errors import check_at_least_one
from pyrovae.programs.oracles.single_latent import SingleLatent
from pyrovae.programs.parameters import check_rows, learned_or_fixed, seeded


class GammaPoisson(SingleLatent):
    """Counts with a gamma-distributed rate z > 0 for each of D features.

    Args:
        concentration: a > 0, shape (D,).
        rate: b > 0, shape (D,), or a scalar.

    Raises:
        InputError: if the shapes do not agree or a number is not positive.

    Example:
        >>> oracle = GammaPoisson(torch.ones(1), torch.ones(1))
        >>> oracle.log_evidence(torch.arange(3.0)[:, None]).exp()  # geometric
        tensor([0.5000, 0.2500, 0.1250])
    """

    def __init__(self, concentration: Tensor, rate: Tensor) -> None:
        super().__init__()
        shape = concentration.shape
        self.concentration = learned_or_fixed("concentration", concentration, shape, positive=True)
        self.rate = learned_or_fixed("rate", rate, shape, positive=True)

    def prior(self) -> TorchDistributionMixin:
        return dist.Gamma(self.concentration, self.rate).to_event(1)

    def likelihood(self, z: Tensor) -> TorchDistributionMixin:
        return dist.Poisson(z).to_event(1)

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        check_rows(x, self.concentration.shape)
        return dist.Gamma(self.concentration + x, self.rate + 1).to_event(1)

    def evidence(self) -> TorchDistributionMixin:
        return dist.GammaPoisson(self.concentration, self.rate).to_event(1)


class BetaBinomial(SingleLatent):
    """Successes in n trials with a beta-distributed probability 0 < z < 1 for each of D features.

    Args:
        concentration1: a > 0, of successes, shape (D,).
        concentration0: b > 0, of failures, shape (D,), or a scalar.
        num_trials: n.

    Raises:
        InputError: if the shapes do not agree or a number is not positive.

    Example:
        >>> oracle = BetaBinomial(torch.ones(1), torch.ones(1), 3)
        >>> oracle.log_evidence(torch.arange(4.0)[:, None]).exp()  # uniform
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    def __init__(self, concentration1: Tensor, concentration0: Tensor, num_trials: int) -> None:
        super().__init__()
        check_at_least_one(num_trials=num_trials)
        shape, self.num_trials = concentration1.shape, num_trials
        self.concentration1 = learned_or_fixed("concentration1", concentration1, shape, positive=True)
        self.concentration0 = learned_or_fixed("concentration0", concentration0, shape, positive=True)

    def prior(self) -> TorchDistributionMixin:
        return dist.Beta(self.concentration1, self.concentration0).to_event(1)

    def likelihood(self, z: Tensor) -> TorchDistributionMixin:
        return dist.Binomial(self.num_trials, z).to_event(1)

    def posterior(self, x: Tensor) -> TorchDistributionMixin:
        check_rows(x, self.concentration1.shape)
        return dist.Beta(self.concentration1 + x, self.concentration0 + self.num_trials - x).to_event(1)

    def evidence(self) -> TorchDistributionMixin:
        return dist.BetaBinomial(self.concentration1, self.concentration0, self.num_trials).to_event(1)


def gamma_poisson(num_features: int, *, seed: int = 0) -> GammaPoisson:
    """The gamma-Poisson program in float64: concentrations uniform on (1, 4), rates on (0.5, 1.5)."""
    with seeded(seed):
        a, b = torch.rand(2, num_features, dtype=torch.float64)
    return GammaPoisson(1 + 3 * a, 0.5 + b)


def beta_binomial(num_features: int, *, num_trials: int = 10, seed: int = 0) -> BetaBinomial:
    """The beta-binomial program in float64: both concentrations uniform on (1, 4)."""
    with seeded(seed):
        a, b = torch.rand(2, num_features, dtype=torch.float64)
    return BetaBinomial(1 + 3 * a, 1 + 3 * b, num_trials)
