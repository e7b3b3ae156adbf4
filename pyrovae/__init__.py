"""Variational autoencoders as probabilistic programs, with every nat accounted for.

A pair of Pyro programs defines everything; a table of log densities measures everything.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it. Names are imported at first use (PEP 562), so that
# `import pyrovae` and the command line's --help cost nothing.
_NAMES = {
    "VAE": "programs.vae",
    "Conditional": "programs.conditional",
    "fit": "inference.training",
    "Fit": "inference.loop",
    "evaluate": "inference.report",
    "Report": "inference.report",
    "compare": "inference.comparison",
    "convergence": "inference.convergence",
    "widened": "inference.widening",
    "annealed_evidence": "inference.annealing.annealed",
    "bidirectional": "inference.annealing.bidirectional",
    "gaps": "inference.gaps.report",
    "surgery": "inference.surgery.report",
    "calibrate": "inference.calibration.report",
    "exact_posterior": "inference.posteriors.exact",
    "predictive_check": "inference.checks.report",
    "log_terms": "inference.terms",
    "LogTerms": "inference.terms",
    "sample": "inference.drawing",
    "posterior": "inference.drawing",
    "reconstruct": "inference.drawing",
    "decode": "inference.drawing",
    "tempered": "inference.handlers",
    "in_precision": "inference.precision",
    "from_guide": "inference.annealing.paths",
    "from_prior": "inference.annealing.paths",
    "InputError": "base.errors",
    "Interrupted": "base.errors",
    "NotCompiled": "base.errors",
    "UntrustedEvidence": "base.errors",
    "UntrustedPosterior": "base.errors",
}
_MODULES = {
    "priors": "programs.priors",
    "families": "programs.families",
    "networks": "programs.networks",
    "oracles": "programs.oracles",
    "mixtures": "programs.mixtures",
    "objectives": "inference.objectives",
    "estimators": "inference.estimators",
    "data": "data",
    "runs": "runs",
    "figures": "figures",
    "recipes": "recipes",
}
__all__ = [*_NAMES, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"pyrovae.{_NAMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"pyrovae.{_MODULES[name]}")
    raise AttributeError(f"module 'pyrovae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
