"""Training bounds, each a Pyro ``ELBO``."""

from pyrovae.training.objectives.elbo import AnalyticKLELBO, SampledELBO
from pyrovae.training.objectives.importance_weighted import IWAE
from pyrovae.training.objectives.objective import Objective

__all__ = ["IWAE", "AnalyticKLELBO", "Objective", "SampledELBO"]
