"""Programs whose evidence and posterior are known exactly: rulers to hold a measurement against.

Each is a module of float64 numbers with the methods of an :class:`Oracle`; its guide is the exact posterior::

    log p(x, z) - log q(z | x) = log p(x)  for every z, if and only if  q(z | x) = p(z | x)

``pv.widened(oracle.guide, 1.3, shift=0.3)`` is a guide of known error, whose weights have finite variance.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyrovae.programs.oracles.conjugate import BetaBinomial, GammaPoisson, beta_binomial, gamma_poisson
from pyrovae.programs.oracles.hierarchies import Hierarchy, hierarchy
from pyrovae.programs.oracles.linear_gaussian import LinearGaussian, factor_analysis, ppca
from pyrovae.programs.oracles.missing_entries import MissingEntries, missing_entries
from pyrovae.programs.oracles.mixture_prior import MixturePrior, mixture_prior
from pyrovae.programs.oracles.mixtures import FiniteMixture, bernoulli_mixture, gaussian_mixture
from pyrovae.programs.oracles.single_latent import SingleLatent
from pyrovae.programs.oracles.state_space import StateSpace, state_space

__all__ = [
    "EXAMPLES",
    "BetaBinomial",
    "FiniteMixture",
    "GammaPoisson",
    "Hierarchy",
    "LinearGaussian",
    "MissingEntries",
    "MixturePrior",
    "Oracle",
    "SingleLatent",
    "StateSpace",
    "bernoulli_mixture",
    "beta_binomial",
    "factor_analysis",
    "gamma_poisson",
    "gaussian_mixture",
    "hierarchy",
    "missing_entries",
    "mixture_prior",
    "ppca",
    "state_space",
]


class Oracle(Protocol):
    """What every exact program offers."""

    def model(self, x: Tensor) -> None:
        """The program of p(x, z) for x of shape (N, ...), in one plate "data" over the N data."""

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(z | x) as a program."""

    def posterior(self, x: Tensor) -> TorchDistributionMixin | Mapping[str, TorchDistributionMixin]:
        """p(z | x); with several sites the margin of each, by name, in the batch shape of the site."""

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,)."""

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
        """x (N, ...) and its latents: the value of the one site, or site -> value, as the program shapes them."""


# Name -> a small instance: every ruler here, for tests and for teaching.
EXAMPLES: dict[str, Callable[[], Oracle]] = {
    "ppca": lambda: ppca(20, 3),  # one latent vector, the same posterior precision for every datum
    "factor analysis": lambda: factor_analysis(12, 3),  # the same, with a noise scale for each feature
    "missing entries": lambda: missing_entries(8, 2),  # NaN in the data, another precision for every datum
    "mixture prior": lambda: mixture_prior(1, 2),  # a continuous posterior of several modes
    "bernoulli mixture": lambda: bernoulli_mixture(10, 3),  # a discrete latent, binary data
    "gaussian mixture": lambda: gaussian_mixture(3, 3),  # a discrete latent, real data
    "gamma-poisson": lambda: gamma_poisson(3),  # latents on the positive line, counts
    "beta-binomial": lambda: beta_binomial(3),  # latents between 0 and 1, bounded counts
    "hierarchy": lambda: hierarchy(3),  # two latent sites, one of them in a plate within the plate
    "state space": lambda: state_space(3, 2, 2),  # a chain of sites, drawn backwards by the guide
}
