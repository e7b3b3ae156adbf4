"""Priors p(z): modules that give a distribution over the latents of one datum when called.

To add one: a file here, and its line in ``PRIORS``.
"""

from pyrovae.base.choices import Choice, handed_on

_PATHS = {
    "GaussianMixture": f"{__name__}.mixtures:GaussianMixture",
    "StandardNormal": f"{__name__}.gaussian:StandardNormal",
}
PRIORS = {
    "normal": Choice("N(0, I)", _PATHS["StandardNormal"]),
    "mixture": Choice("20 Gaussians, learned", _PATHS["GaussianMixture"], num_components=20, seed=0),
}
__all__ = ["PRIORS", *_PATHS]
__getattr__ = handed_on(__name__, _PATHS)
