"""Priors p(z): modules that give a distribution over the latents of one datum when called.

To add one: a file here, and its line in ``PRIORS``.
"""

from pyrovae.base.choices import Choice, handed_on

_GAUSSIAN, _HIERARCHIES, _LEARNED, _MIXTURES, _SPACES, _TAILS = (
    f"{__name__}.{module}" for module in ("gaussian", "hierarchies", "learned", "mixtures", "other_spaces", "tails")
)
_CODES, _EXEMPLARS, _FLOWS = (f"{__name__}.{module}" for module in ("autoregressive", "exemplars", "flows"))
_PATHS = {
    **{name: f"{_GAUSSIAN}:{name}" for name in ("FullNormal", "LearnedNormal", "StandardNormal")},
    **{name: f"{_SPACES}:{name}" for name in ("BernoulliCode", "Dirichlet", "Gamma", "LogisticNormal", "OneHotCode")},
    **{name: f"{_TAILS}:{name}" for name in ("Horseshoe", "Laplace", "Logistic")},
    **{name: f"{_TAILS}:{name}" for name in ("SpikeAndSlab", "StudentT", "Uniform")},
    **{name: f"{_CODES}:{name}" for name in ("AutoregressiveBits", "AutoregressiveCode")},
    **{name: f"{_FLOWS}:{name}" for name in ("MaskedAutoregressiveFlow", "NeuralSplineFlow")},
    "ExemplarPrior": f"{_EXEMPLARS}:ExemplarPrior",
    "GaussianMixture": f"{_MIXTURES}:GaussianMixture",
    "Sphere": f"{_SPACES}:Sphere",
    "TwoLevels": f"{_HIERARCHIES}:TwoLevels",
    "VampPrior": f"{_LEARNED}:VampPrior",
}
PRIORS = {
    "normal": Choice("N(0, I)", _PATHS["StandardNormal"]),
    "learned-normal": Choice("a learned mean and scale for each latent", _PATHS["LearnedNormal"]),
    "full-normal": Choice("a learned mean and covariance", _PATHS["FullNormal"]),
    "mixture": Choice(
        "20 Gaussians, learned", _PATHS["GaussianMixture"], takes=["num_components"], num_components=20, seed=0
    ),
    "vamp": Choice(
        "the encoder's posteriors at 500 learned inputs",
        _PATHS["VampPrior"],
        source="Tomczak and Welling (2018)",
        takes=["num_pseudo_inputs"],
        needs=["encoder", "rows"],
    ),
    "exemplar": Choice(
        "the encoder's means at the training data, 1000 of them for each batch",
        _PATHS["ExemplarPrior"],
        source="Norouzi, Fleet and Norouzi (2020)",
        takes=["num_exemplars"],
        needs=["encoder", "rows"],
        needs_mean=True,
        num_exemplars=1000,
    ),
    "maf": Choice(
        "a masked autoregressive flow of 3 steps (zuko)",
        _PATHS["MaskedAutoregressiveFlow"],
        source="Papamakarios, Pavlakou and Murray (2017)",
        takes=["num_steps", "hidden"],
    ),
    "neural-spline-flow": Choice(
        "a flow of 2 steps of splines (zuko)",
        _PATHS["NeuralSplineFlow"],
        source="Durkan et al. (2019)",
        takes=["num_steps", "num_bins", "hidden"],
    ),
    "laplace": Choice("exponential tails", _PATHS["Laplace"]),
    "logistic": Choice("exponential tails, a round top", _PATHS["Logistic"]),
    "student-t": Choice("heavy tails; 5 degrees of freedom", _PATHS["StudentT"], takes=["df"]),
    "spike-and-slab": Choice(
        "a narrow normal or a wide one", _PATHS["SpikeAndSlab"], source="George and McCulloch (1993)", takes=["spike"]
    ),
    "horseshoe": Choice(
        "near zero, or anywhere", _PATHS["Horseshoe"], source="Carvalho, Polson and Scott (2010)", takes=["scale"]
    ),
    "two-levels": Choice(
        "z2 ~ N(0, I), z1 given z2 by a network",
        _PATHS["TwoLevels"],
        source="Sønderby et al. (2016)",
        takes=["hidden"],
    ),
    "gamma": Choice("positive latents", _PATHS["Gamma"], support="positive"),
    "uniform": Choice("from 0 to 1", _PATHS["Uniform"], support="unit"),
    "dirichlet": Choice("proportions: topics", _PATHS["Dirichlet"], support="simplex"),
    "logistic-normal": Choice(
        "proportions", _PATHS["LogisticNormal"], source="Aitchison and Shen (1980)", support="simplex"
    ),
    "sphere": Choice("directions, uniform", _PATHS["Sphere"], support="sphere"),
    "bernoulli": Choice("bits", _PATHS["BernoulliCode"], support="binary"),
    "one-hot": Choice(
        "classes; :10 is their number",
        _PATHS["OneHotCode"],
        takes=["num_classes"],
        support="one-hot",
        shape=lambda num_latents, num_classes=10: (num_latents, num_classes),
    ),
    "autoregressive-bernoulli": Choice(
        "bits, each by those before it",
        _PATHS["AutoregressiveBits"],
        source="Germain et al. (2015)",
        takes=["hidden"],
        support="binary",
    ),
    "autoregressive-one-hot": Choice(
        "classes, each by those before it; :10 is their number",
        _PATHS["AutoregressiveCode"],
        source="Germain et al. (2015)",
        takes=["num_classes", "hidden"],
        support="one-hot",
        shape=lambda num_latents, num_classes=10, **others: (num_latents, num_classes),
    ),
}
__all__ = ["PRIORS", *_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS, "PRIORS")
