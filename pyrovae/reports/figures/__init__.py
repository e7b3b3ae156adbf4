"""Every figure, by name: a function of a record or of a pair that returns a matplotlib figure.

``draw(record)`` finds the one of a record by its type.
"""

from pyrovae.reports.figures.bounds import annealed, bounds, convergence
from pyrovae.reports.figures.calibration import calibration, classification, predictive_check
from pyrovae.reports.figures.codes.continuity import continuity
from pyrovae.reports.figures.codes.panels import latent_panels
from pyrovae.reports.figures.codes.steps import em_steps
from pyrovae.reports.figures.decompositions import anatomy, gaps
from pyrovae.reports.figures.evidence import account, comparison, evidence_histogram, over_seeds, routes
from pyrovae.reports.figures.images import completions
from pyrovae.reports.figures.latents.manifold import manifold
from pyrovae.reports.figures.latents.plane import latent_means
from pyrovae.reports.figures.posterior import completed_columns, information, posterior_of_one
from pyrovae.reports.figures.programs import interpolation, prior_samples, reconstructions
from pyrovae.reports.figures.style import draw, save
from pyrovae.reports.figures.training import training_curves

__all__ = [
    "account",
    "anatomy",
    "annealed",
    "bounds",
    "calibration",
    "classification",
    "comparison",
    "completed_columns",
    "completions",
    "continuity",
    "convergence",
    "draw",
    "em_steps",
    "evidence_histogram",
    "gaps",
    "information",
    "interpolation",
    "latent_means",
    "latent_panels",
    "manifold",
    "over_seeds",
    "posterior_of_one",
    "predictive_check",
    "prior_samples",
    "reconstructions",
    "routes",
    "save",
    "training_curves",
]


def __dir__() -> list[str]:
    return sorted(__all__)
