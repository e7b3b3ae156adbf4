"""Guides q(z|x): families with a network's parameters, and modules that are more than that.

To add one: a file here or in ``families``, and its line in ``GUIDES``. A constructor gives a
:class:`~pyrovae.programs.families.Family`, or a function of the shape of one latent and of what builds a network
(:func:`pyrovae.networks.mlp` and the others), which returns a module x -> Distribution.
"""

from pyrovae.base.choices import Choice, handed_on

_FAMILIES = "pyrovae.programs.families"
_HEADED = f"{__name__}.headed"
GUIDES = {
    "normal": Choice("a mean and a scale for each latent", f"{_FAMILIES}.continuous:normal"),
    "low-rank-normal": Choice("correlated by factors", f"{_FAMILIES}.spread:low_rank_normal", takes=["rank"]),
    "full-normal": Choice("a full covariance", f"{_HEADED}:full_normal", has_mean=False),
    "student-t": Choice("heavy tails; :3 is df", f"{_FAMILIES}.spread:student_t", takes=["df"]),
    "mixture": Choice(
        "5 diagonal normals, draws with gradients",
        f"{__name__}.mixtures:mixture",
        source="Figurnov, Mohamed and Mnih (2018)",
        takes=["num_components"],
    ),
    "iaf": Choice(
        "an inverse autoregressive flow of 3 steps (zuko)",
        f"{__name__}.flows:iaf",
        has_mean=False,
        source="Kingma et al. (2016)",
        takes=["num_steps", "hidden"],
    ),
    "neural-spline-flow": Choice(
        "a flow of 2 steps of splines (zuko)",
        f"{__name__}.flows:neural_spline_flow",
        has_mean=False,
        source="Durkan et al. (2019)",
        takes=["num_steps", "num_bins", "hidden"],
    ),
    "top-down": Choice(
        "two levels, the upper first: the ladder",
        f"{__name__}.hierarchical:top_down",
        has_mean=False,
        source="Sønderby et al. (2016)",
        takes=["hidden"],
    ),
    "spline-flow": Choice(
        "a spline autoregressive flow",
        f"{_HEADED}:spline_flow",
        has_mean=False,
        source="Dolatabadi, Erfani and Leckie (2020)",
    ),
    "log-normal": Choice("positive latents", f"{_FAMILIES}.spread:log_normal", support="positive"),
    "gamma": Choice("positive latents, less skewed", f"{_FAMILIES}.spread:gamma", support="positive"),
    "logit-normal": Choice("latents from 0 to 1", f"{_HEADED}:logit_normal", has_mean=False, support="unit"),
    "beta": Choice("latents from 0 to 1, of one mode", f"{_FAMILIES}.latents:unimodal_beta", support="unit"),
    "logistic-normal": Choice(
        "proportions, a full covariance",
        f"{_HEADED}:logistic_normal",
        has_mean=False,
        source="Aitchison and Shen (1980)",
        support="simplex",
    ),
    "dirichlet": Choice("proportions", f"{_FAMILIES}.latents:dirichlet", support="simplex"),
    "power-spherical": Choice(
        "directions", f"{_FAMILIES}.latents:power_spherical", source="De Cao and Aziz (2020)", support="sphere"
    ),
    "bernoulli": Choice("bits, by score function", f"{_FAMILIES}.discrete:bernoulli", support="binary"),
    "one-hot": Choice("classes, by score function", f"{_FAMILIES}.latents:one_hot", support="one-hot"),
}
_PATHS = {
    **{name: f"{_HEADED}:{name}" for name in ("full_normal", "logistic_normal", "logit_normal", "spline_flow")},
    **{name: f"{__name__}.flows:{name}" for name in ("iaf", "neural_spline_flow")},
    "from_zuko": "pyrovae.programs.distributions.flows:from_zuko",
    "mixture": f"{__name__}.mixtures:mixture",
    "top_down": f"{__name__}.hierarchical:top_down",
}
__all__ = ["GUIDES", *_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS, "GUIDES")
