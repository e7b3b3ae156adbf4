"""Training bounds, each a Pyro ``ELBO``.

To add one: a file here, and its line in ``OBJECTIVES``.
"""

from pyrovae.base.choices import Choice, handed_on

_PATHS = {
    "AnalyticKLELBO": f"{__name__}.elbo:AnalyticKLELBO",
    "IWAE": f"{__name__}.importance_weighted:IWAE",
    "Objective": f"{__name__}.objective:Objective",
    "SampledELBO": f"{__name__}.elbo:SampledELBO",
}
OBJECTIVES = {
    "elbo": Choice("the ELBO, all its terms sampled", _PATHS["SampledELBO"]),
    "analytic-kl": Choice("the ELBO, its KL in closed form", _PATHS["AnalyticKLELBO"]),
    "iwae": Choice("the importance-weighted bound of 10 particles", _PATHS["IWAE"], num_particles=10),
}
__all__ = ["OBJECTIVES", *_PATHS]
__getattr__ = handed_on(__name__, _PATHS)
