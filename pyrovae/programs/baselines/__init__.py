"""Baselines: models without a network, whose log p(x) is exact, as programs that are evaluated as any other.

To add one: a file here with a function of :class:`~pyrovae.programs.baselines.rows.Rows`, and its line in
``BASELINES``. Beside them stand autoencoders, which have no density unless their codes are given one, and EM step by
step.
"""

from pyrovae.base.choices import Choice, handed_on

_GAUSSIANS = f"{__name__}.gaussians"
BASELINES = {
    "independent": Choice(
        "each value by itself: frequencies of masses; normal, log-normal or logit-normal densities",
        f"{__name__}.independent:independent",
    ),
    "normal": Choice("one normal of full covariance", f"{_GAUSSIANS}:normal"),
    "ppca": Choice(
        "probabilistic PCA, one noise for all values",
        f"{_GAUSSIANS}:ppca",
        source="Tipping and Bishop (1999)",
        takes=["num_axes"],
    ),
    "factor-analysis": Choice(
        "factor analysis, a noise for each value",
        f"{_GAUSSIANS}:factor_analysis",
        source="Rubin and Thayer (1982)",
        takes=["num_factors"],
    ),
    "mixture": Choice(
        "normals of full covariance; of masses independent binomials, Bernoullis or Poissons",
        f"{__name__}.mixtures:mixture",
        source="Dempster et al. (1977)",
        takes=["num_components"],
    ),
}
_PATHS = {
    "Autoencoder": f"{__name__}.autoencoders:Autoencoder",
    "Baseline": f"{__name__}.rows:Baseline",
    "Rows": f"{__name__}.rows:Rows",
    "Steps": "pyrovae.base.steps:Steps",
    "corruptions": f"{__name__}.corruptions",
    "factor_analysis_steps": f"{__name__}.em_steps:factor_analysis_steps",
    "fit_mixture": f"{__name__}.em:fit_mixture",
    "mixture_steps": f"{__name__}.em_steps:mixture_steps",
    "with_density": f"{__name__}.densities:with_density",
}
__all__ = ["BASELINES", *_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS, "BASELINES")
