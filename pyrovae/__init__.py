"""Variational autoencoders as probabilistic programs, with every nat accounted for.

A pair of Pyro programs defines everything; a table of log densities measures everything.
"""

from pyrovae.base.choices import handed_on

__version__ = "0.1.0"

# Public name -> the module that holds it. Names are imported at first use (PEP 562), so that
# `import pyrovae` and the command line's --help cost nothing.
_NAMES = {
    "VAE": "programs.vae",
    "TableVAE": "programs.tables",
    "Conditional": "programs.conditional",
    "encoder_for": "apps.encoder_for",
    "fit": "training.fit",
    "Fit": "training.fit",
    "evaluate": "evidence.evaluate",
    "Report": "evidence.report",
    "compare": "evidence.comparisons.paired",
    "compare_seeds": "evidence.comparisons.seeds",
    "sweep": "apps.sweeps.sweep",
    "baseline": "apps.sweeps.baselines",
    "convergence": "evidence.convergence",
    "widened": "evidence.proposals.widened",
    "annealed_evidence": "evidence.annealing.ais",
    "bidirectional": "evidence.annealing.bdmc",
    "gaps": "diagnostics.gaps",
    "surgery": "diagnostics.surgery",
    "calibrate": "diagnostics.calibration",
    "reference_posterior": "posteriors.reference",
    "predictive_check": "diagnostics.predictive_check",
    "Record": "base.records",
    "Convergence": "evidence.convergence",
    "Comparison": "evidence.comparisons.paired",
    "OverSeeds": "evidence.comparisons.seeds",
    "Annealed": "evidence.annealing.ais",
    "Bidirectional": "evidence.annealing.bdmc",
    "Gaps": "diagnostics.gaps",
    "Surgery": "diagnostics.surgery",
    "Calibration": "diagnostics.calibration",
    "PosteriorDraws": "posteriors.reference",
    "PredictiveCheck": "diagnostics.predictive_check",
    "Draws": "posteriors.draws",
    "log_terms": "pairs.table",
    "LogTerms": "pairs.terms",
    "sample": "posteriors.draws",
    "posterior": "posteriors.draws",
    "reconstruct": "posteriors.draws",
    "decode": "posteriors.draws",
    "tempered": "pairs.handlers",
    "with_prior": "pairs.handlers",
    "observed_entries": "pairs.missing.observed",
    "with_missingness": "pairs.missing.missingness",
    "self_masking": "programs.missingness",
    "hide": "data.missing.masks",
    "log_density": "evidence.comparisons.conditional",
    "ConditionalDensity": "evidence.comparisons.conditional",
    "conditional": "posteriors.missing.conditional",
    "Completion": "posteriors.missing.completion",
    "impute": "posteriors.missing.imputation",
    "pool": "posteriors.missing.pooling",
    "Pooled": "posteriors.missing.pooling",
    "in_precision": "pairs.handlers",
    "from_guide": "evidence.annealing.paths",
    "from_prior": "evidence.annealing.paths",
    "InputError": "base.errors",
    "Interrupted": "base.errors",
    "NoisyGradients": "base.errors",
    "NotCompiled": "base.errors",
    "UnfinishedFit": "base.errors",
    "LostDigits": "base.errors",
    "UntrustedEvidence": "base.errors",
    "UntrustedPosterior": "base.errors",
}
_MODULES = {
    "priors": "programs.priors",
    "families": "programs.families",
    "guides": "programs.guides",
    "networks": "programs.networks",
    "oracles": "programs.oracles",
    "baselines": "programs.baselines",
    "objectives": "training.objectives",
    "estimators": "evidence.estimators",
    "data": "data",
    "runs": "apps.runs",
    "figures": "reports.figures",
    "recipes": "apps.recipes",
}
_PATHS = {name: f"pyrovae.{module}:{name}" for name, module in _NAMES.items()}
_PATHS |= {name: f"pyrovae.{module}" for name, module in _MODULES.items()}
__all__ = [*_PATHS, "__version__"]
__getattr__, __dir__ = handed_on(__name__, _PATHS, "__version__")
