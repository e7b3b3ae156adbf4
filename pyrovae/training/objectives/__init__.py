"""Training bounds, each a Pyro ``ELBO``.

To add one: a file here, and its line in ``OBJECTIVES``.
"""

from pyrovae.base.choices import Choice, handed_on

_PATHS = {
    "AnalyticKLELBO": f"{__name__}.elbo:AnalyticKLELBO",
    "ForwardKL": f"{__name__}.guide_only.forward_kl:ForwardKL",
    "HalfAsleep": f"{__name__}.guide_only.half_asleep:HalfAsleep",
    "IWAE": f"{__name__}.many_particles.importance_weighted:IWAE",
    "Objective": f"{__name__}.objective:Objective",
    "SampledELBO": f"{__name__}.elbo:SampledELBO",
    "SelfConsistency": f"{__name__}.guide_only.self_consistency:SelfConsistency",
}
OBJECTIVES = {
    "elbo": Choice("the ELBO, all its terms sampled", _PATHS["SampledELBO"]),
    "analytic-kl": Choice("the ELBO, its KL in closed form", _PATHS["AnalyticKLELBO"]),
    "iwae": Choice(
        "the importance-weighted bound of 10 particles", _PATHS["IWAE"], takes=["num_particles"], num_particles=10
    ),
    "forward-kl": Choice("for the guide alone: log q at what the model simulates (sleep)", _PATHS["ForwardKL"]),
    "half-asleep": Choice(
        "for the guide alone: forward KL and ELBO, half and half", _PATHS["HalfAsleep"], takes=["fraction"]
    ),
    "self-consistency": Choice("for the guide alone: the variance of log w", _PATHS["SelfConsistency"]),
}
__all__ = ["OBJECTIVES", *_PATHS]
__getattr__ = handed_on(__name__, _PATHS)
