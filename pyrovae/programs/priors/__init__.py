"""Priors p(z): modules that give a distribution over the latents of one datum when called."""

from pyrovae.programs.priors.gaussian import StandardNormal
from pyrovae.programs.priors.mixtures import GaussianMixture

__all__ = ["GaussianMixture", "StandardNormal"]
