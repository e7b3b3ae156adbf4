"""Programs whose evidence and posterior are known exactly: rulers to hold a measurement against.

Each is a module of float64 numbers with the same few methods (:class:`Oracle`)::

    oracle.model(x), oracle.guide(x)    programs; the guide is the exact posterior, so log w = log p(x)
    oracle.log_evidence(x)              log p(x) in nats, (N,), in closed form
    oracle.posterior(x)                 p(z | x), or site -> p(site | x) where there are several sites
    oracle.draw(num_data, seed)         x and the z that it came from

    log p(x, z) - log q(z | x) = log p(x)  for every z, if and only if  q(z | x) = p(z | x)

``pv.widened(oracle.guide, 1.3, shift=0.3)`` is a guide of known error, whose weights have finite variance.
"""

from collections.abc import Callable

from pyrovae.programs.oracles.conjugate import BetaBinomial, GammaPoisson, beta_binomial, gamma_poisson
from pyrovae.programs.oracles.hierarchies import Hierarchy, hierarchy
from pyrovae.programs.oracles.linear_gaussian import LinearGaussian, factor_analysis, ppca
from pyrovae.programs.oracles.missing_entries import MissingEntries, missing_entries
from pyrovae.programs.oracles.mixture_prior import MixturePrior, mixture_prior
from pyrovae.programs.oracles.mixtures import FiniteMixture, bernoulli_mixture, gaussian_mixture
from pyrovae.programs.oracles.oracle import Oracle
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
