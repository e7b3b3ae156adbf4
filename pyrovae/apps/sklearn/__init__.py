"""A VAE as scikit-learn's estimator, beside PCA, FactorAnalysis and GaussianMixture: density, transformer, sampler."""

from pyrovae.base.choices import handed_on

_PATHS = {"VAE": f"{__name__}.estimator:VAE"}
__all__ = [*_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS)
